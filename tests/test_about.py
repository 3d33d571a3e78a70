"""What a network is and was trained on: as JSON, in the card of a network that no run trained, in earlier files."""
import dataclasses
import json

import pytest

from helpers import OWN, random_variables, user_error
from twba_nets.network.architecture import PAPER
from twba_nets.runs import about as abouts, card, npz, recipe as recipes
from twba_nets.runs.about import About
from twba_nets.runs.model import open_model
from twba_nets.system import places

TWO = About("bwba", "three-level", dataclasses.replace(OWN, classes=2), "/data/mine", ("cat", "dog"))


@pytest.mark.parametrize("about", [TWO, TWO._replace(data=""), recipes.digits("twba").about], ids=["own", "unknown", "digits"])
def test_json_gives_back_what_was_written(about):
    found = abouts.from_json(json.loads(json.dumps(about.to_json())))
    assert found == about and isinstance(found.class_names, tuple)


def test_an_earlier_name_of_the_activation():
    assert abouts.from_json(dict(TWO.to_json(), activation="published")) == TWO


FOREIGN = [{"variant": "xwba"}, {"variant": ["twba"]}, {"variant": None}, {"activation": "sign"}, {"activation": None},
           {"architecture": None}, {"architecture": {}}, {"data": 3}, {"data": None}, {"class_names": ["cat"]},
           {"class_names": ["cat", 2]}, {"class_names": None}, {"colour": "red"}]


@pytest.mark.parametrize("change", FOREIGN, ids=str)
def test_what_is_no_network(change, tmp_path):
    """On its own and in a card, which is named."""
    with pytest.raises((ValueError, TypeError)):
        abouts.from_json(dict(TWO.to_json(), **change))
    (tmp_path / "model.npz").write_bytes(b"PK")
    card.write_saved(tmp_path / "model.npz", TWO, card.sha256(tmp_path / "model.npz"))
    found = json.loads((tmp_path / "model.json").read_text())
    (tmp_path / "model.json").write_text(json.dumps(dict(found, network=dict(found["network"], **change))))
    line = user_error(card.about_beside, tmp_path / "model.npz", card.read(tmp_path / "model.npz"))
    assert line.startswith(str(tmp_path / "model.json")) and "restore" in line


def test_a_model_that_no_run_trained(tmp_path):
    """Its card says what it is. It is not a recipe for resuming, and rejects another network's variables."""
    path, values = tmp_path / "model.npz", random_variables(architecture=TWO.architecture)
    card.write_saved(path, TWO, npz.save_model(path, values, TWO.architecture))
    assert card.load_recipe(path) is None
    with_zeros = "twba checkpoint"  # int8 of small latent weights
    assert with_zeros in user_error(open_model, path)
    about = TWO._replace(variant="twba")
    card.write_saved(path, about, npz.save_model(path, values, TWO.architecture))
    assert open_model(path).about == about
    card.write_saved(path, about._replace(architecture=OWN, class_names=tuple("0123456789")), card.sha256(path))
    assert "another network" in user_error(open_model, path)


@pytest.mark.parametrize("name", places.RELEASED)
def test_released_models_are_the_papers(name):
    """Their cards name no architecture, and some call the activation published."""
    about = open_model(places.released(name) / "model.npz").about
    assert about.architecture == PAPER and about.data == "cifar10" and about.class_names[0] == "airplane"
    assert about.variant == name.split("-")[0]
    assert about.activation == ("three-level" if name.endswith("published") else "binary")
