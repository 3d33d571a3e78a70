"""Exported networks for the tests of NIR and ONNX: a random one, the released one, and files that are damaged."""
import json

import numpy as np
import pytest
import torch

import twba_chip
from conftest import in_tensorflow
from helpers import command_error, random_network
from twba_chip.spiking import file as spiking_file
from twba_nets.datasets import cifar10, digits
from twba_nets.network.architecture import PAPER

IMAGES = 200


def random_spikes(images, seed=1):
    """Input spikes bool [N, 24, 24, 64] of all densities, from none at all to everywhere."""
    density = np.linspace(0, 1, images).reshape(-1, 1, 1, 1)
    return np.random.RandomState(seed).uniform(size=(images,) + PAPER.map_shapes["bn0"]) < density


@pytest.fixture(scope="session")
def random_export(tmp_path_factory):
    path = tmp_path_factory.mktemp("random") / "random.npz"
    spiking_file.write(path, random_network(checkpoint="none"))
    return path


@pytest.fixture(scope="session")
def digit_images():
    return digits.load().x_test[:IMAGES]


@pytest.fixture(scope="session")
def cifar10_images(cifar10_dir):
    return cifar10.load(cifar10_dir).x_test[:IMAGES]


@pytest.fixture(scope="session")
def released_export(tmp_path_factory, cifar10_images):
    """The released TWBA checkpoint, exported; after cifar10_images, which may skip."""
    path = tmp_path_factory.mktemp("released") / "released.npz"
    in_tensorflow("-m", "twba_tensorflow.export", "TWBA/model.npz", path)
    return path


@pytest.fixture(params=["missing", "truncated", "altered", "of another version"])
def bad_export(request, tmp_path, random_export):
    """(a file that cannot be exported, what the message says of it)."""
    path = tmp_path / "bad.npz"
    content = random_export.read_bytes()
    if request.param == "missing":
        return path, "no such model"
    if request.param == "truncated":
        path.write_bytes(content[:len(content) // 2])
        return path, "truncated"
    with np.load(random_export) as archive:
        arrays = dict(archive)
    if request.param == "altered":
        arrays["cnn7/thresholds"][3] += 1
        message = "was altered"
    else:
        arrays["meta"] = np.array(json.dumps(dict(json.loads(str(arrays["meta"])), version=2)))
        message = "has version 2"
    np.savez(path, **arrays)
    return path, message


def as_torchvision(images):
    """uint8 [N, H, W, C] as ToTensor gives it: float32 [N, C, H, W] in [0, 1]."""
    return torch.from_numpy(images).movedim(3, 1) / 255


def assert_every_spike(name, network, images):
    """Whether the engine has every spike that a StandardNetwork has, of images uint8 [N, S, S, C]. Returns the network's maps.

    name: of what was made of it, as twba_chip.load takes it. The input spikes are made in floats: where a potential lies on the
    threshold but for rounding, which is once in a million, one may differ. All else are integers.
    """
    engine = twba_chip.load(name, threads=1)
    with torch.no_grad():
        logits, maps = network(as_torchvision(images), return_spikes=True)
    maps = {name: spikes.movedim(1, 3).numpy() for name, spikes in maps.items()}
    first = network.architecture.encoder.map
    output, found = engine.run_spikes(maps[first], return_spikes=True)
    assert list(found) == list(maps)
    for name, spikes in maps.items():
        np.testing.assert_array_equal(found[name], spikes, name)
        assert 0.02 < spikes.mean() < 0.98, f"{name}: the comparison says little"
    np.testing.assert_allclose(output.logits, logits, rtol=1e-4, atol=1e-4)
    _, found = engine.run(images, return_spikes=True)
    same = (found[first] == maps[first]).all((1, 2, 3))
    assert (found[first] != maps[first]).mean() < 1e-5 and same.mean() >= 0.9
    for name, spikes in maps.items():
        np.testing.assert_array_equal(found[name][same], spikes[same], name)
    return maps


def assert_refused(main, bad_export, out):
    """An exporter refuses the file in one line and writes nothing."""
    path, message = bad_export
    line = command_error(main, path, out)
    assert line.startswith(f"{path}: ") and message in line
    assert not out.exists()
