"""Training from end to end: the record of a run, and that a stopped and resumed run equals an uninterrupted one."""
import csv
import dataclasses
import errno
import fcntl
import hashlib
import json
import re
import shutil
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorflow.python.lib.io import file_io

from helpers import OWN, Clock, Snapshots, logged, scalars, start_training
from twba_chip.spiking import file as spiking_file
from twba_nets import datasets, system
from twba_nets.network.architecture import PAPER, is_quantised
from twba_nets.runs import card, journal, npz, recipe as recipes, run_folder
from twba_nets.system import progress
from twba_nets.system.errors import UserError
from twba_nets.system.files import atomic_write, claimed
from twba_tensorflow import checkpoint, convert, export, quantisers, scripts, training
from twba_tensorflow.evaluation import Result
from twba_tensorflow.graphs import GRAPHS


def wait_for(path, process):
    """Wait for a file, however long the machine takes, or for the process's end."""
    while not path.exists() and process.poll() is None:
        time.sleep(0.1)
    assert path.exists(), process.communicate(timeout=300)


@pytest.mark.slow
def test_killed_and_resumed_equals_uninterrupted(finished_run, tmp_path):
    """kill -9 in the second epoch, then --resume: all 596 variables are the uninterrupted run's, bit for bit.

    Single-threaded, as finished_run: TensorFlow promises no order of summation among threads.
    """
    folder = tmp_path / "run"
    process = start_training(folder, "--dataset", "digits", "--epochs", "2")
    wait_for(folder / "checkpoint", process)
    time.sleep(np.random.uniform(0, 1))
    process.kill()
    process.communicate(timeout=300)
    process = start_training(folder, "--resume")  # recipe, epochs and seed are the run's
    output, error = process.communicate(timeout=300)
    assert process.returncode == 0, error
    assert run_folder.epoch_of(run_folder.newest(folder)) == 2

    expected, found = (tf.train.NewCheckpointReader(str(run_folder.newest(f))) for f in (finished_run, folder))
    for name in expected.get_variable_to_shape_map():
        np.testing.assert_array_equal(found.get_tensor(name), expected.get_tensor(name), name)
    figures = [[(row["epoch"], row["train_loss"], row["test_loss"], row["spikes_per_image"])
                for row in journal.read_log(f)] for f in (finished_run, folder)]
    assert figures[0] == figures[1]


@pytest.mark.slow
def test_a_run_begins_with_the_weights_it_is_given(finished_run, tmp_path):
    """At a rate too small to move a weight, the new run ends with the old one's kernels. Adam starts from zero."""
    process = start_training(tmp_path / "run", "--dataset", "digits", "--epochs", "1", "--learning-rate", "1e-30",
                             "--activation", "three-level", "--initial-weights", finished_run)
    _, error = process.communicate(timeout=300)
    assert process.returncode == 0, error
    before, after = (checkpoint.read_training(run_folder.newest(folder), PAPER) for folder in (finished_run, tmp_path / "run"))
    for name in (name for name in before if name.endswith(("/kernel", "/W_conv2d", "/W", "/gamma"))):
        np.testing.assert_array_equal(after[name], before[name], name)
    assert after["beta1_power"] == pytest.approx(0.9 ** 4)  # three steps, and the one that TensorFlow is ahead
    assert not (after["model/bn8/moving_mean"] == before["model/bn8/moving_mean"]).all()
    source = json.loads((tmp_path / "run" / "model.json").read_text())["recipe"]["initial_weights"]
    assert source["file"].endswith("model_cifar10_advanced.ckpt-2.data-00000-of-00001")


