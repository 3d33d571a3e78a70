"""Shared by the tests: data sets, and one short training run that several tests look at."""
import dataclasses
import os
import signal
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pytest
import tensorflow as tf

from twba_nets import digits, recipe as recipes
from twba_nets.cifar10 import ENVIRONMENT_VARIABLE

tf.compat.v1.logging.set_verbosity(tf.compat.v1.logging.ERROR)

ORACLE_VARIABLE = "TWBA_ORACLE_DIR"


def folder_from(variable, what):
    folder = os.environ.get(variable)
    if not folder:
        pytest.skip("set %s to the folder of %s to run this test" % (variable, what))
    return Path(folder)


def start_python(code, *arguments):
    """Run Python code in a process of its own, which Ctrl-C reaches even where the tests run in the background."""
    return subprocess.Popen([sys.executable, "-W", "ignore", "-c", code] + [str(argument) for argument in arguments],
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True,
                            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))


@pytest.fixture(scope="session")
def cifar10_dir():
    return folder_from(ENVIRONMENT_VARIABLE, "cifar-10-batches-py")


@pytest.fixture(scope="session")
def oracle_dir():
    return folder_from(ORACLE_VARIABLE, "what the published code computed (twba_binary.npz)")


@pytest.fixture(scope="session")
def few_digits():
    """110 training and 60 test images; neither is a multiple of the recipe's batch of 50."""
    data = digits.load()
    return data._replace(x_train=data.x_train[:110], y_train=data.y_train[:110],
                         x_test=data.x_test[:60], y_test=data.y_test[:60])


@pytest.fixture(scope="session")
def short_recipe():
    return dataclasses.replace(recipes.digits("twba"), epochs=2)


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory, few_digits, short_recipe):
    """The folder of a run of two epochs on few_digits, single-threaded. Not to be changed by a test."""
    from twba_nets.training import train
    folder = tmp_path_factory.mktemp("finished_run")
    short_recipe.save(folder)
    train(short_recipe, few_digits, folder, threads=1)
    return folder
