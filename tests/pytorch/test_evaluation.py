"""twba-nets evaluate and predict of networks with three levels, which PyTorch computes."""
import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from twba_chip import evaluate, predict
from twba_nets import datasets
from twba_nets.network.architecture import PAPER
from twba_nets.runs import npz
from twba_nets.system import places
from twba_torch import evaluation, pipeline, variables
from twba_torch.network import Network

NAMES = [name for name in places.RELEASED if "published" in name]
IMAGES = 30


@pytest.fixture(scope="module")
def digits():
    return datasets.load("digits", PAPER.picture_shape, PAPER.classes)


def by_the_trainers(name, x):
    """(logits, each map's sums [N]) of the trainer's network, which is another than StandardNetwork."""
    network = Network(name[:4], PAPER, "three-level")
    variables.assign(npz.read_model(places.released(name) / "model.npz", PAPER), network)
    with torch.no_grad():
        logits, maps = network.eval()(pipeline.central_crop(torch.from_numpy(x), PAPER.image_size))
    return logits, [spikes.sum((1, 2, 3)).double().numpy() for spikes in maps]


@pytest.mark.parametrize("name", NAMES)
def test_evaluate(name, digits, tmp_path, capsys, monkeypatch):
    """In batches of two sizes, every figure equals that of the trainer's network, except where rounding flips a spike."""
    monkeypatch.setattr(evaluation, "BATCH", 20)
    file = tmp_path / "figures.json"
    evaluate.main([name, "--dataset", "digits", "--limit", str(IMAGES), "--threads", "1", "--json", str(file)])
    found = json.loads(file.read_text())
    logits, sums = by_the_trainers(name, digits.x_test[:IMAGES])
    labels = torch.from_numpy(digits.y_test[:IMAGES]).long()
    assert found["images"] == IMAGES and found["activation"] == "three-level" and found["dataset"] == "digits"
    assert abs(found["accuracy"] - (logits.argmax(1) == labels).float().mean().item()) <= 1 / IMAGES
    assert found["loss"] == pytest.approx(F.cross_entropy(logits, labels).item(), rel=0.02)
    assert [row["map"] for row in found["maps"]] == list(PAPER.counted_maps)
    for row, expected in zip(found["maps"], sums):
        assert [row["spikes_mean"], row["spikes_sd"]] == [pytest.approx(expected.mean(), rel=1e-3),
                                                          pytest.approx(expected.std(), rel=0.05)]
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("by PyTorch") and "not spike counts" in lines[-1]


def test_predict(digits, tmp_path, capsys):
    Image.fromarray(digits.x_test[0]).save(tmp_path / "picture.png")
    predict.main([NAMES[0], str(tmp_path / "picture.png")])
    lines = capsys.readouterr().out.splitlines()
    logits, sums = by_the_trainers(NAMES[0], digits.x_test[:1])
    chances = logits[0].softmax(0).numpy()
    assert lines[0].startswith("note: ") and "not spike counts" in lines[0]
    assert lines[2].split()[:2] == [datasets.NAMES["cifar10"][chances.argmax()], f"{chances.max():.1%}"]
    counts = {line.split()[0]: float(line.split()[2]) for line in lines[14:]}
    assert [counts[name] for name in PAPER.counted_maps] == [pytest.approx(total.item(), rel=2e-3) for total in sums]


def test_what_rounding_does_not_reach(digits):
    """A map is laid out as the engine's: in TensorFlow's order, channels last."""
    from twba_nets.runs.model import open_model
    network = evaluation.from_model(open_model(places.released(NAMES[0]) / "model.npz"))
    logits, maps = evaluation.run(network, digits.x_test[:2])
    x = torch.from_numpy(digits.x_test[:2]).permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        expected, theirs = network(x, return_spikes=True)
    np.testing.assert_array_equal(logits, expected.numpy())
    np.testing.assert_array_equal(maps["cnn4"], theirs["cnn4"].permute(0, 2, 3, 1).numpy())