def test_an_epoch_tells_how_far_it_is(monkeypatch, capsys):
    """Loss and accuracy are those of the images so far."""
    monkeypatch.setattr(progress, "EVERY", 0)
    figures = iter([training.StepFigures(2.0, 25, 50, None), training.StepFigures(1.0, 35, 50, None),
                    training.StepFigures(4.0, 0, 10, None)])
    session = SimpleNamespace(run=lambda fetches, feed: next(figures))
    step = training.Step(110, SimpleNamespace(start=lambda session, epoch: None), None, None, [])
    trained = training.train_epoch(session, step, recipes.digits("twba"), 2)
    lines = re.sub(r"[\d.]+ images/s, \d+ s left", "...", capsys.readouterr().err).splitlines()
    assert lines == ["epoch 3/6: 50 of 110 images, ..., loss 2.000, accuracy 0.500",
                     "epoch 3/6: 100 of 110 images, ..., loss 1.500, accuracy 0.600"]
    assert (trained.loss, trained.accuracy) == pytest.approx((190 / 110, 60 / 110))


def test_seconds_of_a_clock_that_is_set_back(train, tmp_path, monkeypatch):
    """An epoch's seconds are the elapsed ones, not the wall clock's."""
    clock = Clock()
    monkeypatch.setattr(training, "time", clock)
    session = SimpleNamespace(run=lambda fetches, feed: clock.pass_minute() or training.StepFigures(2.0, 25, 55, None))
    step = training.Step(110, SimpleNamespace(start=lambda session, epoch: None), None, None, [])
    assert TRAIN_EPOCH(session, step, recipes.digits("twba"), 0).seconds == 120
    monkeypatch.setattr(Simple, "evaluate", lambda *_: clock.pass_minute() or Result(2.5, 0.125, np.ones((60, 8))))
    train(tmp_path / "run")
    assert [float(row["seconds"]) for row in journal.read_log(tmp_path / "run")] == pytest.approx([60.1] * 3)


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted(tmp_path, signal_number):
    """In the first epoch, with nothing to resume from."""
    process = start_training(tmp_path / "run", "--dataset", "digits", "--epochs", "50")
    wait_for(tmp_path / "run" / "recipe.json", process)
    process.send_signal(signal_number)
    _, error = process.communicate(timeout=300)
    assert process.returncode == 130
    assert error == "\nstopped; no epoch is saved yet: begin again\n"


@pytest.mark.slow
def test_interrupted_as_soon_as_an_epoch_is_told(tmp_path):
    process = start_training(tmp_path / "run", "--dataset", "digits", "--epochs", "50")
    while not process.stdout.readline().startswith("epoch 1/50") and process.poll() is None:
        pass
    process.terminate()
    _, error = process.communicate(timeout=300)
    assert process.returncode == 130
    assert error.startswith("\nstopped; ") and "--resume" in error
    assert run_folder.epoch_of(run_folder.newest(tmp_path / "run")) >= 1


TRAIN_EPOCH = training.train_epoch


class Simple:
    """In place of training's graph: the variables alone, of which an epoch changes one."""

    def __init__(self, monkeypatch, few_digits):
        monkeypatch.setattr(training, "build_step", self.build_step)
        monkeypatch.setattr(training, "train_epoch", self.train_epoch)
        monkeypatch.setattr(training, "Evaluator", lambda *_, **__: self)
        monkeypatch.setattr(datasets, "load", lambda *_: few_digits)

    def build_step(self, recipe, dataset, graph):
        assert graph in GRAPHS and tf.get_default_graph().seed == recipe.seed
        variables = {name: tf.get_variable(name, shape, initializer=tf.constant_initializer(0.5))
                     for name, shape in recipe.architecture.training_variable_shapes.items()}
        shift = next(variable for name, variable in variables.items() if name.endswith("beta"))
        self.change = [tf.assign_sub(variable, tf.ones(shift.shape)) for variable in (
            shift, variables[f"{shift.op.name}/Adam"])]
        weights = next(variable for name, variable in variables.items() if is_quantised(name))
        self.turn = tf.assign(weights, -weights)
        params = [quantisers.WEIGHTS["twba"](variables[name]) if is_quantised(name) else variables[name]
                  for name in recipe.architecture.variable_shapes]
        return training.Step(len(dataset.x_train), None, None, None, params)

    def train_epoch(self, session, step, recipe, epoch):
        session.run([self.change, self.turn])
        return journal.Trained(2.0, 0.25, 0.1)

    def evaluate(self, session):
        return Result(2.5, 0.125, np.ones((60, 8)))


