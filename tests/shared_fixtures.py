"""Fixtures of both frameworks' tests. No framework is imported here."""
import dataclasses

import pytest

from twba_nets import digits, recipe as recipes


@pytest.fixture(scope="session")
def few_digits():
    """110 training and 60 test images; neither is a multiple of the recipe's batch of 50."""
    data = digits.load()
    return data._replace(x_train=data.x_train[:110], y_train=data.y_train[:110],
                         x_test=data.x_test[:60], y_test=data.y_test[:60])


@pytest.fixture(scope="session")
def short_recipe():
    return dataclasses.replace(recipes.digits("twba"), epochs=2)
