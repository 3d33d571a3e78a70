"""The recipe: the paper's schedule, the original's way of lowering the rate, JSON, and what is refused."""
import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from helpers import random_architecture
from twba_nets import datasets
from twba_nets.datasets.dataset import Dataset
from twba_nets.network import architecture as arch
from twba_nets.network.architecture import PAPER
from twba_nets.runs import card, recipe as recipes
from twba_nets.system import places
from twba_nets.system.errors import UserError


def test_the_papers():
    recipe = recipes.paper("twba")
    assert (recipe.epochs, recipe.batch_size, recipe.activation) == (600, 200, "binary")
    rates = [recipe.learning_rate(epoch) for epoch in (0, 199, 200, 399, 400, 599)]
    assert rates == [0.01, 0.01, 0.001, 0.001, 0.0001, 0.0001]


def test_lowering_the_rate_by_hand():
    recipe = recipes.paper("twba").with_learning_rate(0.002, 150)
    assert [recipe.learning_rate(epoch) for epoch in (0, 149, 150, 200, 599)] == [0.01, 0.01, 0.002, 0.002, 0.002]
    assert recipe.with_learning_rate(0.5, 0).learning_rate_steps == ((0, 0.5),)


def test_json(tmp_path):
    recipe = dataclasses.replace(recipes.digits("bwba"), activation="three-level", seed=7, limit_train=500, limit_test=400,
                                 hold_out=100, precise_batch_norm=True, teacher=({"file": "a/model.npz", "sha256": "1"},) * 2,
                                 architecture=random_architecture(0))
    recipe.save(tmp_path)
    assert card.load_recipe(tmp_path / "a checkpoint") == recipe
    assert json.loads((tmp_path / "recipe.json").read_text())["learning_rate_steps"][0] == [0, 0.005]
    assert card.load_recipe(tmp_path / "elsewhere" / "a checkpoint") is None


def test_linear_decay():
    """What the two runs of 100 epochs had as pairs: 0.01 * (1 - epoch / 100)."""
    recipe = recipes.Recipe("twba", epochs=100).with_linear_decay(0.01)
    assert len(recipe.learning_rate_steps) == 100
    assert [recipe.learning_rate(epoch) for epoch in (0, 1, 19, 50, 99)] == [0.01, 0.0099, 0.0081, 0.005, 0.0001]
    later = recipes.Recipe("twba", epochs=12).with_linear_decay(0.4, 10)
    assert [later.learning_rate(epoch) for epoch in (0, 9, 10, 11)] == [0.01, 0.01, 0.4, 0.2]


def test_initial_weights(tmp_path):
    recipe = recipes.paper("twba").with_initial_weights(tmp_path / "training.npz", "5ad")
    assert recipe.initial_weights == {"file": tmp_path.name + "/training.npz", "sha256": "5ad"}
    recipe.save(tmp_path)
    assert card.load_recipe(tmp_path / "a checkpoint") == recipe


def test_recipes_of_before_load(tmp_path):
    """Without initial weights, limits and other networks than the paper's; later with one teacher where there may be several."""
    fields = {"variant": "bwba", "activation": "three-level", "dataset": "cifar10", "epochs": 2, "batch_size": 200,
              "learning_rate_steps": [[0, 0.01], [1, 0.0099]], "seed": 0}
    (tmp_path / "recipe.json").write_text(json.dumps(fields))
    assert card.load_recipe(tmp_path / "a checkpoint") == recipes.Recipe(
        **dict(fields, learning_rate_steps=((0, 0.01), (1, 0.0099))), initial_weights=None, limit_train=None, limit_test=None,
        hold_out=None, teacher=None, precise_batch_norm=False, architecture=PAPER)
    teacher = {"file": "a/model.npz", "sha256": "1"}
    (tmp_path / "recipe.json").write_text(json.dumps(dict(fields, teacher=teacher)))
    assert card.load_recipe(tmp_path / "a checkpoint").teacher == (teacher,)


