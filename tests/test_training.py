"""Training from end to end: the record of a run, and that a stopped and resumed run equals an uninterrupted one."""
import csv
import json
import shutil
import signal
import time

import numpy as np
import pytest
import tensorflow as tf
from conftest import start_training
from PIL import Image

from twba_nets import checkpoint, journal
from twba_nets.files import atomic_write

def wait_for(path, process):
    """Wait for a file, however long the machine takes, or for the process's end."""
    while not path.exists() and process.poll() is None:
        time.sleep(0.1)
    assert path.exists(), process.communicate(timeout=300)


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
    assert checkpoint.epoch_of(checkpoint.newest(folder)) == 2

    expected, found = (tf.train.NewCheckpointReader(str(checkpoint.newest(f))) for f in (finished_run, folder))
    for name in expected.get_variable_to_shape_map():
        np.testing.assert_array_equal(found.get_tensor(name), expected.get_tensor(name), name)
    figures = [[(row["epoch"], row["train_loss"], row["test_loss"], row["spikes_per_image"])
                for row in journal.read_log(f)] for f in (finished_run, folder)]
    assert figures[0] == figures[1]


def test_a_run_begins_with_the_weights_it_is_given(finished_run, tmp_path):
    """At a rate too small to move a weight, the new run ends with the old one's kernels. Adam begins anew."""
    process = start_training(tmp_path / "run", "--dataset", "digits", "--epochs", "1", "--learning-rate", "1e-30",
                             "--activation", "published", "--initial-weights", finished_run)
    _, error = process.communicate(timeout=300)
    assert process.returncode == 0, error
    before, after = (checkpoint.read_training(checkpoint.newest(folder)) for folder in (finished_run, tmp_path / "run"))
    for name in (name for name in before if name.endswith(("/kernel", "/W_conv2d", "/W", "/gamma"))):
        np.testing.assert_array_equal(after[name], before[name], name)
    assert after["beta1_power"] == pytest.approx(0.9 ** 4)  # three steps, and the one that TensorFlow is ahead
    assert not (after["model/bn8/moving_mean"] == before["model/bn8/moving_mean"]).all()
    source = json.loads((tmp_path / "run" / "model.json").read_text())["recipe"]["initial_weights"]
    assert source["file"].endswith("model_cifar10_advanced.ckpt-2.data-00000-of-00001")


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted(tmp_path, signal_number):
    process = start_training(tmp_path / "run", "--dataset", "digits", "--epochs", "50")
    wait_for(tmp_path / "run" / "recipe.json", process)
    time.sleep(1)
    process.send_signal(signal_number)
    _, error = process.communicate(timeout=300)
    assert process.returncode == 130
    assert error.strip() == "stopped; every finished epoch is saved: go on with --resume"


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


def test_learning_curve(finished_run):
    image = np.asarray(Image.open(str(finished_run / "learning_curve.png")).convert("RGB"))
    assert image.shape == (480, 1200, 3)
    assert len(np.unique(image.reshape(-1, 3), axis=0)) > 20  # curves, not an empty page


def test_rows_beyond_the_checkpoint_are_dropped(finished_run, tmp_path):
    """A kill between the log's row and the checkpoint leaves a row that the resumed run writes again."""
    shutil.copy(str(finished_run / "log.csv"), str(tmp_path))
    journal.Journal(tmp_path, epochs_done=1, epochs=5)
    assert [row["epoch"] for row in journal.read_log(tmp_path)] == ["1"]


def test_progress_line(finished_run, tmp_path, capsys):
    log = journal.Journal(tmp_path, 0, 600)
    with open(str(finished_run / "log.csv")) as file:
        row = next(csv.DictReader(file))
    row = {key: float(value) for key, value in row.items() if key != "finished_at"}
    log.record(dict(row, epoch=1, step=250, seconds=60))
    line = capsys.readouterr().out
    assert line.startswith("epoch 1/600 ") and line.endswith("9 h 59 min left\n") and "images/s" in line


@pytest.mark.parametrize("seconds, text", [(5, "5 s"), (61, "1 min"), (7500, "2 h 5 min"), (183600, "2 d 3 h")])
def test_duration(seconds, text):
    assert journal.duration(seconds) == text


def test_atomic_write_keeps_what_was_there(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"before")
    with pytest.raises(KeyboardInterrupt):
        with atomic_write(path) as file:
            file.write(b"half")
            raise KeyboardInterrupt
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]
