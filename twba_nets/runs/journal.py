"""A run's record: log.csv with a line per epoch, the learning curve, finally the card."""
import csv
import math
import time
from pathlib import Path
from typing import Callable, Dict, List, NamedTuple, Optional, Sequence

import numpy as np

from twba_nets.runs import card, npz, provenance
from twba_nets.system import streams
from twba_nets.system.errors import UserError
from twba_nets.system.files import atomic_write
from twba_nets.system.progress import duration
from twba_nets.network.architecture import Architecture
from twba_nets.runs.recipe import Recipe
from twba_nets.runs.run_folder import MODEL_NAME

LOG_NAME = "log.csv"
CURVE_NAME = "learning_curve.png"


class LogRow(NamedTuple):
    """An epoch's figures, a row of the log. Losses are means over the images, accuracies fractions of the images.

    epoch: counted from 1. step: batches since the run's start, as if all had today's size. spikes_per_image: in the
    counted maps, mean over the test images. images_per_second: in training. seconds: of training, estimation and test.
    train_loss: the cross entropy; with teachers, half of it and half the divergence from them.
    precise_batch_norm: 1 if batch norm's statistics were re-estimated before the test, else 0.
    """
    epoch: int
    step: int
    learning_rate: float
    train_loss: float
    train_accuracy: float
    test_loss: float
    test_accuracy: float
    spikes_per_image: float
    images_per_second: float
    seconds: float
    precise_batch_norm: int


FIELDS = LogRow._fields + ("finished_at",)
OLDER_FIELDS = tuple(name for name in FIELDS if name != "precise_batch_norm")  # of older logs
SCALARS = tuple(name for name in LogRow._fields if name not in ("epoch", "step", "precise_batch_norm"))  # for TensorBoard
TIME = "%Y-%m-%dT%H:%M:%SZ"  # format of finished_at


class Trained(NamedTuple):
    """An epoch's training: mean loss, fraction of images classified correctly, seconds."""
    loss: float
    accuracy: float
    seconds: float


class Tested(NamedTuple):
    """The test after an epoch: mean loss, fraction of images classified correctly, spikes per image, seconds."""
    loss: float
    accuracy: float
    spikes_per_image: float
    seconds: float


