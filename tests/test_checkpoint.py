"""Checkpoints: round trips, the original's forms, damage, kill -9 and a full disk in the middle of a save."""
import functools
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from helpers import OWN, REPOSITORY, files_up_to, start_python
from twba_nets.network.architecture import PAPER, is_quantised
from twba_nets.runs import npz, run_folder
from twba_nets.system.errors import UserError
from twba_tensorflow import checkpoint, fast_network


@pytest.fixture
def run(finished_run, tmp_path):
    """A copy of the finished run that a test may spoil."""
    return Path(shutil.copytree(str(finished_run), str(tmp_path / "run")))


def data_file(prefix):
    return Path(str(prefix) + ".data-00000-of-00001")


def complaint(function, *arguments):
    with pytest.raises(UserError) as info:
        function(*arguments)
    assert "\n" not in str(info.value)
    return str(info.value)


def read(source, **named):
    """The variables of the checkpoint that `source` names."""
    return checkpoint.read(run_folder.locate(source), PAPER, **named)


def test_what_a_run_leaves(finished_run):
    names = {path.name for path in finished_run.iterdir() if "tfevents" not in path.name}
    checkpoints = {"model_cifar10_advanced.ckpt-%d.%s" % (epoch, part)
                   for epoch in (1, 2) for part in ("index", "data-00000-of-00001")}
    assert names == checkpoints | {"checkpoint", "model.npz", "model.json", "recipe.json", "provenance.json",
                                   "log.csv", "learning_curve.png"}
    reader = tf.train.NewCheckpointReader(str(run_folder.newest(finished_run)))
    assert len(reader.get_variable_to_shape_map()) == 596


def test_npz_is_the_quantised_model(finished_run):
    latent, model = read(finished_run), read(finished_run / "model.npz")
    assert list(model) == list(latent) == list(PAPER.variable_shapes)
    for name in model:
        if is_quantised(name):
            w, t = latent[name], 0.7 * np.abs(latent[name]).mean()
            clear = np.abs(np.abs(w) / t - 1) > 1e-6  # NumPy rounds the mean otherwise
            assert clear.mean() > 0.999
            np.testing.assert_array_equal(model[name][clear], (np.sign(w) * (np.abs(w) > t))[clear])
            assert model[name].dtype == np.int8
        else:
            np.testing.assert_array_equal(model[name], latent[name])
    assert (finished_run / "model.npz").stat().st_size < 1500000


def test_npz_and_checkpoint_evaluate_alike(finished_run, few_digits):
    """With one thread, like the run: several threads sum a tensor's mean for the ternary threshold in another order."""
    with tf.Graph().as_default(), tf.Session(config=fast_network.session_config(1)) as session:
        net = fast_network.build(tf.constant(few_digits.x_test[:20, 4:28, 4:28] / np.float32(255)), "twba", PAPER)
        logits = []
        for source in (finished_run, finished_run / "model.npz"):
            checkpoint.assign(session, read(source))
            session.run(net.refresh)
            logits.append(session.run(net.logits))
    np.testing.assert_array_equal(*logits)


@pytest.fixture
def original(finished_run, tmp_path):
    """A folder as the published code leaves it: no epoch in the name, paths of its machine, a pickled npz."""
    folder = tmp_path / "original"
    folder.mkdir()
    prefix = run_folder.newest(finished_run)
    for part in (".index", ".data-00000-of-00001"):
        shutil.copy(str(prefix) + part, str(folder / (run_folder.CHECKPOINT_NAME + part)))
    (folder / "checkpoint").write_text('model_checkpoint_path: "/home/zcl/model_cifar10_advanced.ckpt"\n'
                                       'all_model_checkpoint_paths: "/home/zcl/model_cifar10_advanced.ckpt"\n')
    params = np.empty(270, object)
    params[:] = [value.astype(np.float32) for value in read(finished_run / "model.npz").values()]
    np.savez(str(folder / "model.npz"), params=params)
    return folder