@pytest.fixture
def train(monkeypatch, few_digits):
    """Train a small network for three epochs in this process, but by Simple: a function of the folder and further flags."""
    Simple(monkeypatch, few_digits)
    recipe = dataclasses.replace(recipes.digits("twba"), architecture=OWN)
    return lambda folder, *flags: scripts.train(recipe, argv=["--output", str(folder), "--epochs", "3", *flags])


def test_a_resumed_run_goes_on_with_the_epochs_number(train, tmp_path, monkeypatch):
    """Order, augmentation and learning rate depend on it. An epoch is told only after it is saved."""
    epochs, told, train_epoch = [], [], training.train_epoch
    monkeypatch.setattr(training, "train_epoch", lambda *step: epochs.append(step[-1]) or train_epoch(*step))
    monkeypatch.setattr(journal.Journal, "tell", lambda _, row: told.append((row.epoch, run_folder.newest(tmp_path).name)))
    train(tmp_path, "--epochs", "1")
    train(tmp_path, "--resume")
    assert epochs == [0, 1, 2] and told == [(epoch, f"model_cifar10_advanced.ckpt-{epoch}") for epoch in (1, 2, 3)]


def test_a_return_that_pytorchs_checkpoint_would_undo(train, tmp_path):
    """It would stay the newest, whatever names the older one: --resume would go on with it."""
    train(tmp_path, "--epochs", "1")
    convert.main([str(tmp_path)])
    older = tmp_path / "older.npz"
    (tmp_path / "training.npz").rename(older)
    train(tmp_path, "--resume", "--epochs", "2")
    convert.main([str(tmp_path)])
    for file in (*tmp_path.glob("*.ckpt-2.*"), tmp_path / "checkpoint"):
        file.unlink()  # now PyTorch alone is that far
    for start in (older, tmp_path / "model_cifar10_advanced.ckpt-1"):
        with pytest.raises(SystemExit, match=f"error: {start}: PyTorch took this run to epoch 2 .training.npz.: "):
            train(tmp_path, "--resume", str(start))


def test_a_checkpoint_of_the_original_that_was_converted(train, tmp_path):
    """The converted one is not newer: --initial-epoch says its epoch."""
    train(tmp_path, "--epochs", "1")
    for file in tmp_path.glob("*.ckpt-1.*"):
        file.rename(str(file).replace(".ckpt-1.", ".ckpt."))
    (tmp_path / "checkpoint").unlink()
    original = [str(tmp_path / "model_cifar10_advanced.ckpt"), "--initial-epoch", "2"]
    convert.main(original)
    assert run_folder.newest(tmp_path).name == "training.npz"
    train(tmp_path, "--resume", *original)
    assert run_folder.newest(tmp_path).name == "model_cifar10_advanced.ckpt-3"


def test_the_card_names_the_graph(train, tmp_path):
    """That both graphs train alike is test_network.py's."""
    for graph, flags in (("fast", []), ("published", ["--resume", "--epochs", "4", "--graph", "published"])):
        train(tmp_path / "run", *flags)
        card = json.loads((tmp_path / "run" / "model.json").read_text())
        assert card["provenance"][-1]["versions"]["graph"] == graph


def test_the_files_of_a_run_of_ones_own_network(train, tmp_path):
    """It is converted, exported and evaluated by the table in its recipe."""
    run, summaries = tmp_path / "run", []
    train(run, "--epochs", "1")
    convert.main([str(run)])
    assert len(npz.read_training(run / "training.npz", OWN)) == len(OWN.training_variable_shapes)
    export.main([str(run), str(tmp_path / "net.npz")])
    assert spiking_file.load(tmp_path / "net.npz").architecture == OWN
    for graph in GRAPHS:
        figures = tmp_path / graph
        scripts.count_spikes("twba", ["--checkpoint", str(run), "--limit", "7", "--graph", graph, "--json", str(figures)])
        summaries.append(json.loads(figures.read_text()))
    assert summaries[0] == summaries[1] and summaries[0]["checkpoint"] == str(run / "model_cifar10_advanced.ckpt-1")
    assert summaries[0]["images"] == 7 and [row["map"] for row in summaries[0]["maps"]] == list(OWN.counted_maps)


