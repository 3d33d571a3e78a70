"""The type of all data sets."""
import hashlib
from typing import NamedTuple, Tuple

import numpy as np

CIFAR10 = tuple("airplane automobile bird cat deer dog frog horse ship truck".split())
DIGITS = tuple("0123456789")


class Dataset(NamedTuple):
    """Images uint8 [N, S, S, C] and labels int32 [N], for training and for the test.

    flip: whether training may mirror an image (a mirrored digit is not a digit). class_names: of the labels 0, 1, ...
    """
    name: str
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    flip: bool
    class_names: Tuple[str, ...] = ()

    @property
    def sha256(self) -> str:
        """The digest of all images and labels, in hexadecimal."""
        digest = hashlib.sha256()
        for array in (self.x_train, self.y_train, self.x_test, self.y_test):
            digest.update(repr((array.shape, str(array.dtype))).encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()
