"""The training loop: what twba_tensorflow/training.py does, on any PyTorch device, in one process or several."""
import contextlib
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from twba_nets import card, npz, progress
from twba_nets.datasets.dataset import Dataset
from twba_nets.errors import UserError
from twba_nets.journal import Journal, LogRow, Tested, Trained, make_row, require_finite, require_trained
from twba_nets.recipe import Recipe
from twba_nets.run_folder import MODEL_NAME, TRAINING_NAME
from twba_torch import variables
from twba_torch.adam import Adam
from twba_torch.network import Network
from twba_torch.pipeline import Images, augment, central_crop, epoch_numbers

SAVE_SECONDS = 30  # a checkpoint after every epoch, but on a fast GPU, where an epoch takes one second
READ_SECONDS = 1  # how often the running loss is read, which on a GPU waits for the steps before


class Trainer:
    """A network, its Adam and its data on a device; one of several processes where torch.distributed is initialised.

    compiled: fuse each step's operations by torch.compile. exact: see network.Network.
    """

    def __init__(self, recipe: Recipe, dataset: Dataset, device: torch.device, exact: bool = True, compiled: bool = True):
        self.recipe, self.device, self.flip = recipe, device, dataset.flip
        self.rank, self.world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        if min(len(dataset.x_train) % recipe.batch_size or recipe.batch_size, len(dataset.x_test)) < self.world:
            raise UserError(f"{self.world} processes: an epoch's last batch, or the test, has fewer images: use fewer processes")
        self.training = Images(dataset.x_train, dataset.y_train, device)
        self.test = Images(dataset.x_test[self.rank::self.world], dataset.y_test[self.rank::self.world], device)
        self.network = Network(recipe.variant, recipe.activation, exact).to(device)
        variables.assign(variables.initial(recipe.seed), self.network)
        self.adam = Adam(self.network.parameters(), compiled)
        self.model = DistributedDataParallel(self.network) if self.world > 1 else self.network
        self.compiled = {function: self._compile(function) if compiled else function
                         for function in (self.training_step, self.evaluation_step)}

    def _compile(self, function: Callable) -> Callable:
        """The function as one graph, or an error: in pieces, which DistributedDataParallel needs, it is slower.

        On a GPU alone it is replayed as a CUDA graph. deterministic: no kernel, so no order of sums, is chosen by time.
        """
        alone = self.world == 1
        options = {"triton.cudagraphs": alone and self.device.type == "cuda", "deterministic": True}
        return torch.compile(function, dynamic=False, fullgraph=alone, options=options)

    def step_of(self, function: Callable, size: int) -> Callable:
        """The compiled function for whole batches; an epoch's smaller last one is not worth compiling for."""
        return self.compiled[function] if size == self.recipe.batch_size // self.world else function

    def training_step(self, images: Tensor, uniforms: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """(summed loss, images classified rightly) of a batch of uint8 images."""
        logits, _ = self.model(augment(images, uniforms, self.flip))
        return F.cross_entropy(logits, labels, reduction="sum"), (logits.argmax(1) == labels).sum()

    def evaluation_step(self, images: Tensor, labels: Tensor) -> Tensor:
        """float64 [2 + 8]: summed loss, images classified rightly, and the sums of the counted maps."""
        logits, maps = self.network(central_crop(images))
        # an image's sum is exact in float32, a batch's in float64
        sums = [spikes.sum((1, 2, 3)).double().sum() for spikes in maps]
        loss = F.cross_entropy(logits, labels, reduction="sum").double()
        return torch.stack([loss, (logits.argmax(1) == labels).sum().double(), *sums])

    def train_epoch(self, epoch: int) -> Trained:
        """Train on every image once. epoch: counted from 0."""
        started = time.time()
        numbers = epoch_numbers(len(self.training), self.recipe.seed, epoch)
        order, uniforms = (tensor.to(self.device) for tensor in numbers)
        rate = torch.tensor(self.recipe.learning_rate(epoch), dtype=torch.float32, device=self.device)
        totals = torch.zeros(2, dtype=torch.float64, device=self.device)
        self.network.train()
        read = started
        with progress.bar(len(order), f"epoch {epoch + 1}/{self.recipe.epochs}", shown=self.rank == 0) as bar:
            for batch in order.split(self.recipe.batch_size):
                totals += self.train_batch(batch, uniforms, rate)
                if self.rank == 0 and time.time() - read > READ_SECONDS:
                    read = time.time()
                    loss, correct = (totals * self.world / (bar.n + len(batch))).tolist()  # by this process's share
                    bar.set_postfix(loss=f"{loss:.3f}", accuracy=f"{correct:.3f}")
                bar.update(len(batch))
        loss, accuracy = (self._over_processes(totals) / len(order)).tolist()
        require_finite("loss", loss, epoch + 1)
        return Trained(loss, accuracy, time.time() - started)

    def train_batch(self, batch: Tensor, uniforms: Tensor, rate: Tensor) -> Tensor:
        """One step on this process's share of a batch; the gradient is that of the whole batch's mean loss.

        batch: the images' numbers. uniforms: float32 [N, 5], of all images. Returns float64 [2]: the share's summed loss,
        and how many of its images are classified rightly.
        """
        mine = batch[self.rank::self.world]
        self.network.zero_grad(set_to_none=True)
        if self.device.type == "cuda":
            torch.compiler.cudagraph_mark_step_begin()
        loss, correct = self.step_of(self.training_step, len(mine))(
            self.training.x[mine], uniforms[mine], self.training.y[mine])
        (loss * (self.world / len(batch))).backward()  # DistributedDataParallel takes the processes' mean
        self.adam.step(rate)
        return torch.stack([loss.detach().double(), correct.double()])

    @torch.no_grad()
    def evaluate(self) -> Tested:
        """Evaluate on every test image exactly once."""
        started = time.time()
        self.network.eval()
        size = self.recipe.batch_size // self.world
        totals = sum(self.step_of(self.evaluation_step, len(x))(x, y).clone()
                     for x, y in zip(self.test.x.split(size), self.test.y.split(size)))
        count = torch.tensor([len(self.test)], dtype=totals.dtype, device=self.device)
        totals = self._over_processes(torch.cat([totals, count]))
        loss, accuracy, *maps = (totals[:-1] / totals[-1]).tolist()
        return Tested(loss, accuracy, sum(maps), time.time() - started)

    def _over_processes(self, totals: Tensor) -> Tensor:
        if self.world > 1:
            dist.all_reduce(totals)
        return totals

    def any_process(self, condition: object) -> bool:
        """Whether the condition holds in any of the processes."""
        return bool(self._over_processes(torch.tensor(float(bool(condition)), device=self.device)))

    def train_and_test(self, epoch: int) -> LogRow:
        """Train for one epoch (counted from 0) and test. Returns the log's row."""
        trained = self.train_epoch(epoch)
        return make_row(self.recipe, epoch, len(self.training), trained, self.evaluate())

    def save(self, folder: Path, epoch: int) -> None:
        """Write training.npz, from which the rest can be had, and model.npz after `epoch` finished epochs."""
        values = variables.read(self.network, self.adam)
        require_trained(values, epoch)
        npz.save_training(folder / TRAINING_NAME, values, epoch)
        card.remove(folder)
        npz.save_model(folder / MODEL_NAME, variables.quantised(self.network))


def train(trainer: Trainer, folder: Path, first_epoch: int, minutes: float | None = None) -> int:
    """Train into `folder` from epoch `first_epoch` to the recipe's last, or until `minutes` have passed.

    Returns how many epochs are done; all of them are saved.
    """
    epochs, chief, started, saved = trainer.recipe.epochs, trainer.rank == 0, time.time(), 0
    if chief:
        journal = Journal(folder, trainer.recipe, first_epoch)
    with open_summaries(folder, first_epoch) if chief else contextlib.nullcontext() as summaries:
        for epoch in range(first_epoch, epochs):
            row = trainer.train_and_test(epoch)
            last = epoch + 1 == epochs or trainer.any_process(minutes and time.time() - started > 60 * minutes)
            if chief:
                journal.record(row)
                save = last or time.time() - saved > SAVE_SECONDS
                if save:
                    trainer.save(folder, epoch + 1)
                    saved = time.time()
                journal.tell(row)
                if save:
                    journal.draw()
                if summaries:
                    summarise(summaries, row)
            if last:
                break
    if chief and epoch + 1 == epochs:
        finish(journal, trainer.device, trainer.world)
    return epoch + 1


def open_summaries(folder: Path, first_epoch: int) -> contextlib.AbstractContextManager:
    """TensorBoard's writer of a run's summaries, or None where there is PyTorch alone, which trains as well."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ModuleNotFoundError:
        print("note: the package tensorboard is not installed: no summaries are written")
        return contextlib.nullcontext()
    # what an earlier run, which a kill cut short, wrote of the epochs from purge_step on is left out
    return SummaryWriter(folder, purge_step=first_epoch + 1)


def summarise(summaries: "SummaryWriter", row: LogRow) -> None:  # noqa: F821 (imported where it is opened)
    """Show an epoch's figures in TensorBoard."""
    for name, figure in row.scalars().items():
        summaries.add_scalar(name, figure, row.epoch)
    summaries.flush()


def complete(recipe: Recipe, folder: Path, start: Path, device: torch.device) -> None:
    """Make up for what a kill during the last save, that of the training.npz `start`, left undone."""
    journal = Journal(folder, recipe, recipe.epochs)
    network = Network(recipe.variant, recipe.activation)
    variables.assign(npz.read_training(start), network)
    npz.save_model(folder / MODEL_NAME, variables.quantised(network))
    journal.draw()
    finish(journal, device, processes=1)


def finish(journal: Journal, device: torch.device, processes: int) -> None:
    """Write the card of a run whose last epoch is saved and drawn."""
    versions = {"torch": torch.__version__, "cuda": torch.version.cuda, "processes": processes}
    journal.finish(versions, device_name(device))


def device_name(device: torch.device) -> str:
    """The processor's name."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else card.cpu_name()
