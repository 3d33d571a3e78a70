"""Shared by the tests of both frameworks: data sets, and one short training run that several tests look at."""
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
    """The folder that an environment variable names; without it the test is skipped."""
    folder = os.environ.get(variable)
    if not folder:
        pytest.skip(f"set {variable} to the folder of {what} to run this test")
    return Path(folder)


@pytest.fixture(scope="session")
def cifar10_dir():
    return folder_from(ENVIRONMENT_VARIABLE, "cifar-10-batches-py")


@pytest.fixture(scope="session")
def oracle_dir():
    return folder_from(ORACLE_VARIABLE, "what the published code computed (twba_binary.npz)")


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory):
    """The folder of a run of two epochs on few_digits, single-threaded. Not to be changed by a test.

    By a process of its own: TensorFlow has one pool of threads in a process, which the first session of all sizes.
    """
    folder = tmp_path_factory.mktemp("finished_run")
    process = start_training(folder, "--dataset", "digits", "--epochs", "2")
    _, error = process.communicate()
    assert process.returncode == 0, error
    return folder
