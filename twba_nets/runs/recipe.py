"""The training recipe, in one object."""
import dataclasses
from pathlib import Path
from typing import Any, Dict, Optional, Sequence, Set, Tuple

import numpy as np

from twba_nets.datasets import NAMES, require_same_classes
from twba_nets.datasets.dataset import Dataset
from twba_nets.network import architecture as arch
from twba_nets.network.architecture import PAPER, Architecture
from twba_nets.network.quantisers import ACTIVATIONS, WEIGHTS, canonical
from twba_nets.system.errors import UserError
from twba_nets.system.files import write_json
from twba_nets.runs.about import About
from twba_nets.runs.run_folder import data_file

FILE_NAME = "recipe.json"
REPORTED = {"twba": 0.8819, "bwba": 0.8650}  # test accuracy on CIFAR-10, by the paper, after 600 epochs
WRITTEN = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}  # the data sets' names in titles
LARGEST = 2 ** 31 - 1  # the largest whole number in a recipe: int32's
MOST_EPOCHS = 100000  # twice the published code's
MOST_IMAGES = 50000  # the largest batch: CIFAR-10's training images
MAX_BRIGHTNESS = 63.0  # training images: a random addend between minus and plus this, of 255
CONTRAST = (0.2, 1.8)  # training images: range of the random factor about each channel's mean


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A training recipe. The defaults are the paper's, for its network and CIFAR-10.

    The published code starts at learning rate 0.01; every 200 epochs its user divides the rate by ten by hand
    and restarts from the checkpoint. Here the same schedule is `learning_rate_steps`: (epoch, rate) pairs,
    each rate used from its epoch (counted from 0) until the next pair's. with_learning_rate and
    with_linear_decay make other schedules.

    initial_weights: None for fresh weights, else the checkpoint that training started from, as {"file": its folder and name,
    "sha256": its digest}. limit_train: train only on the first N images, N at least one batch. limit_test: test only on the
    first N images. hold_out: hold out the last N training images and test on them instead of the test images. None for each
    of these three means no limit. mirror: whether training mirrors images; None: as the data set says (Dataset.flip).

    dataset: a name of datasets.NAMES, or the name of your own data. data: None, or of your own data {"path": where they were,
    "sha256": their digest}. class_names: of the labels 0, 1, ...; None: those of the named data set.

    Only PyTorch's trainer has the following. teacher: None, else checkpoints, each as in initial_weights; the network learns
    from their mean softened classes and from the labels (Hinton, Vinyals and Dean, 2015). precise_batch_norm: whether batch
    norm's statistics are re-estimated over all training images after the last epoch (Wu and Johnson, 2021, section 3).

    Raises UserError, naming the field, if a value is invalid.
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
    teacher: Optional[Tuple[Dict[str, str], ...]] = None
    precise_batch_norm: bool = False
    architecture: Architecture = PAPER
    data: Optional[Dict[str, str]] = None
    class_names: Optional[Tuple[str, ...]] = None
    mirror: Optional[bool] = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "activation", canonical(self.activation))
        # JSON has lists in place of tuples
        object.__setattr__(self, "learning_rate_steps", tuple(sorted((epoch, rate) for epoch, rate in
                                                                     self.learning_rate_steps)))
        if isinstance(self.teacher, (dict, list)):  # older files have one, without a list
            object.__setattr__(self, "teacher", tuple([self.teacher] if isinstance(self.teacher, dict) else self.teacher))
        if self.class_names is not None:
            object.__setattr__(self, "class_names", tuple(self.class_names))
        self._check()

    def _check(self) -> None:
        for name, known in (("variant", WEIGHTS), ("activation", ACTIVATIONS)):
            if getattr(self, name) not in known:
                raise UserError(f"{name} {getattr(self, name)!r} is none of {', '.join(known)}")
        self._check_data()
        for name, least, most in (("epochs", 1, MOST_EPOCHS), ("batch_size", 1, MOST_IMAGES), ("seed", 0, LARGEST)):
            if not _is_integer(getattr(self, name), least, most):
                raise UserError(f"{name} {getattr(self, name)!r} is not a whole number from {least} to {most}")
        limit = self.limit_train
        if limit is not None and not _is_integer(limit, self.batch_size, LARGEST):
            raise UserError(f"limit_train {limit!r} is not a whole number from the batch size, {self.batch_size}, on: take more "
                            "images or smaller batches")
        for name in ("limit_test", "hold_out"):
            value = getattr(self, name)
            if value is not None and not _is_integer(value, 1, LARGEST):
                raise UserError(f"{name} {value!r} is not a whole number from 1 on")
        if not isinstance(self.precise_batch_norm, bool):
            raise UserError(f"precise_batch_norm {self.precise_batch_norm!r} is neither true nor false")
        self._check_rates()
        teachers = self.teacher if isinstance(self.teacher, tuple) else (self.teacher,)
        for name, sources in (("initial_weights", (self.initial_weights,)), ("teacher", teachers)):
            for source in sources:
                if source is not None and not _is_record(source, {"file", "sha256"}):
                    raise UserError(f"{name} {source!r} is not {{file, sha256}}")

    def _check_data(self) -> None:
        if not isinstance(self.dataset, str) or self.data is None and self.dataset not in NAMES:
            raise UserError(f"dataset {self.dataset!r} is none of {', '.join(NAMES)}")
        if self.data is not None and not _is_record(self.data, {"path", "sha256"}):
            raise UserError(f"data {self.data!r} is not {{path, sha256}}")
        names = self.class_names
        if names is not None and not (len(names) == self.architecture.classes and all(isinstance(name, str) for name in names)):
            raise UserError(f"class_names {names!r:.80} are not {self.architecture.classes} strings")
        if not isinstance(self.mirror, (bool, type(None))):
            raise UserError(f"mirror {self.mirror!r} is neither true nor false")

    def _check_rates(self) -> None:
        epochs = [epoch for epoch, _ in self.learning_rate_steps]
        if not all(_is_integer(epoch, 0) for epoch in epochs) or epochs[:1] != [0] or len(set(epochs)) < len(epochs):
            raise UserError("the learning rate's steps must start at epoch 0 and name each epoch once, as in 0:0.01 "
                            "200:0.001")
        for _, rate in self.learning_rate_steps:
            # within float32's range; the comparison is false for a NaN
            if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 1e-37 < rate < 1e38:
                raise UserError(f"learning rate {rate!r} is not a number above 0")

    @property
    def source(self) -> str:
        """The source for datasets.load: the data set's name, or the path of your own data."""
        return self.data["path"] if self.data else self.dataset

    @property
    def names(self) -> Tuple[str, ...]:
        """Names of the classes; their numbers if they have none."""
        return self.class_names or NAMES.get(self.dataset) or tuple(map(str, range(self.architecture.classes)))

    @property
    def about(self) -> About:
        """The description of a network trained with this recipe."""
        return About(self.variant, self.activation, self.architecture, self.source, self.names)

    def with_data(self, path: Path) -> "Recipe":
        """The same recipe for your own data, before they are read."""
        return dataclasses.replace(self, dataset=path.stem, data={"path": str(path), "sha256": ""}, class_names=None)

    def with_loaded(self, data: Dataset, source: str) -> "Recipe":
        """The same recipe after its data are read from this source. Raises UserError if the data have changed."""
        if not self.data:
            known = NAMES.get(self.dataset) == data.class_names
            return self if known else dataclasses.replace(self, class_names=data.class_names)
        sha256 = data.sha256
        if self.data["sha256"] not in ("", sha256):
            raise UserError(f"{source}: its data differ from those that this run started with: name those with --data, or start "
                            "another run")
        require_same_classes(source, data.class_names, "this run", self.class_names or data.class_names)
        return dataclasses.replace(self, dataset=data.name, data={"path": source, "sha256": sha256}, class_names=data.class_names)

    @property
    def title(self) -> str:
        """A text that says what is trained on what."""
        limits = [text for text, limit in ((f"first {self.limit_train} training images", self.limit_train),
                                           (f"tested on {self.hold_out} held-out training images", self.hold_out),
                                           (f"first {self.limit_test} test images", self.limit_test)) if limit]
        images = f" ({', '.join(limits)})" if limits else ""
        begun = f" from {self.initial_weights['file']}" if self.initial_weights else ""
        data = self.dataset if self.data else WRITTEN.get(self.dataset, self.dataset)
        return (f"{self.variant.upper()} on {data}{images}, {self.epochs} epochs{begun}, "
                f"{self.activation} activations")

    @property
    def reported(self) -> Optional[float]:
        """The paper's test accuracy of this network on CIFAR-10, whatever the schedule; None for other networks and images."""
        limited = self.limit_train or self.limit_test or self.hold_out
        is_papers = self.architecture == PAPER and self.dataset == "cifar10" and not self.data and not limited
        return REPORTED[self.variant] if is_papers else None

    def learning_rate(self, epoch: int) -> float:
        """The learning rate of an epoch, counted from 0."""
        return [rate for start, rate in self.learning_rate_steps if start <= epoch][-1]

    def estimates_statistics_after(self, epoch: int) -> bool:
        """Whether batch norm's statistics are re-estimated between this epoch, counted from 0, and its test."""
        return self.precise_batch_norm and epoch + 1 == self.epochs

    def with_learning_rate(self, rate: float, epoch: int) -> "Recipe":
        """The same recipe with a constant rate from that epoch on. Users of the original edit it by hand."""
        return self._from_epoch(epoch, ((epoch, rate),))

    def with_steps(self, steps: Sequence[Tuple[int, float]], epoch: int) -> "Recipe":
        """The same recipe with the rates of these steps from that epoch on. What was trained before keeps its own."""
        now = [(epoch, rate) for first, rate in sorted(steps) if first <= epoch][-1:]
        return self._from_epoch(epoch, (*now, *(step for step in sorted(steps) if step[0] > epoch)))

    def decays_from(self, rate: float, epoch: int) -> bool:
        """Whether the rate falls linearly from `rate` already, since that epoch or an earlier one."""
        return any(self.with_linear_decay(rate, first) == self for first, found in self.learning_rate_steps
                   if found == rate and first <= epoch)

    def with_linear_decay(self, rate: float, epoch: int = 0) -> "Recipe":
        """The same recipe with a rate that falls linearly from `rate` in that epoch to 0 after the last one.

        Rates are rounded to 12 digits for readability: 0.0081, not 0.008100000000000001.
        """
        left = self.epochs - epoch
        return self._from_epoch(epoch, tuple((epoch + i, float(f"{rate * (1 - i / left):.12g}")) for i in range(left)))

    def with_initial_weights(self, path: Path, sha256: str) -> "Recipe":
        """The same recipe, started from the weights of a checkpoint: a training.npz or a TensorFlow checkpoint's prefix.

        sha256: of the bytes that the weights were read from.
        """
        return dataclasses.replace(self, initial_weights=_source(path, sha256))

    def with_teachers(self, read: Sequence[Tuple[Path, str]]) -> "Recipe":
        """The same recipe with the teachers in these npz. read: each one's path and the sha256 of the bytes read from it."""
        return dataclasses.replace(self, teacher=tuple(_source(path, sha256) for path, sha256 in read))

    def _from_epoch(self, epoch: int, steps: Tuple) -> "Recipe":
        past = tuple(step for step in self.learning_rate_steps if step[0] < epoch)
        return dataclasses.replace(self, learning_rate_steps=past + steps)

    def save(self, folder: Path) -> None:
        """Write the recipe into a run's folder."""
        write_json(folder / FILE_NAME, self.to_json())

    def to_json(self) -> Dict[str, Any]:
        """The dictionary that from_json takes."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return dict(fields, architecture=self.architecture.to_json())


def from_json(found: Dict[str, Any]) -> Recipe:
    """The recipe in a JSON object. Older ones name no architecture: theirs is the paper's.

    Raises ValueError, TypeError or UserError if it is invalid.
    """
    architecture = found.get("architecture")
    return Recipe(**dict(found, architecture=PAPER if architecture is None else arch.from_json(architecture)))


def _source(path: Path, sha256: str) -> Dict[str, str]:
    """A recipe's record of a checkpoint: an npz, or a TensorFlow checkpoint's prefix."""
    file = path if path.suffix == ".npz" else data_file(path)
    return {"file": f"{file.resolve().parent.name}/{file.name}", "sha256": sha256}


def _is_record(value: object, keys: Set[str]) -> bool:
    return isinstance(value, dict) and set(value) == keys and all(isinstance(text, str) for text in value.values())


def _is_integer(value: object, least: int, most: int = LARGEST) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def epoch_order(images: int, seed: int, epoch: int) -> np.ndarray:
    """The order of the training images in an epoch (counted from 0), int64 [images]. It depends on seed and epoch only."""
    return np.random.RandomState([seed, epoch]).permutation(images)


def paper(variant: str) -> Recipe:
    """The paper's recipe: CIFAR-10, 600 epochs.

    Reported: TWBA 88.19 %, BWBA 86.50 %. A released network's accuracy and recipe are in its card (TWBA/model.json), and
    details in REPRODUCTION.md.
    """
    return Recipe(variant)


def digits(variant: str) -> Recipe:
    """A recipe for scikit-learn's handwritten digits, for a first try in minutes on a CPU.

    Measured: TWBA 98.6 % of the held-out digits (two cores of an AMD EPYC, TensorFlow 1.15, 100 seconds).
    """
    return Recipe(variant, dataset="digits", epochs=6, batch_size=50,
                  learning_rate_steps=((0, 0.005), (3, 0.0025), (5, 0.0005)))


def of(variant: str, dataset: str) -> Recipe:
    """The recipe for a data set: digits has its own, others have the paper's."""
    return digits(variant) if dataset == "digits" else Recipe(variant, dataset=dataset)