def test_a_network_that_cannot_be_exported(train, tmp_path, monkeypatch, capsys):
    """It is told before the hours of training, not after them."""
    most = max(stage.fan_in for stage in OWN.hidden)
    for limit in (most, most - 1):
        monkeypatch.setattr(card, "MOST_SYNAPSES", limit)
        train(tmp_path / str(limit), "--epochs", "1")
        line = f"a neuron has {most} synapses; the network can be trained, but an export holds only {limit}: "
        assert (line in capsys.readouterr().err) is (limit < most)


def told_places(folder):
    """Which epochs were trained by which processor, as the card says."""
    return [(*span["epochs"], span["device"]) for span in card.read(folder / "model.npz")["provenance"]]


def test_the_card_of_a_run_that_went_elsewhere(train, tmp_path, monkeypatch):
    """Another machine continues it, in the same folder and in another one; code without a record began it."""
    monkeypatch.setattr(card, "cpu_name", lambda: "one")
    train(tmp_path / "run")
    monkeypatch.setattr(card, "cpu_name", lambda: "other")
    train(tmp_path / "new", "--resume", str(tmp_path / "run"), "--epochs", "4")
    train(tmp_path / "run", "--resume", "--epochs", "5")
    assert told_places(tmp_path / "run") == [(1, 3, "one"), (4, 5, "other")]
    assert told_places(tmp_path / "new") == [(1, 3, "one"), (4, 4, "other")]
    seconds = [card.read(tmp_path / name / "model.npz")["training_seconds"] for name in ("run", "new")]
    assert seconds == [pytest.approx(sum(float(row["seconds"]) for row in journal.read_log(tmp_path / "run"))), None]
    (tmp_path / "run" / "provenance.json").unlink()
    train(tmp_path / "run", "--resume", "--epochs", "6")
    assert told_places(tmp_path / "run") == [(1, 5, None), (6, 6, "other")]


def test_the_log_of_a_run_whose_checkpoint_is_gone(train, tmp_path):
    """A run that goes on in its folder does not take its seconds and accuracies for its own."""
    train(tmp_path / "run")
    train(tmp_path / "other")
    for path in (tmp_path / "other").iterdir():
        if path.name != "log.csv":
            path.unlink()
    train(tmp_path / "other", "--resume", str(tmp_path / "run"), "--epochs", "4")
    assert [row["epoch"] for row in journal.read_log(tmp_path / "other")] == ["4"]
    assert card.read(tmp_path / "other" / "model.npz")["training_seconds"] is None


def test_a_repeated_command_keeps_a_decay(train, tmp_path):
    """With --resume it does not start again. Here a run of four epochs was stopped after two."""
    flags = ["--linear-decay", "0.01", "--epochs", "4"]
    train(tmp_path / "whole", *flags)
    train(tmp_path / "run", "--epochs", "2")
    card.load_recipe(tmp_path / "whole" / "model.npz").save(tmp_path / "run")
    (tmp_path / "run" / "model.json").unlink()
    train(tmp_path / "run", "--resume", *flags)
    assert [row["learning_rate"] for row in journal.read_log(tmp_path / "run")][2:] == ["0.005", "0.0025"]


def test_a_card_that_another_machine_writes(train, tmp_path, monkeypatch):
    """A run was killed before its card: the machine that completes it has trained nothing."""
    monkeypatch.setattr(card, "cpu_name", lambda: "one")
    train(tmp_path / "run")
    (tmp_path / "run" / "model.json").unlink()
    monkeypatch.setattr(card, "cpu_name", lambda: "other")
    train(tmp_path / "run", "--resume")
    assert told_places(tmp_path / "run") == [(1, 3, "one")]