def test_the_originals_checkpoint(original, finished_run):
    prefix = run_folder.newest(original)
    assert prefix == original / "model_cifar10_advanced.ckpt"
    assert run_folder.epoch_of(prefix) is None
    expected = read(finished_run)
    Path(str(prefix) + ".meta").write_text("")  # the published code's Saver writes one
    parts = [str(prefix) + part for part in (".index", ".meta", ".data-00000-of-00001")]
    for source in [original, prefix, original / "checkpoint"] + parts:
        values = read(source)
        assert all((values[name] == expected[name]).all() for name in expected)
    (original / "checkpoint").unlink()
    assert run_folder.newest(original) == prefix


def test_the_originals_npz(original, finished_run):
    message = complaint(read, original / "model.npz")
    assert "model.npz" in message and "--allow-pickle" in message
    values = read(original / "model.npz", allow_pickle=True)
    expected = read(finished_run / "model.npz")
    assert all((values[name] == expected[name]).all() for name in expected)


def test_training_cannot_go_on_from_an_npz(finished_run):
    assert "holds quantised weights only" in complaint(checkpoint.restore, None, None, finished_run / "model.npz", PAPER)


def test_missing(tmp_path):
    assert "no checkpoint in this folder" in complaint(read, tmp_path)
    assert "no such checkpoint" in complaint(read, tmp_path / "model.npz")


@pytest.mark.parametrize("length", [0, 1000, -1])
def test_truncated_npz(run, length):
    path = run / "model.npz"
    path.write_bytes(path.read_bytes()[:length])
    assert "model.npz: damaged" in complaint(read, path)


def test_altered_npz(run):
    path = run / "model.npz"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)
    assert "model.npz: damaged" in complaint(read, path)


def test_the_newest_of_both_frameworks(run):
    """If one continued from the other's checkpoint, the one with more epochs counts."""
    tensorflows, values = run_folder.newest(run), checkpoint.read_training(run_folder.newest(run), PAPER)
    for epoch, expected in ((1, tensorflows), (5, run / "training.npz")):
        npz.save_training(run / "training.npz", values, epoch)
        assert run_folder.newest(run) == expected and run_folder.epoch_of(run_folder.newest(run)) == max(2, epoch)
    latent = read(run)
    assert all((latent[name] == values[name]).all() for name in PAPER.variable_shapes)


def test_damaged_checkpoint_names_the_other(run):
    newest = run_folder.newest(run)
    data_file(newest).write_bytes(data_file(newest).read_bytes()[:5000])
    message = complaint(read, run)
    assert "ckpt-2: damaged or truncated" in message and "ckpt-1 instead" in message
    read(run / "model_cifar10_advanced.ckpt-1")
    Path(str(newest) + ".index").unlink()
    assert "ckpt-2.index: not there" in complaint(read, run)


@pytest.mark.parametrize("text", ["", "garbage", "{"])
def test_a_damaged_state_file_hides_no_run(run, text):
    (run / "checkpoint").write_text(text)
    for function, source in ((run_folder.newest, run), (run_folder.locate, run / "checkpoint")):
        assert "%s: unreadable" % (run / "checkpoint") in complaint(function, source)


def test_a_flipped_bit_is_found_wherever_it_is(run):
    """Also in Adam's slots, which an evaluation does not use: other parts may be damaged as well."""
    newest = run_folder.newest(run)
    content = data_file(newest).read_bytes()
    for place in np.random.RandomState(0).randint(len(content), size=8):
        data_file(newest).write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1:])
        assert "ckpt-2: damaged or truncated (Checksum" in complaint(read, run)
    assert "ckpt-1 instead" in complaint(checkpoint.read_training, newest, PAPER)


