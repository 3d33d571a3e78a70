"""What goes into the Docker images, and what they say of themselves."""
import re
import subprocess
import sys

import pytest

from helpers import REPOSITORY

USAGE = (REPOSITORY / "docker" / "usage.txt").read_text()


def test_what_git_ignores_is_not_copied_into_an_image():
    ignored, left_out = [(REPOSITORY / name).read_text().split() for name in (".gitignore", ".dockerignore")]
    assert {entry.strip("/") for entry in ignored} <= {entry.split("/")[-1] for entry in left_out}


@pytest.mark.parametrize("dockerfile", ["Dockerfile", "Dockerfile.gpu", "Dockerfile.torch"])
def test_an_image_alone_names_demo_training_and_spikes(dockerfile):
    command = (REPOSITORY / "docker" / dockerfile).read_text().splitlines()[-1]
    assert command == 'CMD ["cat", "docker/usage.txt"]'
    named = re.findall(r"^  docker run -it --rm .*?twba-repro (.*)$", USAGE, re.MULTILINE)
    assert [line.split()[0 if line.startswith("./") else 1] for line in named] == [
        "./demo.sh", "TWBA/cifar10_twba_spikes.py", "TWBA/cifar10_twba_example.py"]


def test_the_flags_that_an_image_names_are_there():
    for script in re.findall(r"\w+/cifar10_\w+\.py", USAGE):
        flags = subprocess.check_output([sys.executable, str(REPOSITORY / script), "--help"]).decode()
        task = "spikes" if "spikes" in script else "example"
        for flag in {"spikes": ["--engine"], "example": ["--resume", "--limit-train", "--epochs"]}[task]:
            assert flag in flags and flag in USAGE
