"""A run's record: log.csv, a line an epoch, the learning curve, at last the card. No framework is imported here."""
import csv
import math
import time

import matplotlib
matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.ticker import MaxNLocator

from twba_nets import card, npz
from twba_nets.errors import UserError
from twba_nets.files import atomic_write

LOG_NAME = "log.csv"
CURVE_NAME = "learning_curve.png"
FIELDS = ("epoch", "step", "learning_rate", "train_loss", "train_accuracy", "test_loss", "test_accuracy",
          "spikes_per_image", "images_per_second", "seconds", "finished_at")


class Journal:
    """Records a row for each finished epoch (counted from 1)."""

    def __init__(self, folder, epochs_done, epochs):
        """epochs_done: where the run goes on; rows of later epochs, which a kill left unsaved, are dropped.

        Raises UserError if the log is damaged.
        """
        self.folder, self.epochs = folder, epochs
        self._write_log([row for row in read_log(folder) if int(row["epoch"]) <= epochs_done])
        self.seconds = []

    def _write_log(self, rows):
        with atomic_write(self.folder / LOG_NAME, "w") as file:
            log = csv.DictWriter(file, FIELDS, lineterminator="\n")
            log.writeheader()
            log.writerows(rows)

    def record(self, row):
        """Add an epoch's figures (all FIELDS but finished_at) to the log. Save next, then tell.

        Raises UserError if the test loss is no finite number.
        """
        if not math.isfinite(row["test_loss"]):
            raise diverged("the test loss is %s" % row["test_loss"], row["epoch"])
        row = dict(row, finished_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
        self._write_log(read_log(self.folder) + [row])

    def tell(self, row):
        """Print an epoch's figures."""
        self.seconds.append(row["seconds"])
        left = sum(self.seconds) / len(self.seconds) * (self.epochs - row["epoch"])
        print("epoch %d/%d  learning rate %g  training: loss %.4f, accuracy %.4f  test: loss %.4f, accuracy %.4f  "
              "%.0f spikes/image  %.1f images/s  %s left"
              % (row["epoch"], self.epochs, row["learning_rate"], row["train_loss"], row["train_accuracy"],
                 row["test_loss"], row["test_accuracy"], row["spikes_per_image"], row["images_per_second"],
                 duration(left)), flush=True)

    def draw(self):
        """Bring learning_curve.png up to date."""
        draw_curve(read_log(self.folder), self.folder / CURVE_NAME)

    def finish(self, recipe, versions, device):
        """Write the card (card.write) of a run whose last epoch is saved and drawn."""
        card.write(self.folder, recipe, read_log(self.folder), versions, device)


def is_cut_short(folder, epochs):
    """Whether a run of so many epochs, all saved, was killed before it wrote its card, which comes last."""
    if epochs not in [int(row["epoch"]) for row in read_log(folder)]:
        return False  # it was trained elsewhere
    model = folder / npz.MODEL_NAME
    found = card.read(model) if model.exists() and (folder / CURVE_NAME).exists() else None
    return not found or found.get("epochs") != epochs


def read_log(folder):
    """The rows of a run's log.csv, as strings by field; none where there is none. Raises UserError if it is damaged."""
    path = folder / LOG_NAME
    if not path.exists():
        return []
    try:
        with open(str(path), newline="") as file:
            log = csv.DictReader(file)
            rows = list(log)
            if tuple(log.fieldnames or ()) != FIELDS:
                raise ValueError("its first line is not %s" % ",".join(FIELDS))
        _check_rows(rows)
    except (OSError, ValueError, csv.Error) as error:
        raise UserError("%s: damaged (%s): restore it, or move it away, to begin another" % (path, error))
    return rows


def _check_rows(rows):
    """Raise ValueError unless the rows hold finite numbers, of one epoch after the other."""
    before = 0
    for number, row in enumerate(rows, 2):
        if None in row or None in row.values():
            raise ValueError("line %d does not have %d fields" % (number, len(FIELDS)))
        for field in FIELDS[:-1]:
            if not _is_number(row[field]):
                raise ValueError("line %d: %s is %r" % (number, field, row[field]))
        if not row["epoch"].isdecimal() or int(row["epoch"]) <= before:
            raise ValueError("line %d: epoch %s comes after %d" % (number, row["epoch"], before))
        before = int(row["epoch"])


def _is_number(text):
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def diverged(what, epoch):
    """The error to raise where `what` shows that training, in this epoch (counted from 1), has gone astray."""
    remedy = "go on from the last checkpoint with --resume and" if epoch > 1 else "begin again with"
    return UserError("%s in epoch %d: %s a lower --learning-rate" % (what, epoch, remedy))


def require_trained(values, epoch):
    """Raise UserError rather than save variables (name -> array) that no reader takes: the checkpoint before is kept.

    The loss alone does not tell: quantised, a weight that is NaN is 0.
    """
    try:
        npz.check_numbers(values)
    except ValueError as error:
        raise diverged(error, epoch)


def draw_curve(rows, path):
    """Draw accuracy and loss over the epochs as a PNG."""
    epochs = [int(row["epoch"]) for row in rows]
    figure, axes = plt.subplots(1, 2, figsize=(10, 4))
    for axis, quantity in zip(axes, ("accuracy", "loss")):
        for part in ("train", "test"):
            axis.plot(epochs, [float(row["%s_%s" % (part, quantity)]) for row in rows], label=part,
                      marker="." if len(rows) < 20 else None)
        axis.set_xlabel("epoch")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.set_ylabel(quantity)
        axis.grid(alpha=0.3)
        axis.legend()
    figure.tight_layout()
    with atomic_write(path) as file:
        figure.savefig(file, format="png", dpi=120)
    plt.close(figure)


def duration(seconds):
    """Seconds as a person says them: 45 s, 12 min, 3 h 20 min, 2 d 4 h."""
    minutes = int(seconds) // 60
    if minutes < 1:
        return "%d s" % seconds
    if minutes < 60:
        return "%d min" % minutes
    if minutes < 24 * 60:
        return "%d h %d min" % divmod(minutes, 60)
    return "%d d %d h" % (minutes // (24 * 60), minutes // 60 % 24)
