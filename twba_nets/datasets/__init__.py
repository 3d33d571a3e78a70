"""The data sets by name. No framework is imported here."""
from pathlib import Path
from typing import Union

from twba_nets.datasets.dataset import Dataset
from twba_nets.errors import UserError


def load(name: str, data_dir: Union[str, Path] = None) -> Dataset:
    """The data set `name` ("cifar10" or "digits"); `data_dir` is CIFAR-10's, see cifar10.load."""
    if name == "digits":
        try:
            from twba_nets.datasets import digits
        except ModuleNotFoundError:
            raise UserError("the handwritten digits are scikit-learn's, which is not installed: pip install scikit-learn")
        return digits.load()
    if name != "cifar10":
        raise ValueError(f"no data set is called {name!r}: cifar10 and digits are")
    from twba_nets.datasets import cifar10
    return cifar10.load(data_dir)