def test_an_earlier_name_of_the_activation(tmp_path):
    """An earlier run can be resumed: files and callers may use the earlier name."""
    recipes.Recipe("twba", activation="published").save(tmp_path)
    assert card.load_recipe(tmp_path / "a checkpoint").activation == "three-level"
    (tmp_path / "recipe.json").write_text((tmp_path / "recipe.json").read_text().replace("three-level", "published"))
    assert card.load_recipe(tmp_path / "a checkpoint") == recipes.Recipe("twba", activation="three-level")


FOREIGN = ["{", "[]", "", "null", "[" * 100000, '"twba"', '{"variant": "twba", "colour": 1}', '{"variant": "xwba"}',
           '{"variant": ["twba"]}', '{"variant": "twba", "learning_rate_steps": [[0]]}',
           '{"variant": "twba", "learning_rate_steps": [["0", 1], [2, 3]]}', '{"variant": "twba", "architecture": {}}']


@pytest.mark.parametrize("text", FOREIGN, ids=lambda text: text[:40])
def test_a_foreign_recipe_file(tmp_path, text):
    (tmp_path / "recipe.json").write_text(text)
    with pytest.raises(UserError, match="recipe.json: .*restore"):
        card.load_recipe(tmp_path / "a checkpoint")


@pytest.mark.parametrize("content", [b"[" * 100000, b"\xff\xfe{}"])
def test_a_recipe_file_that_is_no_json(tmp_path, content):
    (tmp_path / "recipe.json").write_bytes(content)
    with pytest.raises(UserError, match="recipe.json: "):
        card.load_recipe(tmp_path / "a checkpoint")


def test_a_foreign_recipe_in_a_card(tmp_path):
    """The error names the card, not a recipe.json that is not there."""
    (tmp_path / "model.npz").write_bytes(b"weights")
    found = {"sha256": hashlib.sha256(b"weights").hexdigest()}
    for recipe in ({}, {"recipe": None}, {"recipe": {"variant": "xwba"}}, {"recipe": {"variant": "twba", "epochs": 2.5}}):
        (tmp_path / "model.json").write_text(json.dumps(dict(found, **recipe)))
        with pytest.raises(UserError, match="model.json: "):
            card.load_recipe(tmp_path / "model.npz")


REFUSED = [
    ({"variant": "x"}, "variant 'x'"), ({"activation": "x"}, "activation 'x'"), ({"dataset": "mnist"}, "dataset 'mnist'"),
    ({"epochs": 0}, "epochs 0"), ({"epochs": 2.5}, "epochs 2.5"), ({"epochs": True}, "epochs True"),
    ({"epochs": 100001}, "epochs 100001 .*100000"), ({"batch_size": 0}, "batch_size 0"),
    ({"batch_size": 5.5}, "batch_size 5.5"), ({"batch_size": "200"}, "batch_size '200'"),
    ({"batch_size": 50001}, "batch_size 50001"), ({"seed": -1}, "seed -1"),
    ({"seed": True}, "seed True"), ({"seed": None}, "seed None"), ({"initial_weights": "model.npz"}, "initial_weights"),
    ({"initial_weights": {"file": 1, "sha256": "x"}}, "initial_weights"), ({"limit_train": True}, "limit_train True"),
    ({"hold_out": 0}, "hold_out 0"), ({"teacher": "model.npz"}, "teacher"),
    ({"teacher": [{"file": "model.npz"}]}, "teacher"), ({"teacher": 5}, "teacher"),
    ({"class_names": ["a"]}, "class_names .*10"), ({"class_names": tuple(range(10))}, "class_names"),
    ({"mirror": 1}, "mirror 1"), ({"mirror": "no"}, "mirror 'no'"), ({"data": "mine.npz"}, "data 'mine.npz'"),
    ({"data": {"path": "mine.npz"}}, "data "), ({"dataset": 3}, "dataset 3"),
    ({"precise_batch_norm": 1}, "precise_batch_norm 1"), ({"precise_batch_norm": None}, "precise_batch_norm None"),
    ({"limit_train": 199}, "limit_train 199 .*200, on"),
    ({"limit_test": 0}, "limit_test 0"), ({"limit_test": 2.5}, "limit_test 2.5"),
    ({"batch_size": 500, "limit_train": 499}, "limit_train 499")] + [
    ({"learning_rate_steps": steps}, "epoch 0 .*each epoch once")
    for steps in ((), ((5, 0.1),), ((0, 0.1), (0, 0.2)), ((0, 0.1), (2.5, 0.2)), ((False, 0.1),))] + [
    ({"learning_rate_steps": ((0, rate),)}, "learning rate .* above 0")
    for rate in (-0.1, 0, float("inf"), float("nan"), "0.1", True, None, 1e39, 1e-46)]


