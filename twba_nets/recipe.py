"""How a network is trained, in one object. No framework is imported here."""
import dataclasses
from pathlib import Path
from typing import Dict, Optional, Tuple

import numpy as np

from twba_nets.architecture import ACTIVATIONS, VARIANTS
from twba_nets.errors import UserError
from twba_nets.files import write_json
from twba_nets.run_folder import data_file

FILE_NAME = "recipe.json"
REPORTED = {"twba": 0.8819, "bwba": 0.8650}  # test accuracy on CIFAR-10, by the paper, after 600 epochs
DATASETS = ("cifar10", "digits")
LARGEST = 2 ** 31 - 1  # of every whole number in a recipe: what an int32 holds
MOST_EPOCHS = 100000  # twice the published code's
MOST_IMAGES = 50000  # in a batch: as many as CIFAR-10 has
MAX_BRIGHTNESS = 63.0  # training images: added, between plus and minus this, of 255
CONTRAST = (0.2, 1.8)  # training images: the range of factors about each channel's mean


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A training recipe; its defaults are the paper's, for CIFAR-10.

    The published code starts at learning rate 0.01; every 200 epochs its user divides that by ten by hand
    and restarts from the checkpoint. Here the same schedule is `learning_rate_steps`: (epoch, rate) pairs,
    each rate in force from its epoch (counted from 0) until the next pair's. with_learning_rate and
    with_linear_decay make other schedules.

    initial_weights: None for fresh weights, else the checkpoint whose model variables training began with, as
    {"file": its folder and name, "sha256": its digest}. limit_train: None for all training images, else only the first
    so many, at least a batch. limit_test: None for all test images, else the test after each epoch takes the first so many.
    hold_out: None, else so many training images, the last ones, are not trained on; the run is tested on them, and not on the
    test images.

    PyTorch's trainer alone has the following. teacher: None, else the checkpoint from whose logits the network learns beside
    the labels, as initial_weights. precise_batch_norm: whether batch norm's statistics are estimated once more after the last
    epoch, over all training images. Source: Hinton, Vinyals and Dean, 2015; Wu and Johnson, 2021, section 3.
    """
    variant: str
    activation: str = "binary"
    dataset: str = "cifar10"
    epochs: int = 600
    batch_size: int = 200
    learning_rate_steps: Tuple[Tuple[int, float], ...] = ((0, 0.01), (200, 0.001), (400, 0.0001))
    seed: int = 0
    initial_weights: Optional[Dict[str, str]] = None
    limit_train: Optional[int] = None
    limit_test: Optional[int] = None
    hold_out: Optional[int] = None
    teacher: Optional[Dict[str, str]] = None
    precise_batch_norm: bool = False

    def __post_init__(self) -> None:
        # JSON knows no tuples
        object.__setattr__(self, "learning_rate_steps", tuple(sorted((epoch, rate) for epoch, rate in
                                                                     self.learning_rate_steps)))
        self._check()

    def _check(self) -> None:
        for name, known in (("variant", VARIANTS), ("activation", ACTIVATIONS), ("dataset", DATASETS)):
            if getattr(self, name) not in known:
                raise UserError(f"{name} {getattr(self, name)!r} is none of {', '.join(known)}")
        for name, least, most in (("epochs", 1, MOST_EPOCHS), ("batch_size", 1, MOST_IMAGES), ("seed", 0, LARGEST)):
            if not _is_integer(getattr(self, name), least, most):
                raise UserError(f"{name} {getattr(self, name)!r} is no whole number from {least} to {most}")
        limit = self.limit_train
        if limit is not None and not _is_integer(limit, self.batch_size, MOST_IMAGES):
            raise UserError(f"limit_train {limit!r} is no whole number from the batch size, {self.batch_size}, to {MOST_IMAGES}: "
                            "take more images or smaller batches")
        for name in ("limit_test", "hold_out"):
            value = getattr(self, name)
            if value is not None and not _is_integer(value, 1, MOST_IMAGES):
                raise UserError(f"{name} {value!r} is no whole number from 1 to {MOST_IMAGES}")
        if not isinstance(self.precise_batch_norm, bool):
            raise UserError(f"precise_batch_norm {self.precise_batch_norm!r} is neither true nor false")
        self._check_rates()
        for name in ("initial_weights", "teacher"):
            source = getattr(self, name)
            if source is not None and not (isinstance(source, dict) and set(source) == {"file", "sha256"}
                                           and all(isinstance(text, str) for text in source.values())):
                raise UserError(f"{name} {source!r} is not {{file, sha256}}")

    def _check_rates(self) -> None:
        epochs = [epoch for epoch, _ in self.learning_rate_steps]
        if not all(_is_integer(epoch, 0) for epoch in epochs) or epochs[:1] != [0] or len(set(epochs)) < len(epochs):
            raise UserError("the learning rate's steps must begin at epoch 0 and name each epoch once, as in 0:0.01 "
                            "200:0.001")
        for _, rate in self.learning_rate_steps:
            # what float32 can hold; a NaN lies in no range
            if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 1e-37 < rate < 1e38:
                raise UserError(f"learning rate {rate!r} is no number above 0")

    @property
    def title(self) -> str:
        """What is trained on what, to be read."""
        limits = [text for text, limit in ((f"first {self.limit_train} training images", self.limit_train),
                                           (f"tested on {self.hold_out} held-out training images", self.hold_out),
                                           (f"first {self.limit_test} test images", self.limit_test)) if limit]
        images = f" ({', '.join(limits)})" if limits else ""
        return f"{self.variant.upper()} on {self.dataset}{images}, {self.activation} activations"

    def learning_rate(self, epoch: int) -> float:
        """The learning rate of an epoch, counted from 0."""
        return [rate for start, rate in self.learning_rate_steps if start <= epoch][-1]

    def estimates_statistics_after(self, epoch: int) -> bool:
        """Whether batch norm's statistics are estimated once more between this epoch, counted from 0, and its test."""
        return self.precise_batch_norm and epoch + 1 == self.epochs

    def with_learning_rate(self, rate: float, epoch: int) -> "Recipe":
        """The same recipe with a constant rate from that epoch on: what the original's users edit by hand."""
        return self._from_epoch(epoch, ((epoch, rate),))

    def with_linear_decay(self, rate: float, epoch: int = 0) -> "Recipe":
        """The same recipe with a rate that falls in a line: `rate` in that epoch, and 0 after the last one.

        The rates are rounded to 12 digits, to be read: 0.0081 in place of 0.008100000000000001.
        """
        left = self.epochs - epoch
        return self._from_epoch(epoch, tuple((epoch + i, float(f"{rate * (1 - i / left):.12g}")) for i in range(left)))

    def with_initial_weights(self, path: Path, sha256: str) -> "Recipe":
        """The same recipe, begun with the weights of this checkpoint: a training.npz or a TensorFlow checkpoint's prefix.

        sha256: of the bytes that the weights were read from.
        """
        return dataclasses.replace(self, initial_weights=_source(path, sha256))

    def with_teacher(self, path: Path, sha256: str) -> "Recipe":
        """The same recipe with the teacher of this npz. sha256: of the bytes that it was read from."""
        return dataclasses.replace(self, teacher=_source(path, sha256))

    def _from_epoch(self, epoch: int, steps: Tuple) -> "Recipe":
        past = tuple(step for step in self.learning_rate_steps if step[0] < epoch)
        return dataclasses.replace(self, learning_rate_steps=past + steps)

    def save(self, folder: Path) -> None:
        """Write the recipe into a run's folder."""
        write_json(folder / FILE_NAME, dataclasses.asdict(self))


