"""Fixtures of both frameworks' tests. No framework is imported here."""
import dataclasses
import os
import shutil

import pytest

from twba_nets import recipe as recipes
from twba_nets.datasets import digits


@pytest.fixture(scope="session")
def few_digits():
    """110 training and 60 test images; neither is a multiple of the recipe's batch of 50."""
    data = digits.load()
    return data._replace(x_train=data.x_train[:110], y_train=data.y_train[:110],
                         x_test=data.x_test[:60], y_test=data.y_test[:60])


@pytest.fixture(scope="session")
def short_recipe():
    return dataclasses.replace(recipes.digits("twba"), epochs=2)


class Snapshots:
    """Copies of a run's folder as a kill would leave it, before each replacement of a file."""

    def __init__(self, folder, copies, monkeypatch):
        self.folder, self.copies, self.taken = folder, copies, []
        monkeypatch.setattr(os, "replace", self.before(os.replace))

    def before(self, function):
        """The function, before each call of which a copy is made."""
        def watched(*arguments, **named):
            self.taken.append(self.copies / ("killed_%d" % len(self.taken)))
            shutil.copytree(str(self.folder), str(self.taken[-1]))
            return function(*arguments, **named)
        return watched