@pytest.mark.parametrize("change, message", REFUSED, ids=repr)
def test_refused(change, message):
    with pytest.raises(UserError, match=message):
        dataclasses.replace(recipes.paper("twba"), **change)


def test_other_steps_from_an_epoch_on():
    """What was trained before keeps its own rates."""
    recipe = recipes.paper("twba")
    assert recipe.with_steps([(0, 0.5), (500, 0.25)], 300).learning_rate_steps == (
        (0, 0.01), (200, 0.001), (300, 0.5), (500, 0.25))
    assert recipe.with_steps([(350, 0.5)], 300).learning_rate_steps == ((0, 0.01), (200, 0.001), (350, 0.5))
    assert recipe.with_steps([(0, 0.5)], 0).learning_rate_steps == ((0, 0.5),)


def test_whether_a_rate_decays_already():
    """A repeated command line, with --resume, does not start the decay again."""
    recipe = dataclasses.replace(recipes.paper("twba"), epochs=18).with_linear_decay(0.005)
    assert recipe.decays_from(0.005, 9) and not recipe.decays_from(0.004, 9)
    assert not dataclasses.replace(recipe, epochs=30).decays_from(0.005, 9)
    later = recipe.with_linear_decay(0.002, 9)
    assert later.decays_from(0.002, 12) and later.decays_from(0.002, 9) and not later.decays_from(0.005, 12)
    assert not later.decays_from(0.002, 8)


def test_the_title_of_data_of_ones_own():
    """Whatever the file is called, it is not the data set of that name."""
    assert "on cifar10," in recipes.paper("twba").with_data(Path("cifar10.npz")).title


def test_a_resumed_run_has_the_classes_it_began_with():
    """The data's digest does not cover their names."""
    images, labels = np.zeros((4, 8, 8, 3), np.uint8), np.arange(4, dtype=np.int32) % 2
    data = Dataset("mine", images, labels, images, labels, True, ("cat", "dog"))
    small = dataclasses.replace(recipes.paper("twba"), architecture=dataclasses.replace(PAPER, classes=2))
    recipe = small.with_data(Path("mine.npz")).with_loaded(data, "mine.npz")
    assert recipe.with_loaded(data, "mine.npz") == recipe
    with pytest.raises(UserError, match="class 0 is 'dog', but that of this run is 'cat'"):
        recipe.with_loaded(data._replace(class_names=("dog", "cat")), "mine.npz")


def test_data_sets_by_name():
    """A recipe accepts each of them, and no other name."""
    assert [recipes.of("bwba", name).source for name in datasets.NAMES] == list(datasets.NAMES)
    with pytest.raises(UserError, match="^mnist: no such file"):
        datasets.load("mnist", PAPER.picture_shape, PAPER.classes)


def test_the_order_of_an_epoch():
    """It never changes, so that runs can be resumed. Another seed or epoch gives another order."""
    assert recipes.epoch_order(10, seed=3, epoch=7).tolist() == [4, 5, 9, 6, 0, 1, 2, 3, 7, 8]
    orders = [recipes.epoch_order(100, *numbers).tolist() for numbers in ((3, 7), (3, 8), (4, 7))]
    assert all(sorted(order) == list(range(100)) for order in orders) and len(set(map(tuple, orders))) == 3


@pytest.mark.parametrize("change", [{"dataset": "digits"}, {"hold_out": 500}, {"limit_train": 500}, {"limit_test": 500},
                                    {"data": {"path": "cifar10.npz", "sha256": ""}},
                                    {"architecture": arch.read(places.NETWORKS / "small.toml")}], ids=str)
def test_other_networks_and_images_have_no_reported_accuracy(change):
    assert recipes.Recipe("twba", **change).reported is None
