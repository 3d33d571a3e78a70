"""What a data set is. No framework is imported here."""
from collections import namedtuple

Dataset = namedtuple("Dataset", "name x_train y_train x_test y_test flip")
Dataset.__doc__ = """Images uint8 [N, 32, 32, 3] and labels int32 [N], for training and for the test.

flip: whether training may mirror an image (a mirrored digit is no digit).
"""
