"""examples/own_network.py, all the way: from an nn.Sequential to its files for chips."""
import importlib.util

import nir
import numpy as np
import pytest
import torch

import twba_torch
from exports import assert_every_spike
from helpers import REPOSITORY
from twba_nets.runs.model import open_model


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """(the example's module, the folder that it wrote, the accuracy that it found)."""
    specification = importlib.util.spec_from_file_location("own_network", REPOSITORY / "examples" / "own_network.py")
    example = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(example)
    folder = tmp_path_factory.mktemp("example") / "own"
    return example, folder, example.main(folder)


def test_it_learns(run):
    _, _, accuracy = run
    assert accuracy > 0.95


def test_the_engine_and_pytorch_agree_in_every_spike(run):
    _, folder, accuracy = run
    network = twba_torch.load(folder)
    with np.load(folder / "digits.npz") as data:
        images, labels = data["x_test"], data["y_test"]
    for source in (folder, folder / "network.npz"):
        maps = assert_every_spike(source, network, images)
    with torch.no_grad():
        logits = network(torch.from_numpy(images).movedim(3, 1) / 255).argmax(1).numpy()
    assert list(maps) == ["bn1", "cnn2", "cnn3"] and abs((logits == labels).mean() - accuracy) <= 1 / len(images)


def test_what_it_prints(run, capsys):
    """It compares each spike itself."""
    example, folder, accuracy = run
    with np.load(folder / "digits.npz") as data:
        images, labels = data["x_test"], data["y_test"]
    assert example.compare(twba_torch.load(folder), folder / "network.npz", images, labels) == accuracy
    neurons = 8 * 8 * 32 + 4 * 4 * 64 + 2 * 2 * 128
    differing, text = capsys.readouterr().out.split(" of ")
    assert int(differing) <= 2 and text.startswith(f"{len(images) * neurons:,} spikes")


def test_its_files(run):
    _, folder, _ = run
    assert {path.name for path in folder.iterdir()} == {"digits.npz", "model.npz", "model.json", "network.npz", "network.nir"}
    about = open_model(folder).about
    assert about.data == str(folder / "digits.npz") and len(about.class_names) == 10
    assert max(stage.fan_in for stage in about.architecture.hidden) <= 256
    assert {"cnn2", "cnn3", "cnn2_spikes", "cnn3_spikes"} <= set(nir.read(folder / "network.nir").nodes)
