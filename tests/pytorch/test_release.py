"""What ships beside a released model."""
import json
import shutil

import nir
import numpy as np
import onnx
import pytest

import twba_torch
from helpers import command_error, script
from twba_chip.formats import nir_graph as export_nir, onnx_model as export_onnx
from twba_chip.spiking import file as spiking_file, opening as exported
from twba_nets.network.architecture import PAPER
from twba_nets.network.quantisers import WEIGHTS
from twba_nets.runs import card
from twba_nets.system import places
from twba_nets.system.errors import UserError
from twba_nets.system.files import sha256

release = script("release")
NAMES = ("twba.npz", "twba.nir", "twba.onnx")


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """A copy of TWBA, released anew on a few digits: its name stands for the data."""
    folder = tmp_path_factory.mktemp("released")
    for name in ("model.npz", "model.json"):
        shutil.copy(str(places.released("twba") / name), str(folder / name))
    release.release(folder, "--dataset", "digits", "--limit", "4", "--robustness-images", "2")
    return folder


def test_the_card_has_the_files_digests(released):
    before, after = card.read(places.released("twba") / "model.npz"), card.read(released / "model.npz")
    assert after["files"] == {name: sha256(released / name) for name in NAMES}
    before.pop("files", None)
    assert {key: value for key, value in after.items() if key != "files"} == before
    assert json.loads((released / "report.json").read_text())["images"] == 4


def test_the_files_are_the_models(released):
    assert_shipped(released)


@pytest.mark.parametrize("variant", WEIGHTS)
def test_what_ships(variant):
    """After a new model: python docs/release.py."""
    assert_shipped(places.released(variant))


def assert_shipped(folder):
    """The files have the card's digests, and hold the network that its model gives now."""
    recorded, network = card.read(folder / "model.npz"), exported.open_network(folder / "model.npz")
    export, graph, model = [folder / f"{network.variant}{suffix}" for suffix in (".npz", ".nir", ".onnx")]
    assert recorded["files"] == {path.name: sha256(path) for path in (export, graph, model)}
    shipped = spiking_file.load(export)
    assert shipped.architecture == PAPER and shipped.arrays.keys() == network.arrays.keys()
    for name, array in network.arrays.items():
        np.testing.assert_array_equal(shipped.arrays[name], array, name)
    nodes, expected = nir.read(str(graph)).nodes, export_nir.build(network).nodes
    assert nodes.keys() == expected.keys()
    for stage in PAPER.hidden:
        for part in ("weight", "bias"):
            np.testing.assert_array_equal(getattr(nodes[stage.conv], part), getattr(expected[stage.conv], part), stage.conv)
    assert onnx.load(str(model)).graph == export_onnx.build(network).graph


def test_released_again_it_stays(released):
    first = [(released / name).read_bytes() for name in ("twba.npz", "twba.onnx")]
    release.release(released, "--dataset", "digits", "--limit", "4", "--robustness-images", "2")
    assert [(released / name).read_bytes() for name in ("twba.npz", "twba.onnx")] == first


@pytest.mark.parametrize("module", [release.export_onnx, release.report])  # before the card is written, and after
def test_a_release_that_fails_keeps_the_digests(module, released, monkeypatch):
    def fail(argv):
        raise UserError("no space left")
    before = (released / "model.json").read_text()
    monkeypatch.setattr(module, "main", fail)
    with pytest.raises(UserError, match="no space left"):
        release.release(released)
    assert (released / "model.json").read_text() == before


def test_without_a_card(tmp_path):
    shutil.copy(str(places.released("twba") / "model.npz"), str(tmp_path / "model.npz"))
    with pytest.raises(UserError, match="model.json"):
        release.release(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["model.npz"]


@pytest.mark.parametrize("recipe", [None, {}, [], "twba", {"variant": ["twba"]}, {"variant": "twba", "x": 1}])
def test_a_card_without_a_recipe(recipe, tmp_path):
    shutil.copy(str(places.released("twba") / "model.npz"), str(tmp_path / "model.npz"))
    found = dict(card.read(places.released("twba") / "model.npz"), recipe=recipe)
    (tmp_path / "model.json").write_text(json.dumps({key: value for key, value in found.items() if value is not None}))
    assert "model.json" in command_error(release.main, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.json", "model.npz"]


def test_a_network_without_a_recipe(tmp_path):
    """twba_torch.save does not know how a network was trained, so its folder is not a finished run."""
    twba_torch.save(twba_torch.load("twba"), tmp_path / "saved")
    before = {path.name for path in (tmp_path / "saved").iterdir()}
    assert "model.json" in command_error(release.main, tmp_path / "saved")
    assert {path.name for path in (tmp_path / "saved").iterdir()} == before
