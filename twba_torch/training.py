"""The training loop: what twba_tensorflow/training.py does, on any PyTorch device, in one process or several."""
import contextlib
import math
import time
from collections import deque
from collections.abc import Callable
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

SAVE_SECONDS = 30  # a checkpoint after every epoch, but on a fast GPU, where an epoch takes one second
READ_SECONDS = 1  # how often the running loss is read, which on a GPU waits for the steps before
TEMPERATURE = 2  # softens the logits of teacher and network where they are compared
TEACHERS_SHARE = 0.5  # of the loss, where there is a teacher


class Trainer:
    """A network, its Adam and its data on a device; one of several processes where torch.distributed is initialised.

    compiled: fuse each step's operations by torch.compile. exact: see network.Network. teacher: the recipe's.
    """

    def __init__(self, recipe: Recipe, dataset: Dataset, device: torch.device, exact: bool = True, compiled: bool = True,
                 teacher: Model = None):
        self.recipe, self.device, self.flip, self.size = recipe, device, dataset.flip, recipe.architecture.image_size
        self.rank, self.world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        if min(len(dataset.x_train) % recipe.batch_size or recipe.batch_size, len(dataset.x_test)) < self.world:
            raise UserError(f"{self.world} processes: an epoch's last batch, or the test, has fewer images: use fewer processes")
        self.training = Images(dataset.x_train, dataset.y_train, device)
        self.test = Images(dataset.x_test[self.rank::self.world], dataset.y_test[self.rank::self.world], device)
        self.network = Network(recipe.variant, recipe.architecture, recipe.activation, exact).to(device)
        variables.assign(variables.initial(recipe.seed, recipe.architecture), self.network)
        self.teacher = self._fixed(teacher, exact) if teacher else None
        self.adam = Adam(self.network.parameters(), compiled)
        self.model = DistributedDataParallel(self.network) if self.world > 1 else self.network
        self.compiled = {function: self._compile(function) if compiled else function
                         for function in (self.training_step, self.statistics_step, self.evaluation_step)}

    def _fixed(self, model: Model, exact: bool) -> Network:
        network = Network(model.about.variant, model.about.architecture, model.about.activation, exact).to(self.device)
        variables.assign(model.values, network)
        return network.eval().requires_grad_(False)

    def _compile(self, function: Callable) -> Callable:
        """The function as one graph, or an error: in pieces, which DistributedDataParallel needs, it is slower.

        On a GPU alone it is replayed as a CUDA graph. deterministic: no kernel, so no order of sums, is chosen by time. An older
        PyTorch lacks that option; on a CPU it does not choose so.
        """
        alone = self.world == 1
        options: dict[str, Any] = {"triton.cudagraphs": alone and self.device.type == "cuda"}
        if "deterministic" in torch._inductor.list_options():
            options["deterministic"] = True
        return torch.compile(function, dynamic=False, fullgraph=alone, options=options)

    def step_of(self, function: Callable, size: int) -> Callable:
        """The compiled function for whole batches; an epoch's smaller last one is not worth compiling for.

        Of one that is replayed as a CUDA graph, what the last call returned is gone: a new step begins.
        """
        if self.device.type == "cuda":
            torch.compiler.cudagraph_mark_step_begin()
        return self.compiled[function] if size == self.recipe.batch_size // self.world else function

    def training_step(self, images: Tensor, uniforms: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """(summed loss, float64 [2]: the same, and how many are classified rightly) of a batch of uint8 images."""
        x = augment(images, uniforms, self.flip, self.size)
        logits, _ = self.model(x)
        loss = F.cross_entropy(logits, labels, reduction="sum")
        if self.teacher:
            with torch.no_grad():
                teachers, _ = self.teacher(x)
            loss = (1 - TEACHERS_SHARE) * loss + TEACHERS_SHARE * divergence(logits, teachers)
        return loss, torch.stack([loss.detach().double(), (logits.argmax(1) == labels).sum().double()])

    def statistics_step(self, images: Tensor, uniforms: Tensor) -> None:
        """Bring batch norm's moving statistics nearer to those of a batch of uint8 images."""
        self.network(augment(images, uniforms, self.flip, self.size))

    def evaluation_step(self, images: Tensor, labels: Tensor) -> Tensor:
        """float64 [2 + maps]: summed loss, images classified rightly, and the sums of the counted maps."""
        logits, maps = self.network(central_crop(images, self.size))
        # an image's sum is exact in float32, a batch's in float64
        sums = [spikes.sum((1, 2, 3)).double().sum() for spikes in maps]
        loss = F.cross_entropy(logits, labels, reduction="sum").double()
        return torch.stack([loss, (logits.argmax(1) == labels).sum().double(), *sums])

    def train_epoch(self, epoch: int) -> Trained:
        """Train on every image once. epoch: counted from 0."""
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
        """One step on this process's share of a batch; the gradient is that of the whole batch's mean loss.

        batch: the images' numbers. uniforms: float32 [N, 5], of all images. Returns float64 [2]: the share's summed loss,
        and how many of its images are classified rightly.
        """
        mine = batch[self.rank::self.world]
        loss, totals = self.step_of(self.training_step, len(mine))(
            self.training.x[mine], uniforms[mine], self.training.y[mine])
        (loss * (self.world / len(batch))).backward()  # DistributedDataParallel takes the processes' mean
        self.adam.step(rate)
        self.network.zero_grad()  # a CUDA graph's memory, which its next replay takes back
        return totals

    def _epoch_numbers(self, epoch: int) -> tuple[Tensor, Tensor]:
        order, uniforms = epoch_numbers(len(self.training), self.recipe.seed, epoch)
        return order.to(self.device), uniforms.to(self.device)

    @torch.no_grad()
    def estimate_statistics(self) -> float:
        """Give batch norm the mean of all batches' statistics, over an epoch after the recipe's last one. Returns the seconds.

        No weight changes. An epoch's smaller last batch counts as the others.
        Source: Wu and Johnson, "Rethinking 'Batch' in BatchNorm", 2021, section 3, with biased variances.
        """
        started = time.monotonic()
        order, uniforms = self._epoch_numbers(self.recipe.epochs)
        self.network.train()
        self.network.forget_statistics()
        with progress.bar(len(order), "batch norm's statistics", shown=self.rank == 0) as bar:
            for number, batch in enumerate(order.split(self.recipe.batch_size), 1):
                mine = batch[self.rank::self.world]
                self.network.set_moving_rate(1 / number)  # the running mean of all so far
                self.step_of(self.statistics_step, len(mine))(self.training.x[mine], uniforms[mine])
                bar.update(len(batch))
        self.network.set_moving_rate(MOVING_RATE)
        return time.monotonic() - started

    @torch.no_grad()
    def evaluate(self) -> Tested:
        """Evaluate on every test image exactly once."""
        started = time.monotonic()
        self.network.eval()
        size = self.recipe.batch_size // self.world
        totals = sum(self.step_of(self.evaluation_step, len(x))(x, y).clone()
                     for x, y in zip(self.test.x.split(size), self.test.y.split(size)))
        count = torch.tensor([len(self.test)], dtype=totals.dtype, device=self.device)
        totals = self._over_processes(torch.cat([totals, count]))
        loss, accuracy, *maps = (totals[:-1] / totals[-1]).tolist()
        return Tested(loss, accuracy, sum(maps), time.monotonic() - started)

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
        seconds = self.estimate_statistics() if self.recipe.estimates_statistics_after(epoch) else 0
        tested = self.evaluate()
        tested = tested._replace(seconds=seconds + tested.seconds)
        return make_row(self.recipe, epoch, len(self.training), trained, tested)

    def saving(self, folder: Path, epoch: int) -> Callable[[], str]:
        """What writes training.npz, from which the rest can be had, and model.npz, as they are after `epoch` finished epochs.

        It returns the sha256 of model.npz. On a CPU training goes on with the arrays that it writes: call it first.
        """
        values, model = variables.read(self.network, self.adam), variables.quantised(self.network)
        require_trained(values, self.recipe.architecture, epoch)

        def save() -> str:
            npz.save_training(folder / TRAINING_NAME, values, epoch)
            card.remove(folder)
            return npz.save_model(folder / MODEL_NAME, model, self.recipe.architecture)
        return save


def divergence(logits: Tensor, teachers: Tensor) -> Tensor:
    """The summed Kullback-Leibler divergence of softened classes from a teacher's, times the temperature squared.

    logits, teachers: [N, classes]. The factor keeps the gradient's size. Source: Hinton, Vinyals and Dean, 2015, section 2.
    """
    ours, theirs = (F.log_softmax(x / TEMPERATURE, 1) for x in (logits, teachers))
    return TEMPERATURE ** 2 * F.kl_div(ours, theirs, reduction="sum", log_target=True)


def train(trainer: Trainer, folder: Path, first_epoch: int, minutes: float | None = None) -> int:
    """Train into `folder` from epoch `first_epoch` to the recipe's last, or until `minutes` have passed.

    Returns how many epochs are done; all of them are saved. Another thread writes what an epoch leaves in the folder, while
    a GPU trains the next ones; a CPU waits for it.
    """
    summaries: Any  # a TorchSummaries, of the chief alone
    done: Future
    epochs, chief, started, saved = trainer.recipe.epochs, trainer.rank == 0, time.monotonic(), -math.inf
    if chief:
        journal = Journal(folder, trainer.recipe, first_epoch, facts(trainer.device, trainer.world))
    with TorchSummaries(folder, first_epoch) if chief else contextlib.nullcontext() as summaries, \
            ThreadPoolExecutor(1) as writer:
        written: deque[tuple[LogRow, Future]] = deque()  # the writer's epochs that are not told yet
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
    """Journal.finish_epoch, unless the epoch before failed."""
    if before:
        before.result()
    return journal.finish_epoch(*epoch)


def _tell(journal: Journal, written: deque, wait: bool) -> None:
    """Tell of the epochs that are written, or of all. Raises what went wrong with them."""
    while written and (wait or written[0][1].done()):
        row, done = written.popleft()
        done.result()
        journal.tell(row)


class TorchSummaries(Summaries):
    """By the package tensorboard."""

    def open(self, epoch):
        from torch.utils.tensorboard import SummaryWriter
        return SummaryWriter(self.folder, purge_step=epoch)

    def add(self, epoch, seconds, scalars):
        for name, figure in scalars.items():
            self.writer.add_scalar(name, figure, epoch, seconds)


def complete(recipe: Recipe, folder: Path, start: Path) -> None:
    """Make up for what a kill during the last save, that of the training.npz `start`, left undone."""
    journal = Journal(folder, recipe, recipe.epochs)
    network = Network(recipe.variant, recipe.architecture, recipe.activation)
    variables.assign(npz.read_training(start, recipe.architecture), network)
    sha256 = npz.save_model(folder / MODEL_NAME, variables.quantised(network), recipe.architecture)
    journal.draw()
    with TorchSummaries(folder, recipe.epochs):  # from the log
        pass
    journal.finish(sha256)


def facts(device: torch.device, processes: int) -> dict[str, object]:
    """What is recorded of the epochs that this process trains, or several such processes."""
    versions = {"torch": torch.__version__, "cuda": torch.version.cuda, "processes": processes}
    return provenance.of_this_process(device_name(device), versions)


def device_name(device: torch.device) -> str:
    """The processor's name."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else card.cpu_name()