def test_initial_weights_that_are_replaced_while_they_are_read(train, tmp_path, monkeypatch):
    """The recipe has the digest of the file whose weights the run began with."""
    for name in ("one", "other"):
        train(tmp_path / name, "--epochs", "1", *["--seed", "1"] * (name == "other"))
    files = [run_folder.data_file(run_folder.newest(tmp_path / name)) for name in ("one", "other")]
    digest, reader = hashlib.sha256(files[0].read_bytes()).hexdigest(), tf.train.NewCheckpointReader
    values = checkpoint.read_training(run_folder.newest(tmp_path / "other"), OWN)
    values["model/norm1/beta"] += 5
    with tf.Graph().as_default(), tf.Session() as session:
        variables = {name: tf.get_variable(name, initializer=value) for name, value in values.items()}
        session.run(tf.global_variables_initializer())
        tf.train.Saver(variables).save(session, str(tmp_path / "replacement"), write_meta_graph=False)

    def replaced(prefix):
        for file in (run_folder.index_file, run_folder.data_file):
            shutil.copy(str(file(tmp_path / "replacement")), str(file(run_folder.newest(tmp_path / "one"))))
        return reader(prefix)

    monkeypatch.setattr(tf.train, "NewCheckpointReader", replaced)
    train(tmp_path / "run", "--initial-weights", str(tmp_path / "one"), "--epochs", "1")
    monkeypatch.undo()
    assert card.read(tmp_path / "run" / "model.npz")["recipe"]["initial_weights"]["sha256"] == digest
    assert (checkpoint.read(run_folder.newest(tmp_path / "run"), OWN)["model/norm1/beta"] == 0.5 - 2).all()  # two epochs


def figures(folder):
    return [(row["epoch"], row["test_loss"]) for row in journal.read_log(folder)]


def test_killed_at_any_moment_of_the_last_save(train, tmp_path, monkeypatch):
    """Whenever the last epoch's save is cut short, the next run ends with the files of an uninterrupted one."""
    whole = tmp_path / "whole"
    with monkeypatch.context() as watching:
        snapshots = Snapshots(whole, tmp_path, watching)
        for owner, name in ((tf.train.Saver, "save"), (file_io, "rename"), (Path, "unlink")):
            watching.setattr(owner, name, snapshots.before(getattr(owner, name)))
        train(whole)
    last_log = max(number for number, folder in enumerate(snapshots.taken) if len(figures(folder)) == 2)
    kills = snapshots.taken[last_log:]
    # log, provenance, checkpoint, model.npz, the naming of the newest, two removals, the curve, the card
    assert len(kills) == 9
    for folder in kills:
        train(folder, "--resume")
        assert names(folder) == names(whole) and figures(folder) == figures(whole)
        values, expected = (checkpoint.read_training(run_folder.newest(f), OWN) for f in (folder, whole))
        assert all((values[name] == expected[name]).all() for name in expected)
        values, expected = (checkpoint.read(f / "model.npz", OWN) for f in (folder, whole))
        assert all((values[name] == expected[name]).all() for name in expected)
        assert card.read(folder / "model.npz")["epochs"] == 3


def names(folder):
    return {path.name for path in folder.iterdir() if "tfevents" not in path.name}


def test_log(finished_run, short_recipe):
    rows = journal.read_log(finished_run)
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert [row["step"] for row in rows] == ["3", "6"]  # 110 images in batches of 50: the last one holds 10
    assert [float(row["learning_rate"]) for row in rows] == [0.005, 0.005]
    for row in rows:
        assert 0 <= float(row["test_accuracy"]) <= 1 and 0 < float(row["train_loss"]) < 10
        # about half of the 220,160 counted neurons fire
        assert 80000 < float(row["spikes_per_image"]) < 140000


def test_summaries(finished_run):
    rows = journal.read_log(finished_run)
    path, = finished_run.glob("events.*")
    values = {(event.step, value.tag): value.simple_value
              for event in tf.train.summary_iterator(str(path)) for value in event.summary.value}
    for row in rows:
        for tag in ("train_loss", "test_accuracy", "learning_rate"):
            assert values[int(row["epoch"]), tag] == pytest.approx(float(row[tag]), rel=1e-6)