@pytest.fixture(scope="module")
def any_checkpoint(tmp_path_factory):
    """A function that writes a TensorFlow checkpoint of zeros, but for the variables given, name -> array."""
    def write(changes):
        values = {name: np.zeros(shape, np.float32) for name, shape in PAPER.training_variable_shapes.items()}
        values.update(changes)
        prefix = tmp_path_factory.mktemp("any") / "model.ckpt-7"
        with tf.Graph().as_default(), tf.Session() as session:
            names, arrays = zip(*values.items())
            session.run(tf.raw_ops.SaveV2(prefix=str(prefix), tensor_names=list(names), tensors=list(arrays),
                                          shape_and_slices=[""] * len(names)))
        return prefix
    return write


@pytest.mark.parametrize("name, value, text", [
    ("model/bn8/moving_variance", np.full(10, -1, np.float32), "moving_variance holds negative"),
    ("model/bn8/gamma", np.full(10, np.nan, np.float32), "not finite"),
    ("model/bn8/gamma", np.full(10, 1e300), "not finite"),
    ("model/bn8/gamma", np.full(10, "x"), "gamma has type object, not float32"),
    ("model/bn8/gamma/Adam", np.ones(10, np.int32), "gamma/Adam has type int32, not float32"),
    ("beta2_power", np.float32(1.5), "beta2_power is 1.5")])
def test_tensorflows_values_are_checked_too(any_checkpoint, name, value, text):
    prefix = any_checkpoint({name: value})
    assert text in complaint(checkpoint.read_training, prefix, PAPER)
    if "model" in name and "Adam" not in name:
        assert text in complaint(read, prefix)


def test_checkpoint_of_another_network(tmp_path):
    with tf.Graph().as_default(), tf.Session() as session:
        tf.get_variable("model/cnn00/kernel", [5, 5, 3, 32])
        session.run(tf.global_variables_initializer())
        tf.train.Saver().save(session, str(tmp_path / "other"))
    assert "model/cnn00/kernel has shape (5, 5, 3, 32), not (3, 3, 3, 32)" in complaint(
        read, tmp_path / "other")
    np.savez(str(tmp_path / "other.npz"), a=np.zeros(3))
    assert "other.npz: lacks model/cnn00/kernel" in complaint(read, tmp_path / "other.npz")


def test_the_other_variant_is_found_out_by_its_weights(finished_run):
    ternary = read(finished_run / "model.npz")
    binary = {name: np.where(value == 0, 1, value) for name, value in ternary.items()}
    npz.check_variant(ternary, "twba", "x")
    npz.check_variant(binary, "bwba", "x")
    npz.check_variant(read(finished_run), "bwba", "x")  # latent weights do not tell
    assert "it is a twba checkpoint, not bwba" in complaint(npz.check_variant, ternary, "bwba", "model.npz")
    assert "it is a bwba checkpoint, not twba" in complaint(npz.check_variant, binary, "twba", "model.npz")


# Saves checkpoint after checkpoint, every variable full of the epoch's number; says when each is complete.
SAVE_FOREVER = """
import sys, pathlib
sys.path.insert(0, %r)
import tensorflow as tf
from twba_nets.network.architecture import PAPER
from twba_tensorflow import checkpoint
folder, first = pathlib.Path(sys.argv[1]), int(sys.argv[2])
folder.mkdir(exist_ok=True)
value = tf.placeholder(tf.float32, [])
variables = [tf.get_variable(name, shape) for name, shape in PAPER.variable_shapes.items()]
fill = [variable.assign(tf.fill(variable.shape, value)) for variable in variables]
saver = tf.train.Saver(variables)
with tf.Session() as session:
    for epoch in range(first, first + 100000):
        session.run(fill, {value: epoch})
        try:
            checkpoint.save(session, saver, folder, epoch, variables, PAPER)
        except checkpoint.UserError as error:
            sys.exit("error: %%s" %% error)
        print("saved", epoch, flush=True)
""" % str(REPOSITORY)


def saved_epoch(folder):
    """The epoch of the newest checkpoint, after making sure that all of it, and of model.npz, can be read."""
    prefix = run_folder.newest(folder)
    epoch = run_folder.epoch_of(prefix)
    assert all((value == epoch).all() for value in read(prefix).values())
    model = read(folder / "model.npz")
    assert model["model/bn00/beta"][0] in (epoch, epoch + 1)
    return epoch


