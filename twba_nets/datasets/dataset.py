"""What a data set is. No framework is imported here."""
from typing import NamedTuple

import numpy as np


class Dataset(NamedTuple):
    """Images uint8 [N, 32, 32, 3] and labels int32 [N], for training and for the test.

    flip: whether training may mirror an image (a mirrored digit is no digit).
    """
    name: str
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    flip: bool