@pytest.mark.parametrize("name", ["l\u00e4ufe", "\u7f51\u7edc", "l\udce4ufe", "a\nb", "$x^_{\\frac"], ids=ascii)
def test_a_curve_has_whatever_name_a_folder_has(name, finished_run, tmp_path):
    """The run's folder may have any name, and so may its data's, which is in the title."""
    folder = tmp_path / name
    folder.mkdir()
    shutil.copy(str(finished_run / "log.csv"), str(folder))
    journal.draw_curve(folder, recipes.paper("twba").with_data(folder))
    assert (folder / "learning_curve.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("flags", [[], ["--epochs", "5"]])
def test_summaries_that_a_kill_left_out(train, tmp_path, flags):
    """A run that is completed writes them, and so does one that is continued."""
    train(tmp_path)
    events, = tmp_path.glob("events.*")
    events.write_bytes(events.read_bytes()[:400])  # some of the first epoch's
    (tmp_path / "model.json").unlink()
    before = [row["finished_at"] for row in journal.read_log(tmp_path)]
    train(tmp_path, "--resume", *flags)
    assert scalars(tmp_path) == logged(tmp_path) and len(logged(tmp_path)["test_loss"]) == (5 if flags else 3)
    found = EventAccumulator(str(tmp_path)).Reload().Scalars("test_loss")
    assert [time.strftime(journal.TIME, time.gmtime(event.wall_time)) for event in found][:3] == before


def test_a_run_does_without_summaries(train, tmp_path, monkeypatch, capsys):
    """A failure is reported once, and the next run makes up for it."""
    def fail(*_):
        raise OSError("the disk of the summaries is full")

    with monkeypatch.context() as failing:
        failing.setattr(tf.summary.FileWriter, "add_event", fail)
        train(tmp_path)
    assert capsys.readouterr().err.count("the disk of the summaries is full") == 1
    assert card.read(tmp_path / "model.npz")["epochs"] == 3
    train(tmp_path, "--resume", "--epochs", "4")
    assert scalars(tmp_path) == logged(tmp_path) and len(logged(tmp_path)["test_loss"]) == 4


def test_a_run_does_without_matplotlib(train, tmp_path, monkeypatch, capsys):
    """It ends, and is known to have ended."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "twba_nets.system.drawing", raising=False)
    monkeypatch.delattr(system, "drawing", raising=False)
    train(tmp_path)
    error = capsys.readouterr().err
    assert error.count("warning: ") == 3 and "learning_curve.png" in error and "matplotlib" in error
    assert card.read(tmp_path / "model.npz")["epochs"] == 3 and not (tmp_path / "learning_curve.png").exists()
    train(tmp_path, "--resume")
    out, error = capsys.readouterr()
    assert "3 of 3 epochs are done" in out and "completed" not in out and error == ""


def test_learning_curve(drawn, tmp_path):
    """Accuracy and loss, each of training and test, over the epochs: other numbers in each. The title says whose they are."""
    folder, fields = tmp_path / "runs" / "a $b$", dict.fromkeys(journal.FIELDS, "1")
    rows = [{**fields, "epoch": str(epoch), **{field: str(epoch * factor) for field, factor in (
        ("train_accuracy", 0.1), ("test_accuracy", 0.2), ("train_loss", 3), ("test_loss", 4))}} for epoch in (1, 2, 4)]
    folder.mkdir(parents=True)
    (folder / "log.csv").write_text("".join(",".join(line) + "\n" for line in [
        journal.FIELDS, *([row[field] for field in journal.FIELDS] for row in rows)]))
    journal.draw_curve(folder, recipes.Recipe("bwba", activation="three-level", limit_train=500).with_data(Path("data/a $b$")))
    title = drawn[0].figure._suptitle.get_text()
    assert title == r"BWBA on a \$b\$ (first 500 training images), 600 epochs, three-level activations"
    assert (folder / "learning_curve.png").read_bytes().startswith(b"\x89PNG")
    curves = {axis.get_ylabel(): {line.get_label(): line.get_xydata().tolist() for line in axis.lines} for axis in drawn}
    assert curves == {quantity: {part: [[epoch, float(row[f"{part}_{quantity}"])] for epoch, row in zip((1, 2, 4), rows)]
                                 for part in ("train", "test")} for quantity in ("accuracy", "loss")}
    assert [[text.get_text() for text in axis.get_legend().get_texts()] for axis in drawn] == [["train", "test"]] * 2


@pytest.mark.parametrize("change, begun", [
    ({}, ""), ({"initial_weights": {"file": "twba-published/training.npz", "sha256": ""}}, " from twba-published/training.npz")])
def test_the_curve_of_the_papers_network(drawn, finished_run, tmp_path, change, begun):
    """Its title says what was trained, and a line is at the accuracy that the paper reports."""
    shutil.copy(str(finished_run / "log.csv"), str(tmp_path))
    journal.draw_curve(tmp_path, recipes.Recipe("twba", **change))
    assert drawn[0].figure._suptitle.get_text() == f"TWBA on CIFAR-10, 600 epochs{begun}, binary activations"
    line = drawn[0].lines[-1]
    assert set(line.get_ydata()) == {0.8819} and line.get_label() == "reported: 88.19 %"
    assert "reported: 88.19 %" in [text.get_text() for text in drawn[0].get_legend().get_texts()] and len(drawn[1].lines) == 2


def test_rows_beyond_the_checkpoint_are_dropped(finished_run, tmp_path):
    """A kill between the log's row and the checkpoint leaves a row that the resumed run writes again."""
    shutil.copy(str(finished_run / "log.csv"), str(tmp_path))
    journal.Journal(tmp_path, recipes.digits("twba"), epochs_done=1)
    assert [row["epoch"] for row in journal.read_log(tmp_path)] == ["1"]


@pytest.mark.parametrize("damage, message", [
    (lambda text: b"", "its first line is not epoch,step"),
    (lambda text: b"\xff\xfe" + text, "decode"),
    (lambda text: text[:20] + b"\0" + text[20:], "NUL|first line"),
    (lambda text: text[:-60], "line 3 .*12 fields"),
    (lambda text: text[:-1] + b",1\n", "line 3 .*12 fields"),
    (lambda text: text.replace(b"\n1,", b"\none,"), "line 2: epoch is 'one'"),
    (lambda text: text.replace(b",0.005,", b",nan,"), "line 2: learning_rate is 'nan'"),
    (lambda text: text.replace(b",0.005,", b",,"), "line 2: learning_rate is ''"),
    (lambda text: text.replace(b"\n2,", b"\n2.5,"), "line 3: epoch 2.5"),
    (lambda text: text.replace(b"\n2,", b"\n1,"), "line 3: epoch 1 comes after 1"),
    (lambda text: text.replace(b"test_loss,", b""), "its first line is not")])
def test_damaged_log(finished_run, tmp_path, damage, message):
    text = (finished_run / "log.csv").read_bytes()
    (tmp_path / "log.csv").write_bytes(damage(text))
    with pytest.raises(UserError, match=r"log.csv: .*(%s).*: restore it" % message):
        journal.read_log(tmp_path)


def test_a_damaged_log_is_found_before_training(train, finished_run, tmp_path):
    run = Path(shutil.copytree(str(finished_run), str(tmp_path / "run")))
    (run / "log.csv").write_text("none")
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    with pytest.raises(SystemExit, match="log.csv: damaged"):
        train(run, "--resume")
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before


def test_variables_that_are_no_numbers_are_not_saved(train, tmp_path, monkeypatch):
    """The loss may not show them, because a NaN is quantised to 0."""
    train(tmp_path / "run", "--epochs", "1")

    def diverge(session, step, recipe, epoch):
        checkpoint.assign(session, {"model/conv3_1/W_conv2d/Adam": np.full(OWN.variable_shapes["model/conv3_1/W_conv2d"],
                                                                           np.nan)})
        return journal.Trained(2.0, 0.25, 0.1)

    monkeypatch.setattr(training, "train_epoch", diverge)
    with pytest.raises(SystemExit, match="error: model/conv3_1/W_conv2d/Adam holds values that are not finite in epoch 2: "
                       "continue from the last checkpoint with --resume and a lower --learning-rate"):
        train(tmp_path / "run", "--resume", "--epochs", "2")
    assert run_folder.newest(tmp_path / "run").name == "model_cifar10_advanced.ckpt-1"


def test_a_loss_that_is_no_number(finished_run, tmp_path):
    """A row that the log cannot hold is not written, and the error names a remedy that exists."""
    shutil.copy(str(finished_run / "log.csv"), str(tmp_path))
    log = journal.Journal(tmp_path, recipes.digits("twba"), 1)
    row = journal.make_row(recipes.digits("twba"), 1, 110, journal.Trained(2.0, 0.25, 0.1),
                           journal.Tested(float("inf"), 0.125, 8.0, 0.1))
    with pytest.raises(UserError, match="test loss is inf in epoch 2: .*--resume"):
        log.finish_epoch(row, None, lambda: None)
    assert len(journal.read_log(tmp_path)) == 1
    with pytest.raises(UserError, match="loss is nan in epoch 1: .*--learning-rate"):
        journal.require_finite("loss", np.float32("nan"), 1)


def test_a_row(tmp_path):
    """110 images in batches of 50 are three steps an epoch; the seconds are of training and test, the speed of training."""
    row = journal.make_row(recipes.digits("twba"), 3, 110, journal.Trained(2.0, 0.25, 10.0), journal.Tested(2.5, 0.125, 8.0, 1.0))
    assert row._asdict() == dict(epoch=4, step=12, learning_rate=0.0025, train_loss=2.0, train_accuracy=0.25, test_loss=2.5,
                                 test_accuracy=0.125, spikes_per_image=8.0, images_per_second=11.0, seconds=11.0,
                                 precise_batch_norm=0)


@pytest.mark.parametrize("flags", [[], ["--resume"]])
def test_another_run_ended_before_this_one_claimed_the_folder(train, finished_run, tmp_path, monkeypatch, flags):
    folder, load = tmp_path / "run", datasets.load
    if flags:
        shutil.copytree(str(finished_run), str(folder))

    def load_slowly(*asked):
        monkeypatch.setattr(datasets, "load", load)
        train(folder, *flags)
        return load(*asked)

    monkeypatch.setattr(datasets, "load", load_slowly)
    with pytest.raises(SystemExit, match="run: (holds a run|another process)"):
        train(folder, "--epochs", "9", *flags)
    assert run_folder.epoch_of(run_folder.newest(folder)) == 3 and card.read(folder / "model.npz")["epochs"] == 3


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS])
def test_a_file_system_without_locks(tmp_path, monkeypatch, capsys, number):
    def unsupported(*_):
        raise OSError(number, "what the system says")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    with claimed(tmp_path / "run"):
        assert (tmp_path / "run").is_dir()
    error = capsys.readouterr().err
    assert error.startswith("warning: %s: its file system has no locks (what the system says)" % (tmp_path / "run"))
    assert error.count("\n") == 1


