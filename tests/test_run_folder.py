"""Checkpoints found in a run's folder without TensorFlow, as TensorFlow finds them; models opened."""
import builtins
import hashlib
import io
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow as tf

import twba_chip
from helpers import REPOSITORY, user_error
from twba_chip.spiking import file as spiking_file, opening as exported
from twba_nets.datasets import cifar10, pictures
from twba_nets.network.architecture import PAPER
from twba_nets.runs import card, npz, recipe as recipes, run_folder
from twba_nets.runs.model import open_model
from twba_nets.system.errors import UserError

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
    (NAMED % "a")[:-20], "[" * 1000, "model_checkpoint_path: " + "-" * 100000, "model_checkpoint_path: " + "(" * 90000 + "1",
    "model_checkpoint_path: {'a': \"b\"}\n", NAMED % "a" + "last_preserved_timestamp: 1+1\n"], ids=range(18))
def test_a_damaged_state_file_is_damaged_for_tensorflow_too(tmp_path, text):
    (tmp_path / "checkpoint").write_text(text)
    try:
        assert tf.train.get_checkpoint_state(str(tmp_path)) is None
    except ValueError:
        pass
    for function, source in ((run_folder.newest, tmp_path), (run_folder.locate, tmp_path / "checkpoint")):
        with pytest.raises(UserError, match=r"^[^\n]*checkpoint: [^\n]*name a checkpoint yourself[^\n]*$"):
            function(source)


@pytest.mark.parametrize("name", ["a\\000b", "folder/", "/"])
def test_a_state_file_that_names_no_file(tmp_path, name):
    (tmp_path / "checkpoint").write_text(NAMED % name)
    with pytest.raises(UserError, match="checkpoint: unreadable"):
        run_folder.newest(tmp_path)


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
    assert model.path == finished_run / "model.npz" and model.about == short_recipe.about
    assert all((model.values[name] == value).all() for name, value in npz.read_model(model.path, PAPER).items())


def test_open_what_nothing_describes(finished_run, tmp_path):
    """The variant is asked for first, then the activation; what the weights contradict is found."""
    shutil.copy(str(finished_run / "model.npz"), str(tmp_path))
    for asked, text in (({}, "--variant"), ({"variant": "twba"}, "--activation"),
                        ({"variant": "bwba", "activation": "binary"}, "twba checkpoint")):
        with pytest.raises(UserError, match="model.npz: .*" + text):
            open_model(tmp_path, **asked)
    about = open_model(tmp_path, "twba", "three-level").about
    assert about == recipes.Recipe("twba", activation="three-level").about and card.load_recipe(tmp_path / "model.npz") is None


@pytest.fixture
def opened(monkeypatch):
    """The paths of the files that are opened."""
    paths = []

    def watched(path, *arguments, **named):
        paths.append(str(path))
        return OPEN(path, *arguments, **named)
    for module in (builtins, io):
        monkeypatch.setattr(module, "open", watched)
    return paths


OPEN = open


def test_a_model_is_read_once(finished_run, opened, tmp_path):
    """Its digest, by which the card is its own, and its values: what takes its place meanwhile changes neither."""
    path = finished_run / "model.npz"
    assert open_model(path).card["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert opened.count(str(path)) == 2  # the second time by this test
    network = exported.open_network(path)
    assert opened.count(str(path)) == 3 and network.meta["source"]["card"] == card.read(path)
    spiking_file.write(tmp_path / "net.npz", network)
    exported.open_network(tmp_path / "net.npz")
    assert opened.count(str(tmp_path / "net.npz")) == 1


@pytest.mark.parametrize("asked, text", [({"variant": "bwba"}, "twba, not bwba"),
                                         ({"activation": "three-level"}, "binary, not three-level")])
def test_open_as_something_else(finished_run, asked, text):
    with pytest.raises(UserError, match=text):
        open_model(finished_run / "model.npz", **asked)


@pytest.mark.parametrize("path", ["x" * 5000, "x/" * 3000 + "model.npz"], ids=["name", "path"])
@pytest.mark.parametrize("read", [
    twba_chip.load, spiking_file.load, open_model, npz.read_model, npz.read_training, npz.read_epoch, run_folder.locate,
    run_folder.locate_npz, cifar10.load, pictures.read_picture], ids=lambda read: f"{read.__module__}.{read.__name__}")
def test_a_path_that_can_be_none(read, path):
    """The documented error replaces the system's."""
    rest = {npz.read_model: [PAPER], npz.read_training: [PAPER], pictures.read_picture: [32]}.get(read, [])
    line = user_error(read, Path(path), *rest)
    assert path[:100] in line and "name another" in line


def test_a_name_that_is_just_short_enough(finished_run, tmp_path):
    """A card or a TensorFlow checkpoint beside it would have too long a name."""
    model = tmp_path / ("m" * 251 + ".npz")
    shutil.copy(str(finished_run / "model.npz"), str(model))
    shutil.copy(str(finished_run / "recipe.json"), str(tmp_path))
    assert open_model(model).path == model
    assert exported.open_network(model).variant == "twba"


def test_no_framework_is_needed(finished_run):
    """Opening a model imports neither TensorFlow nor what draws."""
    code = ("import sys; from twba_nets.runs import model; print(model.open_model(sys.argv[1]).about.variant,"
            " sorted({'tensorflow', 'matplotlib', 'torch'} & set(sys.modules)))")
    output = subprocess.check_output([sys.executable, "-c", code, str(finished_run / "model.npz")], cwd=str(REPOSITORY))
    assert output == b"twba []\n"
