"""scikit-learn's 1,797 handwritten digits in the shape of CIFAR-10: real data without a download."""
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from twba_nets.datasets.dataset import DIGITS, Dataset

TEST_IMAGES = 360


def load() -> Dataset:
    """The digits as a Dataset: 1,437 training and 360 held-out images, stratified by class.

    Each 8x8 digit is enlarged to 24x24 on a 32x32 RGB canvas, so that the central crop holds all of it.
    Source: UCI's "Optical Recognition of Handwritten Digits", as scikit-learn ships it.
    """
    digits = load_digits()
    grey = np.round(digits.images * (255 / 16)).astype(np.uint8)
    images = np.pad(np.kron(grey, np.ones((1, 3, 3), np.uint8)), ((0, 0), (4, 4), (4, 4)), mode="constant")
    images = np.repeat(images[..., np.newaxis], 3, axis=3)
    labels = digits.target.astype(np.int32)
    x_train, x_test, y_train, y_test = train_test_split(images, labels, test_size=TEST_IMAGES, stratify=labels,
                                                        random_state=0)
    return Dataset("digits", x_train, y_train, x_test, y_test, flip=False, class_names=DIGITS)
