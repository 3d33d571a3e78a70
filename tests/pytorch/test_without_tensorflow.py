"""TensorFlow's commands in an environment that lacks it: one line, which names the one that prepares it."""
import subprocess
import sys

import pytest

from helpers import REPOSITORY, process_error


@pytest.mark.parametrize("arguments", [
    ["TWBA/cifar10_twba_spikes.py"], ["BWBA/cifar10_bwba_example.py", "--dataset", "digits", "--output", "OUT"],
    ["-m", "twba_tensorflow.export", "twba", "OUT"], ["-m", "twba_tensorflow.convert", "OUT"]], ids=lambda names: names[-2:][0])
def test_one_line_names_the_remedy(arguments, tmp_path):
    arguments = [str(tmp_path / "out") if argument == "OUT" else argument for argument in arguments]
    done = subprocess.run([sys.executable, *arguments], cwd=REPOSITORY, capture_output=True, text=True)
    line = process_error(done.returncode, done.stderr)
    assert line.startswith(f"TensorFlow 1.15 is not installed for {sys.executable}: run `make setup`")
    assert not list(tmp_path.iterdir())
