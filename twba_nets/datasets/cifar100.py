"""CIFAR-100, from its own files. Source of the data: A. Krizhevsky, 2009, as for CIFAR-10."""
import os
from pathlib import Path
from typing import Tuple, Union

import numpy as np

from twba_nets.datasets import cifar10
from twba_nets.datasets.dataset import Dataset
from twba_nets.system.errors import UserError, reads

URL = "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz"
FOLDER = "cifar-100-python"
ENVIRONMENT_VARIABLE = "CIFAR100_DIR"
CLASSES = 100
MOST_BYTES = 1 << 28  # of a file; a pickle of Python 3 may take two bytes per pixel
REMEDY = f"unpack {URL} there, or name another folder with --data-dir or {ENVIRONMENT_VARIABLE}"


@reads
def load(data_dir: Union[str, Path] = None) -> Dataset:
    """CIFAR-100 with its 100 fine classes, as a Dataset of 50,000 training and 10,000 test images.

    data_dir: a folder with cifar-100-python/, or that folder itself. Default: $CIFAR100_DIR, else data/ (places.HOME).
    Raises UserError if a file is missing or damaged.
    """
    place = Path(data_dir or os.environ.get(ENVIRONMENT_VARIABLE) or cifar10.DEFAULT_DIR)
    folder = place / FOLDER if (place / FOLDER).is_dir() else place
    names = cifar10.unpickle(folder / "meta", MOST_BYTES, REMEDY).get("fine_label_names")
    if not isinstance(names, list) or len(names) != CLASSES or not all(isinstance(name, str) for name in names):
        raise UserError(f"{folder / 'meta'}: does not name {CLASSES} classes: {REMEDY}")
    (x_train, y_train), (x_test, y_test) = (_read(folder / name, images) for name, images in (("train", 50000), ("test", 10000)))
    return Dataset("cifar100", x_train, y_train, x_test, y_test, flip=True, class_names=tuple(names))


def _read(path: Path, images: int) -> Tuple[np.ndarray, np.ndarray]:
    found = cifar10.unpickle(path, MOST_BYTES, REMEDY)
    data, labels = cifar10.images_of(found, path, images, REMEDY), found.get("fine_labels")
    return data, cifar10.labels_of(labels, path, images, CLASSES, REMEDY)
