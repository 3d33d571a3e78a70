"""Exported networks for the tests of NIR and ONNX: a random one, the released one, and files that are damaged."""
import json
import os
from pathlib import Path

import numpy as np
import pytest

from conftest import in_tensorflow
from helpers import command_error, random_arrays
from twba_chip import spiking_file
from twba_nets import architecture as arch
from twba_nets.datasets import cifar10, digits

IMAGES = 200


def random_spikes(images, seed=1):
    """Input spikes bool [N, 24, 24, 64] of all densities, from none at all to everywhere."""
    density = np.linspace(0, 1, images).reshape(-1, 1, 1, 1)
    return np.random.RandomState(seed).uniform(size=(images,) + arch.map_shapes()["bn0"]) < density


@pytest.fixture(scope="session")
def random_network(tmp_path_factory):
    path = tmp_path_factory.mktemp("random") / "random.npz"
    spiking_file.save(path, random_arrays(), "twba", {"checkpoint": "none"})
    return path


@pytest.fixture(scope="session")
def digit_images():
    return digits.load().x_test[:IMAGES]


@pytest.fixture(scope="session")
def cifar10_dir():
    folder = os.environ.get(cifar10.ENVIRONMENT_VARIABLE)
    if not folder:
        pytest.skip(f"set {cifar10.ENVIRONMENT_VARIABLE} to the folder of cifar-10-batches-py to run this test")
    return Path(folder)


@pytest.fixture(scope="session")
def cifar10_images(cifar10_dir):
    return cifar10.load(cifar10_dir).x_test[:IMAGES]


@pytest.fixture(scope="session")
def released_network(tmp_path_factory, cifar10_images):
    """The released TWBA checkpoint, exported; after cifar10_images, which may skip."""
    path = tmp_path_factory.mktemp("released") / "released.npz"
    in_tensorflow("-m", "twba_tensorflow.export", "TWBA/model.npz", path)
    return path


@pytest.fixture(params=["missing", "truncated", "altered", "of another version"])
def bad_network(request, tmp_path, random_network):
    """(a file that cannot be exported, what the message says of it)."""
    path = tmp_path / "bad.npz"
    content = random_network.read_bytes()
    if request.param == "missing":
        return path, "no such model"
    if request.param == "truncated":
        path.write_bytes(content[:len(content) // 2])
        return path, "truncated"
    with np.load(random_network) as archive:
        arrays = dict(archive)
    if request.param == "altered":
        arrays["cnn7/thresholds"][3] += 1
        message = "was altered"
    else:
        arrays["meta"] = np.array(json.dumps(dict(json.loads(str(arrays["meta"])), version=2)))
        message = "has version 2"
    np.savez(path, **arrays)
    return path, message


def assert_refused(main, bad_network, out):
    """An exporter refuses the file in one line and writes nothing."""
    path, message = bad_network
    line = command_error(main, path, out)
    assert line.startswith(f"{path}: ") and message in line
    assert not out.exists()
