"""Shared by the tests: data sets, and one short training run that several tests look at."""
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

from shared_fixtures import few_digits, short_recipe  # noqa: F401 (fixtures)
from twba_nets.datasets.cifar10 import ENVIRONMENT_VARIABLE

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


# the example script's train() on the images of few_digits
TRAIN = """
import sys
sys.path.insert(0, %r)
from twba_nets import datasets, recipe
from twba_tensorflow import scripts

def few_digits(name, data_dir):
    from twba_nets.datasets import digits
    data = digits.load()
    return data._replace(x_train=data.x_train[:110], y_train=data.y_train[:110],
                         x_test=data.x_test[:60], y_test=data.y_test[:60])

datasets.load = few_digits
scripts.train(recipe.paper("twba"))
""" % str(REPOSITORY)


def start_training(folder, *flags):
    return start_python(TRAIN, "--output", folder, "--threads", 1, *flags)


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
