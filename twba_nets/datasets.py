"""The data sets by name. No framework is imported here."""
from collections import namedtuple

Dataset = namedtuple("Dataset", "name x_train y_train x_test y_test flip")
Dataset.__doc__ = """Images uint8 [N, 32, 32, 3] and labels int32 [N], for training and for the test.

flip: whether training may mirror an image (a mirrored digit is no digit).
"""


def load(name, data_dir=None):
    """The data set `name` ("cifar10" or "digits"); `data_dir` is CIFAR-10's, see cifar10.load."""
    if name == "digits":
        from twba_nets import digits
        return digits.load()
    if name != "cifar10":
        raise ValueError("no data set is called %r" % (name,))
    from twba_nets import cifar10
    return cifar10.load(data_dir)
