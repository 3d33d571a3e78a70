"""The training loop of twba_tensorflow/training.py, on any PyTorch device, in one or several processes."""
import contextlib
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from twba_nets.runs import card, npz, provenance
from twba_nets.system import progress
from twba_nets.datasets.dataset import Dataset
from twba_nets.system.errors import UserError
from twba_nets.runs.journal import Journal, LogRow, Tested, Trained, make_row, require_finite, require_trained
from twba_nets.runs.model import Model
from twba_nets.runs.recipe import Recipe
from twba_nets.runs.run_folder import MODEL_NAME, TRAINING_NAME
from twba_nets.runs.summaries import Summaries
from twba_torch import variables
from twba_torch.adam import Adam
from twba_torch.network import MOVING_RATE, Network
from twba_torch.pipeline import Images, augment, central_crop, epoch_numbers

SAVE_SECONDS = 30  # least time between checkpoints, for a GPU with epochs of one second
READ_SECONDS = 1  # least time between reads of the running loss, which wait for a GPU
TEMPERATURE = 2  # softens the logits of teacher and network
TEACHERS_SHARE = 0.5  # of the loss, if there is a teacher


class Trainer:
    """A network, its Adam and its data on a device; one of several processes if torch.distributed is initialised.

    compiled: fuse each step's operations with torch.compile. exact: see network.Network. teachers: the recipe's.
    Raises UserError if there are more processes than images in an epoch's last batch or in the test.
    """

    def __init__(self, recipe: Recipe, dataset: Dataset, device: torch.device, exact: bool = True, compiled: bool = True,
                 teachers: Sequence[Model] = ()):
        self.recipe, self.device, self.flip, self.size = recipe, device, dataset.flip, recipe.architecture.image_size
        self.rank, self.world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        if min(len(dataset.x_train) % recipe.batch_size or recipe.batch_size, len(dataset.x_test)) < self.world:
            raise UserError(f"{self.world} processes: an epoch's last batch or the test has fewer images: use fewer processes")
        self.training = Images(dataset.x_train, dataset.y_train, device)
        self.test = Images(dataset.x_test[self.rank::self.world], dataset.y_test[self.rank::self.world], device)
        self.network = Network(recipe.variant, recipe.architecture, recipe.activation, exact).to(device)
        variables.assign(variables.initial(recipe.seed, recipe.architecture), self.network)
        self.teachers = [self._fixed(teacher, exact) for teacher in teachers]
        self.adam = Adam(self.network.parameters(), compiled)
        self.model = DistributedDataParallel(self.network) if self.world > 1 else self.network
        self.compiled = {function: self._compile(function) if compiled else function
                         for function in (self.training_step, self.statistics_step, self.evaluation_step)}

    def _fixed(self, model: Model, exact: bool) -> Network:
        network = Network(model.about.variant, model.about.architecture, model.about.activation, exact).to(self.device)
        variables.assign(model.values, network)
        return network.eval().requires_grad_(False)

    def _compile(self, function: Callable) -> Callable:
        """Compile the function as one graph, else fail. DistributedDataParallel needs several graphs, which are slower.

        A single process on a GPU replays it as a CUDA graph. deterministic: kernels, and so the order of sums, are not chosen
        by timing. An older PyTorch lacks that option; on a CPU it does not choose by timing.
        """
        alone = self.world == 1
        options: dict[str, Any] = {"triton.cudagraphs": alone and self.device.type == "cuda"}
        if "deterministic" in torch._inductor.list_options():
            options["deterministic"] = True
        return torch.compile(function, dynamic=False, fullgraph=alone, options=options)

    def step_of(self, function: Callable, size: int) -> Callable:
        """The compiled function for whole batches; a smaller last batch of an epoch is not worth compiling for.

        On a GPU this starts a new step: the next replay of a CUDA graph overwrites what the last call returned.
        """
        if self.device.type == "cuda":
            torch.compiler.cudagraph_mark_step_begin()
        return self.compiled[function] if size == self.share else function

    @property
    def share(self) -> int:
        """The number of this process's images in a whole batch."""
        return len(range(self.rank, self.recipe.batch_size, self.world))

    def training_step(self, images: Tensor, uniforms: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """A batch's forward pass. images: uint8 [N, S, S, C]. uniforms: [N, 5]. labels: [N].

        Returns the summed loss, and float64 [2]: the same and the number of images classified correctly.
        """
        x = augment(images, uniforms, self.flip, self.size)
        logits, _ = self.model(x)
        loss = F.cross_entropy(logits, labels, reduction="sum")
        if self.teachers:
            with torch.no_grad():
                teachers = torch.stack([teacher(x)[0] for teacher in self.teachers])
            loss = (1 - TEACHERS_SHARE) * loss + TEACHERS_SHARE * divergence(logits, teachers)
        return loss, torch.stack([loss.detach().double(), (logits.argmax(1) == labels).sum().double()])

    def statistics_step(self, images: Tensor, uniforms: Tensor) -> None:
        """Update batch norm's moving statistics with a batch of uint8 images."""
        self.network(augment(images, uniforms, self.flip, self.size))

    def evaluation_step(self, images: Tensor, labels: Tensor) -> Tensor:
        """float64 [2 + maps]: summed loss, number of images classified correctly, and the sums of the counted maps."""
        logits, maps = self.network(central_crop(images, self.size))
        # an image's sum is exact in float32, a batch's in float64
        sums = [spikes.sum((1, 2, 3)).double().sum() for spikes in maps]
        loss = F.cross_entropy(logits, labels, reduction="sum").double()
        return torch.stack([loss, (logits.argmax(1) == labels).sum().double(), *sums])

    def train_epoch(self, epoch: int) -> Trained:
        """Train on every image once. epoch: counted from 0. Raises UserError if the loss is not finite."""
        started = time.monotonic()
        order, uniforms = self._epoch_numbers(epoch)
        rate = torch.tensor(self.recipe.learning_rate(epoch), dtype=torch.float32, device=self.device)
        totals = torch.zeros(2, dtype=torch.float64, device=self.device)
        self.network.train()
        read = started
        with progress.bar(len(order), f"epoch {epoch + 1}/{self.recipe.epochs}", shown=self.rank == 0) as bar:
            for batch in order.split(self.recipe.batch_size):
                totals += self.train_batch(batch, uniforms, rate)
                if self.rank == 0 and time.monotonic() - read > READ_SECONDS:
                    read = time.monotonic()
                    loss, correct = (totals * self.world / (bar.n + len(batch))).tolist()  # by this process's share
                    bar.set_postfix(loss=f"{loss:.3f}", accuracy=f"{correct:.3f}")
                bar.update(len(batch))
        loss, accuracy = (self._over_processes(totals) / len(order)).tolist()
        require_finite("loss", loss, epoch + 1)
        return Trained(loss, accuracy, time.monotonic() - started)

    def train_batch(self, batch: Tensor, uniforms: Tensor, rate: Tensor) -> Tensor:
        """One step on this process's share of a batch. The gradient is that of the whole batch's mean loss.

        batch: the images' indices. uniforms: float32 [N, 5], of all images. Returns float64 [2]: the share's summed loss
        and its number of images classified correctly.
        """
        mine = batch[self.rank::self.world]
        loss, totals = self.step_of(self.training_step, len(mine))(
            self.training.x[mine], uniforms[mine], self.training.y[mine])
        (loss * (self.world / len(batch))).backward()  # DistributedDataParallel averages over the processes
        self.adam.step(rate)
        self.network.zero_grad()  # the gradients lie in a CUDA graph's memory, which its next replay reuses
        return totals

    def _epoch_numbers(self, epoch: int) -> tuple[Tensor, Tensor]:
        order, uniforms = epoch_numbers(len(self.training), self.recipe.seed, epoch)
        return order.to(self.device), uniforms.to(self.device)

    @torch.no_grad()
    def estimate_statistics(self) -> float:
        """Set batch norm's statistics to the mean over all batches of one more epoch. Returns the seconds it took.

        Weights do not change. A smaller last batch counts like the others.
        Source: Wu and Johnson, "Rethinking 'Batch' in BatchNorm", 2021, section 3, with biased variances.
        """
        started = time.monotonic()
        order, uniforms = self._epoch_numbers(self.recipe.epochs)
        self.network.train()
        self.network.forget_statistics()
        with progress.bar(len(order), "batch norm's statistics", shown=self.rank == 0) as bar:
            for number, batch in enumerate(order.split(self.recipe.batch_size), 1):
                mine = batch[self.rank::self.world]
                self.network.set_moving_rate(1 / number)  # gives the mean of all batches so far
                self.step_of(self.statistics_step, len(mine))(self.training.x[mine], uniforms[mine])
                bar.update(len(batch))
        self.network.set_moving_rate(MOVING_RATE)
        return time.monotonic() - started

    @torch.no_grad()
    def evaluate(self) -> Tested:
        """Evaluate on every test image exactly once."""
        started = time.monotonic()
        self.network.eval()
        totals = sum(self.step_of(self.evaluation_step, len(x))(x, y).clone()
                     for x, y in zip(self.test.x.split(self.share), self.test.y.split(self.share)))
        count = torch.tensor([len(self.test)], dtype=totals.dtype, device=self.device)
        totals = self._over_processes(torch.cat([totals, count]))
        loss, accuracy, *maps = (totals[:-1] / totals[-1]).tolist()
        return Tested(loss, accuracy, sum(maps), time.monotonic() - started)

    def _over_processes(self, totals: Tensor) -> Tensor:
        if self.world > 1:
            dist.all_reduce(totals)
        return totals

    def any_process(self, condition: object) -> bool:
        """Whether the condition holds in any process."""
        return bool(self._over_processes(torch.tensor(float(bool(condition)), device=self.device)))

    def train_and_test(self, epoch: int) -> LogRow:
        """Train for one epoch (counted from 0) and test. Returns the log's row."""
        trained = self.train_epoch(epoch)
        seconds = self.estimate_statistics() if self.recipe.estimates_statistics_after(epoch) else 0
        tested = self.evaluate()
        tested = tested._replace(seconds=seconds + tested.seconds)
        return make_row(self.recipe, epoch, len(self.training), trained, tested)

    def saving(self, folder: Path, epoch: int) -> Callable[[], str]:
        """A function that writes training.npz and model.npz after `epoch` finished epochs. It returns model.npz's sha256.

        On a CPU it shares its arrays with the network: call it before training continues. Raises UserError if training
        diverged.
        """
        values, model = variables.read(self.network, self.adam), variables.quantised(self.network)
        require_trained(values, self.recipe.architecture, epoch)

        def save() -> str:
            npz.save_training(folder / TRAINING_NAME, values, epoch)
            card.remove(folder)
            return npz.save_model(folder / MODEL_NAME, model, self.recipe.architecture)
        return save


def divergence(logits: Tensor, teachers: Tensor) -> Tensor:
    """The summed Kullback-Leibler divergence between teachers' mean softened classes and ours, times the temperature squared.

    logits: [N, classes]. teachers: [teachers, N, classes]. The factor keeps the gradient's scale.
    Source: Hinton, Vinyals and Dean, 2015, section 2.
    """
    ours, each = (F.log_softmax(x / TEMPERATURE, -1) for x in (logits, teachers))
    theirs = each.logsumexp(0) - math.log(len(teachers))
    return TEMPERATURE ** 2 * F.kl_div(ours, theirs, reduction="sum", log_target=True)


def train(trainer: Trainer, folder: Path, first_epoch: int, minutes: float | None = None, precision: str = "exact") -> int:
    """Train into `folder` from epoch `first_epoch` (counted from 0) to the recipe's last, or until `minutes` have passed.

    precision: for the record of where and how epochs were trained. Returns the number of finished epochs, all saved. Another
    thread writes an epoch's files while a GPU trains the next epochs; a CPU waits for it. Raises UserError if training diverges.
    """
    summaries: Any  # a TorchSummaries, only in the chief
    done: Future
    epochs, chief, started, saved = trainer.recipe.epochs, trainer.rank == 0, time.monotonic(), -math.inf
    if chief:
        journal = Journal(folder, trainer.recipe, first_epoch, facts(trainer.device, trainer.world, precision))
    with TorchSummaries(folder, first_epoch) if chief else contextlib.nullcontext() as summaries, \
            ThreadPoolExecutor(1) as writer:
        written: deque[tuple[LogRow, Future]] = deque()  # the writer's epochs that are not printed yet
        for epoch in range(first_epoch, epochs):
            row = trainer.train_and_test(epoch)
            last = epoch + 1 == epochs or trainer.any_process(minutes and time.monotonic() - started > 60 * minutes)
            if chief:
                save = last or time.monotonic() - saved > SAVE_SECONDS
                _tell(journal, written, wait=save)
                saving = None
                if save:
                    saving, saved = trainer.saving(folder, epoch + 1), time.monotonic()
                before = written[-1][1] if written else None
                done = writer.submit(_finish_epoch, before, journal, row, saving, summaries.update)
                written.append((row, done))
                _tell(journal, written, wait=last or trainer.device.type == "cpu")
            if last:
                break
    if chief and epoch + 1 == epochs:
        journal.finish(done.result())
    return epoch + 1


def _finish_epoch(before: Future | None, journal: Journal, *epoch) -> str | None:
    """Journal.finish_epoch, unless writing the previous epoch failed."""
    if before:
        before.result()
    return journal.finish_epoch(*epoch)


def _tell(journal: Journal, written: deque, wait: bool) -> None:
    """Print the written epochs; with wait, wait for all. Raises the errors of writing them."""
    while written and (wait or written[0][1].done()):
        row, done = written.popleft()
        done.result()
        journal.tell(row)


class TorchSummaries(Summaries):
    """Summaries written with the package tensorboard."""

    def open(self, epoch):
        from torch.utils.tensorboard import SummaryWriter
        return SummaryWriter(self.folder, purge_step=epoch)

    def add(self, epoch, seconds, scalars):
        for name, figure in scalars.items():
            self.writer.add_scalar(name, figure, epoch, seconds)


def complete(recipe: Recipe, folder: Path, start: Path) -> None:
    """Finish the last save of a run that was killed after it wrote the training.npz `start`."""
    journal = Journal(folder, recipe, recipe.epochs)
    network = Network(recipe.variant, recipe.architecture, recipe.activation)
    variables.assign(npz.read_training(start, recipe.architecture), network)
    sha256 = npz.save_model(folder / MODEL_NAME, variables.quantised(network), recipe.architecture)
    journal.draw()
    with TorchSummaries(folder, recipe.epochs):  # from the log
        pass
    journal.finish(sha256)


def facts(device: torch.device, processes: int, precision: str) -> dict[str, object]:
    """The record of the epochs trained by this process, or by several such (provenance.of_this_process)."""
    versions = {"torch": torch.__version__, "cuda": torch.version.cuda, "processes": processes, "precision": precision}
    return provenance.of_this_process(device_name(device), versions)


def device_name(device: torch.device) -> str:
    """The processor's name."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else card.cpu_name()