def _source(path: Path, sha256: str) -> Dict[str, str]:
    """How a recipe names a checkpoint: an npz, or a TensorFlow checkpoint's prefix."""
    file = path if path.suffix == ".npz" else data_file(path)
    return {"file": f"{file.resolve().parent.name}/{file.name}", "sha256": sha256}


def _is_integer(value: object, least: int, most: int = LARGEST) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def epoch_order(images: int, seed: int, epoch: int) -> np.ndarray:
    """The order in which an epoch (counted from 0) sees the training images, int64 [images]: from seed and epoch alone."""
    return np.random.RandomState([seed, epoch]).permutation(images)


def paper(variant: str) -> Recipe:
    """The paper's recipe: CIFAR-10, 600 epochs.

    Reported: TWBA 88.19 %, BWBA 86.50 %. What a released network has shown, and by which recipe, is in its card
    (TWBA/model.json); REPRODUCTION.md has the whole story.
    """
    return Recipe(variant)


def digits(variant: str) -> Recipe:
    """A recipe for scikit-learn's handwritten digits: minutes on a CPU, to try everything out.

    Shown: TWBA 98.6 % of the held-out digits (two cores of an AMD EPYC, TensorFlow 1.15, 100 seconds).
    """
    return Recipe(variant, dataset="digits", epochs=6, batch_size=50,
                  learning_rate_steps=((0, 0.005), (3, 0.0025), (5, 0.0005)))


RECIPES = {"cifar10": paper, "digits": digits}
