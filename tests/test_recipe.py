"""The recipe: the paper's schedule, the original's way of lowering the rate, JSON, and what is refused."""
import dataclasses
import json

import pytest

from twba_nets import recipe as recipes
from twba_nets.errors import UserError


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
    recipe = dataclasses.replace(recipes.digits("bwba"), activation="published", seed=7)
    recipe.save(tmp_path)
    assert recipes.load(tmp_path / "a checkpoint") == recipe
    assert json.loads((tmp_path / "recipe.json").read_text())["learning_rate_steps"][0] == [0, 0.005]
    assert recipes.load(tmp_path / "elsewhere" / "a checkpoint") is None


@pytest.mark.parametrize("text", ["{", "[]", '{"variant": "twba", "colour": 1}', '{"variant": "xwba"}'])
def test_a_foreign_recipe_file(tmp_path, text):
    (tmp_path / "recipe.json").write_text(text)
    with pytest.raises(UserError):
        recipes.load(tmp_path / "a checkpoint")


@pytest.mark.parametrize("content", [b"[" * 100000, b"\xff\xfe{}"])
def test_a_recipe_file_that_is_no_json(tmp_path, content):
    (tmp_path / "recipe.json").write_bytes(content)
    with pytest.raises(UserError, match="recipe.json: not a recipe of this project"):
        recipes.load(tmp_path / "a checkpoint")


@pytest.mark.parametrize("change", [
    {"variant": "x"}, {"activation": "x"}, {"epochs": 0}, {"batch_size": 0}, {"seed": -1},
    {"learning_rate_steps": ()}, {"learning_rate_steps": ((5, 0.1),)}, {"learning_rate_steps": ((0, -0.1),)}])
def test_refused(change):
    with pytest.raises(UserError):
        dataclasses.replace(recipes.paper("twba"), **change)
