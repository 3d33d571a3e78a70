"""Checkpoints found in a run's folder without TensorFlow, as TensorFlow finds them; models opened."""
import os
import shutil
import subprocess
import sys

import pytest
import tensorflow as tf
from helpers import REPOSITORY

from twba_nets import card, npz, recipe as recipes, run_folder
from twba_nets.errors import UserError
from twba_nets.model import open_model

NAMED = 'model_checkpoint_path: "%s"\nall_model_checkpoint_paths: "before"\n'


@pytest.mark.parametrize("name", [
    "model_cifar10_advanced.ckpt-2", "/home/zcl/model_cifar10_advanced.ckpt", "a b/net.ckpt-7", "l\u00e4ufe/h\u00f6he.ckpt-1",
    'quo"te\'s.ckpt', "back\\slash.ckpt", "\u7f51\u7edc.ckpt"])
def test_the_newest_is_what_tensorflow_wrote(tmp_path, name):
    tf.train.update_checkpoint_state(str(tmp_path), name, ["before", name], all_model_checkpoint_timestamps=[1.5, 2e9],
                                     last_preserved_timestamp=3.5)
    state = tf.train.get_checkpoint_state(str(tmp_path))
    assert run_folder.newest(tmp_path) == tmp_path / os.path.basename(state.model_checkpoint_path)
    assert run_folder.newest(tmp_path).name == os.path.basename(name)


@pytest.mark.parametrize("text", [
    "", "\n", "garbage", "{", "\0" * 40, NAMED % "", NAMED % "a" + "more: 1\n", "all_model_checkpoint_paths: \"a\"\n",
    'model_checkpoint_path: "a', "model_checkpoint_path: a\n", "model_checkpoint_path: 3\n", (NAMED % "a")[:-3],
    (NAMED % "a")[:-20], "[" * 1000])
def test_a_damaged_state_file_is_damaged_for_tensorflow_too(tmp_path, text):
    (tmp_path / "checkpoint").write_text(text)
    try:
        assert tf.train.get_checkpoint_state(str(tmp_path)) is None
    except ValueError:
        pass
    for function, source in ((run_folder.newest, tmp_path), (run_folder.locate, tmp_path / "checkpoint")):
        with pytest.raises(UserError, match=r"^[^\n]*checkpoint: [^\n]*name a checkpoint yourself[^\n]*$"):
            function(source)


@pytest.mark.parametrize("content", [b"\xff\xfe", None])
def test_a_state_file_that_is_no_text(tmp_path, content):
    if content is None:
        (tmp_path / "checkpoint").mkdir()
    else:
        (tmp_path / "checkpoint").write_bytes(content)
    with pytest.raises(UserError, match="checkpoint: unreadable"):
        run_folder.newest(tmp_path)


def test_epochs():
    epochs = {"net.ckpt-12": 12, "model_cifar10_advanced.ckpt": None, "net.ckpt-12.index": None, "net-12": None}
    assert {name: run_folder.epoch_of(run_folder.Path(name)) for name in epochs} == epochs


def test_open_a_run(finished_run, short_recipe):
    model = open_model(finished_run / "model.npz")
    assert model.path == finished_run / "model.npz" and model.recipe == short_recipe
    assert all((model.values[name] == value).all() for name, value in npz.read_model(model.path).items())


def test_open_what_nothing_describes(finished_run, tmp_path):
    """The variant is asked for first, then the activation; what the weights contradict is found."""
    shutil.copy(str(finished_run / "model.npz"), str(tmp_path))
    for asked, text in (({}, "--variant"), ({"variant": "twba"}, "--activation"),
                        ({"variant": "bwba", "activation": "binary"}, "twba checkpoint")):
        with pytest.raises(UserError, match="model.npz: .*" + text):
            open_model(tmp_path, **asked)
    recipe = open_model(tmp_path, "twba", "published").recipe
    assert recipe == recipes.Recipe("twba", activation="published") and card.load_recipe(tmp_path / "model.npz") is None


@pytest.mark.parametrize("asked, text", [({"variant": "bwba"}, "twba, not bwba"),
                                         ({"activation": "published"}, "binary, not published")])
def test_open_as_something_else(finished_run, asked, text):
    with pytest.raises(UserError, match=text):
        open_model(finished_run / "model.npz", **asked)


def test_no_framework_is_needed(finished_run):
    """Opening a model imports neither TensorFlow nor what draws."""
    code = ("import sys; from twba_nets import model; print(model.open_model(sys.argv[1]).recipe.variant,"
            " sorted({'tensorflow', 'matplotlib', 'torch'} & set(sys.modules)))")
    output = subprocess.check_output([sys.executable, "-c", code, str(finished_run / "model.npz")], cwd=str(REPOSITORY))
    assert output == b"twba []\n"
