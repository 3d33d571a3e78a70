"""Shared by the tests of both frameworks: data sets, and one short training run for several tests."""
import logging
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

logging.getLogger("tensorflow").setLevel(logging.ERROR)

import pytest

from helpers import drawn, few_digits, short_recipe, start_training  # noqa: F401 (fixtures; twba_nets is found from here on)
from twba_nets.datasets.cifar10 import ENVIRONMENT_VARIABLE

ORACLE_VARIABLE = "TWBA_ORACLE_DIR"


def folder_from(variable: str, what: str) -> Path:
    """The folder that an environment variable names. Skips the test if it is not set."""
    folder = os.environ.get(variable)
    if not folder:
        pytest.skip(f"set {variable} to the folder with {what} to run this test")
    return Path(folder)


@pytest.fixture(scope="session")
def cifar10_dir():
    return folder_from(ENVIRONMENT_VARIABLE, "cifar-10-batches-py")


@pytest.fixture(scope="session")
def oracle_dir():
    return folder_from(ORACLE_VARIABLE, "the published code's results (twba_binary.npz)")


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory):
    """The folder of a run of two epochs on few_digits, single-threaded. Tests must not change it.

    It runs in a separate process, because the first session determines the size of TensorFlow's only thread pool.
    """
    folder = tmp_path_factory.mktemp("finished_run")
    process = start_training(folder, "--dataset", "digits", "--epochs", "2")
    _, error = process.communicate()
    assert process.returncode == 0, error
    return folder
