"""The data sets: by name, or your own."""
from pathlib import Path
from typing import Dict, Sequence, Tuple, Union

import numpy as np

from twba_nets.datasets.dataset import CIFAR10, DIGITS, Dataset
from twba_nets.system import places, streams
from twba_nets.system.errors import UserError

NAMES = {"cifar10": CIFAR10, "cifar100": None, "digits": DIGITS}  # name -> classes; CIFAR-100's are in its files
SHAPES: Dict[Union[str, Path], Tuple[int, ...]] = {  # name -> (S, S, C, classes)
    "cifar10": (32, 32, 3, 10), "cifar100": (32, 32, 3, 100), "digits": (32, 32, 3, 10)}


def load(source: Union[str, Path], shape: Tuple[int, int, int], classes: int, data_dir: Union[str, Path] = None) -> Dataset:
    """A data set for a network of pictures of this shape, (S, S, C), and of so many classes.

    source: one of NAMES, or the path of an npz or a folder of pictures (own.load). data_dir: the folder of CIFAR's files
    (cifar10.load, cifar100.load). Raises UserError if the data are missing, damaged or do not fit the network.
    """
    needed = (*shape, classes)
    _require_fit(source, SHAPES.get(source, needed), needed)  # before a download
    data = _load(source, shape, classes, data_dir)
    for images in (data.x_train, data.x_test):
        _require_fit(source, (*images.shape[1:], len(data.class_names)), needed)
    return data


def _require_fit(source: Union[str, Path], found: Tuple[int, ...], needed: Tuple[int, ...]) -> None:
    if found != needed:
        raise UserError("{}: has {}x{}x{} pictures of {} classes, but the network takes {}x{}x{} pictures of {} classes: "
                        "name other data or another network, whose table has these picture_size, channels and classes"
                        .format(source, *found, *needed))


def require_same_classes(source: Union[str, Path], theirs: Sequence[str], other: str, ours: Sequence[str]) -> None:
    """Raise UserError if two lists of class names differ. Numbers, the names of unnamed classes, go with any names."""
    numbers = [*map(str, range(len(ours)))]
    for number, (their, our) in enumerate(zip(theirs, ours)):
        if their != our and numbers not in ([*theirs], [*ours]):
            raise UserError(f"{source}: its class {number} is {their!r}, but that of {other} is {our!r}: name and order the "
                            "classes alike")


def warn_of_empty_classes(source: str, part: str, labels: np.ndarray, class_names: Sequence[str]) -> None:
    """Warn if there are no images of a class. part: "train" or "test"."""
    lacking = [name for number, name in enumerate(class_names) if number not in labels]
    if lacking:
        images = {"train": "training"}.get(part, part)
        more = f" and {len(lacking) - 5} more" if len(lacking) > 5 else ""
        streams.tell_once(f"warning: {source}: no {images} image is of the class {', '.join(lacking[:5])}{more}")


def warn_if_sorted(name: str, labels: np.ndarray, chosen: np.ndarray) -> None:
    """Warn if the chosen images lack a class because the images are sorted by class, or many are."""
    shares = np.unique(labels, return_counts=True)[1] / len(labels)
    changes, in_random_order = np.count_nonzero(np.diff(labels)), len(labels) * (1 - (shares ** 2).sum())
    is_sorted = changes < len(shares) < len(labels) or 4 * changes < in_random_order
    if len(np.unique(chosen)) < len(shares) and is_sorted:
        streams.tell_once(f"warning: {name}: its images are sorted by class, so the {len(chosen)} chosen ones lack a class: "
                          "shuffle them")


def _load(source: Union[str, Path], shape: Tuple[int, int, int], classes: int, data_dir: Union[str, Path, None]) -> Dataset:
    if source == "digits":
        try:
            from twba_nets.datasets import digits
        except ModuleNotFoundError:
            raise UserError(f"scikit-learn, which has the digits, is not installed: {places.install('digits')}")
        return digits.load()
    if source in ("cifar10", "cifar100"):
        from twba_nets.datasets import cifar10, cifar100
        return (cifar10 if source == "cifar10" else cifar100).load(data_dir)
    from twba_nets.datasets import own
    return own.load(Path(source), shape, classes)