def make_row(recipe: Recipe, epoch: int, images: int, trained: Trained, tested: Tested) -> LogRow:
    """The log's row of an epoch, counted from 0. images: number of training images."""
    return LogRow(
        epoch=epoch + 1,
        step=(epoch + 1) * -(-images // recipe.batch_size),
        learning_rate=recipe.learning_rate(epoch),
        train_loss=trained.loss,
        train_accuracy=trained.accuracy,
        test_loss=tested.loss,
        test_accuracy=tested.accuracy,
        spikes_per_image=tested.spikes_per_image,
        images_per_second=images / trained.seconds,
        seconds=trained.seconds + tested.seconds,
        precise_batch_norm=int(recipe.estimates_statistics_after(epoch)),
    )


class Journal:
    """Records a row for each finished epoch."""

    def __init__(self, folder: Path, recipe: Recipe, epochs_done: int, facts: Optional[Dict[str, object]] = None):
        """epochs_done: finished epochs. Records of later epochs, which a kill left without a checkpoint, are dropped.

        facts: provenance.of_this_process, if this process trains. Raises UserError if the log is damaged.
        """
        self.folder, self.recipe, self.facts = folder, recipe, facts
        self._write_log([row for row in read_log(folder) if int(row["epoch"]) <= epochs_done])
        provenance.carry(folder, folder, epochs_done)
        self.seconds: List[float] = []

    def _write_log(self, rows: Sequence[Dict]) -> None:
        with atomic_write(self.folder / LOG_NAME, "w") as file:
            log = csv.DictWriter(file, FIELDS, lineterminator="\n")
            log.writeheader()
            log.writerows(rows)

    def finish_epoch(self, row: LogRow, save: Optional[Callable[[], str]],
                     update_summaries: Callable[[], None]) -> Optional[str]:
        """Log an epoch, save it, draw the curve, update the summaries. Returns what `save` returns.

        save: writes a checkpoint and returns model.npz's sha256; None if no checkpoint is due. The log is written first: after
        a kill in between, the next process drops its row. Raises UserError if the test loss is not finite.
        """
        self._record(row)
        sha256 = save() if save else None
        if save:
            self.draw()
        update_summaries()
        return sha256

    def _record(self, row: LogRow) -> None:
        require_finite("test loss", row.test_loss, row.epoch)
        finished_at = time.strftime(TIME, time.gmtime())
        self._write_log(read_log(self.folder) + [dict(row._asdict(), finished_at=finished_at)])
        if self.facts:
            provenance.record(self.folder, row.epoch, self.facts)

    def tell(self, row: LogRow) -> None:
        """Print an epoch's figures."""
        self.seconds.append(row.seconds)
        epochs = self.recipe.epochs
        left = sum(self.seconds) / len(self.seconds) * (epochs - row.epoch)
        print(f"epoch {row.epoch}/{epochs}  learning rate {row.learning_rate:g}  "
              f"training: loss {row.train_loss:.4f}, accuracy {row.train_accuracy:.4f}  "
              f"test: loss {row.test_loss:.4f}, accuracy {row.test_accuracy:.4f}  "
              f"{row.spikes_per_image:.0f} spikes/image  {row.images_per_second:.1f} images/s  {duration(left)} left",
              flush=True)

    def draw(self) -> None:
        """Update learning_curve.png; a failure is a warning."""
        with streams.optional(f"{self.folder / CURVE_NAME}: not drawn"):
            draw_curve(self.folder, self.recipe)

    def finish(self, sha256: str) -> None:
        """Write the card (card.write) after the last epoch is saved and drawn. sha256: of model.npz as written."""
        rows = read_log(self.folder)
        spans = provenance.whole(self.folder, int(rows[-1]["epoch"]), rows)
        card.write(self.folder, self.recipe, rows[-1], spans, sha256)


def is_cut_short(folder: Path, epochs: int) -> bool:
    """Whether a run with all its `epochs` saved was killed before it wrote its card, the last file."""
    if epochs not in [int(row["epoch"]) for row in read_log(folder)]:
        return False  # trained in another folder
    model = folder / MODEL_NAME
    found = card.read(model) if model.exists() else None
    return not found or found.get("epochs") != epochs


def read_log(folder: Path) -> List[Dict[str, str]]:
    """The rows of a run's log.csv, field -> string; [] if there is no log. Raises UserError if it is damaged."""
    path = folder / LOG_NAME
    if not path.exists():
        return []
    try:
        with open(path, newline="") as file:
            log = csv.DictReader(file)
            rows = list(log)
            fields = tuple(log.fieldnames or ())
            if fields == OLDER_FIELDS:
                rows = [dict(row, precise_batch_norm="0") for row in rows]
            elif fields != FIELDS:
                raise ValueError(f"its first line is not {','.join(FIELDS)}")
        _check_rows(rows)
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{path}: damaged ({error}): restore it, or move it away to start another")
    return rows


def _check_rows(rows: Sequence[Dict]) -> None:
    """Raise ValueError unless the rows hold finite numbers and ascending epochs."""
    before = 0
    for number, row in enumerate(rows, 2):
        if None in row or None in row.values():
            raise ValueError(f"line {number} does not have {len(FIELDS)} fields")
        for field in LogRow._fields:
            if not _is_number(row[field]):
                raise ValueError(f"line {number}: {field} is {row[field]!r}")
        if not row["epoch"].isdecimal() or int(row["epoch"]) <= before:
            raise ValueError(f"line {number}: epoch {row['epoch']} comes after {before}")
        before = int(row["epoch"])


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def require_finite(name: str, loss: float, epoch: int) -> None:
    """Raise UserError if a loss is not finite: training diverged in this epoch, counted from 1."""
    if not math.isfinite(loss):
        raise _diverged(f"the {name} is {loss}", epoch)


def require_trained(values: Dict[str, np.ndarray], architecture: Architecture, epoch: int) -> None:
    """Raise UserError if variables (name -> array) are invalid, before they replace the last checkpoint.

    The loss does not show it: a weight that is NaN is quantised to 0.
    """
    try:
        npz.check_numbers(values, architecture)
    except ValueError as error:
        raise _diverged(str(error), epoch)


def _diverged(what: str, epoch: int) -> UserError:
    remedy = "continue from the last checkpoint with --resume and" if epoch > 1 else "start again with"
    return UserError(f"{what} in epoch {epoch}: {remedy} a lower --learning-rate")


def draw_curve(folder: Path, recipe: Recipe) -> None:
    """Draw accuracy and loss over the epochs of a run, from its log.csv, and the reported accuracy: learning_curve.png."""
    from twba_nets.system import drawing  # here, because an evaluation does not need it; before Matplotlib, which it sets up
    from matplotlib.ticker import MaxNLocator
    rows = read_log(folder)
    epochs = [int(row["epoch"]) for row in rows]
    with drawing.figure(10, 4) as figure:
        for axis, quantity in zip(figure.subplots(1, 2), ("accuracy", "loss")):
            for part in ("train", "test"):
                axis.plot(epochs, [float(row[f"{part}_{quantity}"]) for row in rows], label=part,
                          marker="." if len(rows) < 20 else None)
            axis.set_xlabel("epoch")
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
            axis.set_ylabel(quantity)
            axis.grid(alpha=0.3)
            if quantity == "accuracy" and recipe.reported:
                axis.axhline(recipe.reported, color="black", linestyle="--", linewidth=1,
                             label=f"reported: {100 * recipe.reported:.2f} %")
            axis.legend()
        title = recipe.title.encode("utf-8", "backslashreplace").decode()  # the name of user data can be any text
        figure.suptitle(title.replace("$", r"\$"), fontsize="medium")  # Matplotlib sets text between two dollars as a formula
        figure.tight_layout()
        figure.subplots_adjust(top=0.92)
        with atomic_write(folder / CURVE_NAME) as file:
            figure.savefig(file, format="png", dpi=120)
