"""Shared by PyTorch's tests: what TensorFlow computed, in an environment of its own."""
import os
import subprocess

from helpers import REPOSITORY
from twba_torch.device import keep_memory

keep_memory()

import pytest
import torch

TENSORFLOW_PYTHON = REPOSITORY / ".venv" / "bin" / "python"


def in_tensorflow(*arguments):
    """Run Python with arguments in TensorFlow's environment; returns what it prints."""
    if not TENSORFLOW_PYTHON.exists():
        pytest.skip("run `make setup` for TensorFlow's environment, .venv, which this test compares with")
    done = subprocess.run([TENSORFLOW_PYTHON, "-W", "ignore", *map(str, arguments)], cwd=REPOSITORY,
                          env=dict(os.environ, TF_CPP_MIN_LOG_LEVEL="3"), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def tensorflow_side(tmp_path_factory):
    """The folder with the records that tensorflow_side.py writes; half a gigabyte, removed at the end."""
    folder = tmp_path_factory.mktemp("tensorflow")
    in_tensorflow("tests/pytorch/tensorflow_side.py", folder)
    yield folder
    for path in folder.iterdir():
        path.unlink()


@pytest.fixture(autouse=True)
def default_type():
    """Restores the default dtype, because some tests compute in float64."""
    yield
    torch.set_default_dtype(torch.float32)