@pytest.mark.slow
@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGKILL, signal.SIGINT])
def test_killed_while_saving(tmp_path, signal_number):
    """The process does nothing but save, so that the signal comes in the middle of a save."""
    process = start_python(SAVE_FOREVER, tmp_path / "run", 1)
    last = [process.stdout.readline() for _ in range(3)][-1]
    time.sleep(np.random.uniform(0, 0.5))
    process.send_signal(signal_number)
    rest, _ = process.communicate(timeout=300)
    last = int((last + rest).split()[-1])
    assert saved_epoch(tmp_path / "run") in (last, last + 1)
    # and the next process continues from there, and removes what the killed one left
    process = start_python(SAVE_FOREVER, tmp_path / "run", last + 1)
    assert process.stdout.readline() == "saved %d\n" % (last + 1)
    process.kill()
    process.communicate(timeout=300)
    assert saved_epoch(tmp_path / "run") >= last + 1


def test_what_killed_saves_and_removals_left_is_removed(tmp_path):
    """A removal that is cut short leaves half a checkpoint; such a save leaves TensorFlow's temporary files."""
    def files(*names):
        return {run_folder.CHECKPOINT_NAME + name for name in names}

    kept = files("-6.index", "-6.data-00000-of-00001", "-7.index", "-7.data-00000-of-00001", "-9.index",
                 ".index", ".data-00000-of-00001") | {"checkpoint"}
    left = files("-1.data-00000-of-00001", "-2.index", "-7.index.tempstate4711", "-3.data-00000-of-00001.tempstate4711",
                 "-5.index", "-5.data-00000-of-00001") | {"checkpoint.tmp0123456789abcdef"}
    for name in kept | left:
        (tmp_path / name).write_text("")
    checkpoint.clear(tmp_path, 7)
    assert {path.name for path in tmp_path.iterdir()} == kept


def refuse(*_):
    raise UserError("model.npz: could not be written")


@pytest.mark.parametrize("size", [9999, 1 << 30])
def test_a_save_that_fails(size, tmp_path, monkeypatch):
    """The one before stays and is named, and nothing is left of the new one."""
    folder = tmp_path / "run"
    folder.mkdir()
    with tf.Graph().as_default(), tf.Session() as session:
        variables = [tf.get_variable(name, shape) for name, shape in OWN.variable_shapes.items()]
        session.run(tf.global_variables_initializer())
        save = functools.partial(checkpoint.save, session, tf.train.Saver(), folder, all_params=variables, architecture=OWN)
        save(epoch=1)
        before = {path.name: path.read_bytes() for path in folder.iterdir()}
        monkeypatch.setattr(npz, "save_model", refuse)  # after the checkpoint, if there is room for that
        with files_up_to(size):
            line = complaint(functools.partial(save, epoch=2))
    assert line.startswith(f"{folder}/model_cifar10_advanced.ckpt-2: ") and "make room" in line
    assert f"{folder}/model_cifar10_advanced.ckpt-1 is intact" in line and "--resume" in line
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.slow
def test_full_disk(tmp_path):
    """A real file system of 30 MB: two checkpoints of 13 MB fit, the third does not."""
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.call(["mount", "-t", "tmpfs", "-o", "size=30m", "tmpfs", str(small)], stderr=subprocess.DEVNULL):
        pytest.skip("mounting a small file system needs root")
    try:
        process = start_python(SAVE_FOREVER, small / "run", 1)
        output, error = process.communicate(timeout=300)
        assert process.returncode == 1
        last = int(output.split()[-1])
        assert re.search(r"^error: .*ckpt-%d: .*make room.*--resume"
                         % (last + 1), error, re.M)
        assert saved_epoch(small / "run") == last
        leftovers = [name for name in os.listdir(str(small / "run")) if "ckpt-%d" % (last + 1) in name or "tmp" in name
                     or "tempstate" in name]
        assert leftovers == []
    finally:
        subprocess.check_call(["umount", str(small)])