def test_a_claim_removes_what_killed_processes_left(tmp_path):
    for name in (".log.csv.tmp", ".model.npz.tmp", "log.csv"):
        (tmp_path / name).write_text("")
    with claimed(tmp_path):
        assert [path.name for path in tmp_path.iterdir()] == ["log.csv"]


def test_a_claim_on_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(UserError, match="%s: .*name another" % folder):
            with claimed(folder):
                pass


def test_progress_line(finished_run, tmp_path, capsys):
    log = journal.Journal(tmp_path, recipes.paper("twba"), 0)
    with open(str(finished_run / "log.csv")) as file:
        row = next(csv.DictReader(file))
    row = journal.LogRow(**{key: float(value) for key, value in row.items() if key != "finished_at"})
    row = row._replace(epoch=1, step=250, seconds=60)
    log.finish_epoch(row, None, lambda: None)
    assert capsys.readouterr().out == "" and len(journal.read_log(tmp_path)) == 1
    log.tell(row)
    line = capsys.readouterr().out
    assert line.startswith("epoch 1/600 ") and line.endswith("9 h 59 min left\n") and "images/s" in line


def test_atomic_write_keeps_what_was_there(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"before")
    with pytest.raises(KeyboardInterrupt):
        with atomic_write(path) as file:
            file.write(b"half")
            raise KeyboardInterrupt
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]
