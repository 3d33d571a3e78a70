"""Training runs: resumed, killed, in several processes, and passed between the frameworks."""
import dataclasses
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from conftest import TENSORFLOW_PYTHON, in_tensorflow
from helpers import OWN, REPOSITORY, Clock, Snapshots, interrupt_import, logged, scalars, to_toml
import twba_torch
from twba_nets import datasets, system
from twba_nets.network.architecture import PAPER
from twba_nets.runs import card, journal, npz
from twba_nets.runs.model import open_model
from twba_nets.system import files, progress
from twba_torch import device, pipeline, train, training, variables
from twba_torch.network import MOVING_RATE
from twba_torch.training import Trainer

CPU = torch.device("cpu")


def arguments(folder, *flags):
    return ["-m", "twba_torch.train", "--variant", "twba", "--dataset", "digits", "--no-compile", "--device", "cpu",
            "--output", str(folder), *flags]


def command(*flags, environment=()):
    """Run Python; (exit status, last line of stderr, stdout)."""
    done = subprocess.run([sys.executable, *flags], cwd=REPOSITORY, env=dict(os.environ, **dict(environment)),
                          capture_output=True, text=True)
    return done.returncode, (done.stderr.splitlines() or [""])[-1], done.stdout


def complaint(*flags, environment=()):
    status, line, _ = command(*flags, environment=environment)
    assert status == 1 and line.startswith("error: "), line
    return line


def assert_same_files(first, second):
    with np.load(first) as ours, np.load(second) as theirs:
        assert set(ours.files) == set(theirs.files)
        for name in ours.files:
            np.testing.assert_array_equal(ours[name], theirs[name], name)


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory, few_digits, short_recipe):
    """A run of two epochs. Tests must not change it."""
    folder = tmp_path_factory.mktemp("finished_run")
    short_recipe.save(folder)
    training.train(Trainer(short_recipe, few_digits, CPU, compiled=False), folder, 0)
    return folder


@pytest.fixture
def on_few_digits(monkeypatch, few_digits):
    monkeypatch.setattr(datasets, "load", lambda *_: few_digits)


def train_here(folder, *flags):
    """The command in this process, on few_digits."""
    train.train(train.parse(["--variant", "twba", "--output", str(folder), "--device", "cpu", "--no-compile", *flags]))


def names(folder):
    return {path.name for path in folder.iterdir() if "tfevents" not in path.name}


def test_files_of_a_run(finished_run, short_recipe):
    assert names(finished_run) == {
        "training.npz", "model.npz", "model.json", "recipe.json", "provenance.json", "log.csv", "learning_curve.png"}
    assert {name: value.shape for name, value in npz.read_training(finished_run / "training.npz", PAPER).items()} == \
        PAPER.training_variable_shapes
    assert npz.read_epoch(finished_run / "training.npz") == 2
    model = npz.read_model(finished_run / "model.npz", PAPER)
    assert {name: value.shape for name, value in model.items()} == PAPER.variable_shapes
    npz.check_variant(model, "twba", "model.npz")
    recorded = json.loads((finished_run / "model.json").read_text())
    rows = journal.read_log(finished_run)
    assert [row["step"] for row in rows] == ["3", "6"]
    assert recorded["test_accuracy"] == float(rows[-1]["test_accuracy"]) and recorded["epochs"] == 2
    assert card.load_recipe(finished_run / "model.npz") == short_recipe


def test_the_quantised_model_is_the_trained_one(finished_run, few_digits, short_recipe):
    """Evaluated from model.npz, a run gives the accuracy and spikes of its log."""
    trainer = Trainer(short_recipe, few_digits, CPU, compiled=False)
    variables.assign(npz.read_model(finished_run / "model.npz", PAPER), trainer.network)
    result = trainer.evaluate()
    card = json.loads((finished_run / "model.json").read_text())
    assert result.accuracy == card["test_accuracy"] and result.spikes_per_image == card["spikes_per_image"]


def test_a_run_in_pieces_is_the_whole_run(tmp_path, finished_run, few_digits, short_recipe):
    first = Trainer(short_recipe, few_digits, CPU, compiled=False)
    assert training.train(first, tmp_path, 0, minutes=1e-9) == 1
    assert not (tmp_path / "model.json").exists()  # no finished run
    second = Trainer(short_recipe, few_digits, CPU, compiled=False)
    variables.assign(npz.read_training(tmp_path / "training.npz", PAPER), second.network, second.adam)
    assert training.train(second, tmp_path, npz.read_epoch(tmp_path / "training.npz"), minutes=60) == 2
    assert_same_files(tmp_path / "training.npz", finished_run / "training.npz")
    assert_same_files(tmp_path / "model.npz", finished_run / "model.npz")
    assert [row["epoch"] for row in journal.read_log(tmp_path)] == ["1", "2"]


@pytest.fixture(scope="module")
def precise_run(tmp_path_factory, few_digits, short_recipe):
    """The finished run with precise batch norm."""
    folder = tmp_path_factory.mktemp("precise_run")
    recipe = dataclasses.replace(short_recipe, precise_batch_norm=True)
    recipe.save(folder)
    training.train(Trainer(recipe, few_digits, CPU, compiled=False), folder, 0)
    return folder


def test_precise_batch_norm_changes_the_statistics_alone(precise_run, finished_run):
    precise, moving = (npz.read_training(folder / "training.npz", PAPER) for folder in (precise_run, finished_run))
    for name in moving:
        same = (precise[name] == moving[name]).all()
        assert same != ("/moving_" in name), name
    rows = journal.read_log(precise_run)
    assert [row["precise_batch_norm"] for row in rows] == ["0", "1"]
    assert rows[0]["test_loss"] == journal.read_log(finished_run)[0]["test_loss"]
    assert rows[1]["test_loss"] != journal.read_log(finished_run)[1]["test_loss"]
    assert card.read(precise_run / "model.npz")["recipe"]["precise_batch_norm"] is True


def test_precise_batch_norm_is_the_mean_of_all_batches(few_digits, short_recipe):
    """The batches are those of another epoch, the third. PyTorch computes the mean and biased variance to compare with."""
    torch.set_default_dtype(torch.float64)
    trainer, found = Trainer(short_recipe, few_digits, CPU, exact=False, compiled=False), {}
    for name, norm in trainer.network.norms.items():
        norm.register_forward_pre_hook(lambda _, inputs, name=name: found.setdefault(name, []).append(inputs[0].flatten(3)))
    trainer.estimate_statistics()
    order, uniforms = pipeline.epoch_numbers(110, short_recipe.seed, 2)
    for name, batches in found.items():
        assert [len(x) for x in batches] == [50, 50, 10]
        norm = trainer.network.norms[name]
        torch.testing.assert_close(norm.moving_mean, torch.stack([x.mean((0, 1, 2)) for x in batches]).mean(0))
        torch.testing.assert_close(norm.moving_variance, torch.stack(
            [x.var((0, 1, 2), unbiased=False) for x in batches]).mean(0))
        assert norm.moving_rate == MOVING_RATE
    second = order[50:100]
    trainer.network.train()(pipeline.augment(trainer.training.x[second], uniforms[second], few_digits.flip, PAPER.image_size))
    assert torch.equal(found["bn00"][1], found["bn00"][-1])


def test_a_precise_run_in_pieces_is_the_whole_run(tmp_path, precise_run, few_digits, short_recipe):
    recipe = dataclasses.replace(short_recipe, precise_batch_norm=True)
    assert training.train(Trainer(recipe, few_digits, CPU, compiled=False), tmp_path, 0, minutes=1e-9) == 1
    second = Trainer(recipe, few_digits, CPU, compiled=False)
    variables.assign(npz.read_training(tmp_path / "training.npz", PAPER), second.network, second.adam)
    training.train(second, tmp_path, 1)
    assert_same_files(tmp_path / "training.npz", precise_run / "training.npz")


@pytest.mark.parametrize("names", [["finished_run"], ["finished_run", "precise_run"]], ids=len)
def test_teachers_part_in_the_loss(request, names, few_digits, short_recipe):
    """Half the cross entropy, half the divergence from the teachers' mean softened classes; the teachers learn nothing."""
    models = [open_model(request.getfixturevalue(name) / "model.npz") for name in names]  # the runs are float32's
    torch.set_default_dtype(torch.float64)
    trainer = Trainer(short_recipe, few_digits, CPU, exact=False, compiled=False, teachers=models)
    images, labels, uniforms = trainer.training.x[:50], trainer.training.y[:50], torch.full((50, 5), 0.4)
    loss, totals = trainer.training_step(images, uniforms, labels)
    loss.backward()
    with torch.no_grad():
        x = pipeline.augment(images, uniforms, few_digits.flip, PAPER.image_size)
        logits, *teachers = (network(x)[0].numpy() for network in (trainer.network, *trainer.teachers))
    ours, *each = (np.exp(values / 2) / np.exp(values / 2).sum(1, keepdims=True) for values in (logits, *teachers))
    theirs = np.mean(each, 0)
    divergence = (theirs * np.log(theirs / ours)).sum()
    entropy = -np.log(np.exp(logits) / np.exp(logits).sum(1, keepdims=True))[range(50), labels].sum()
    assert loss.item() == pytest.approx(0.5 * entropy + 0.5 * 4 * divergence)
    assert totals[0] == loss.detach()
    assert totals[1] == (logits.argmax(1) == labels.numpy()).sum() != (theirs.argmax(1) == labels.numpy()).sum()
    assert all(parameter.grad is None for teacher in trainer.teachers for parameter in teacher.parameters())
    assert all(parameter.grad is not None for parameter in trainer.network.parameters())
    for teacher, model in zip(trainer.teachers, models):
        found = variables.quantised(teacher)
        for name, value in model.values.items():
            np.testing.assert_array_equal(found[name], value, name)


def test_learning(few_digits, short_recipe):
    trainer = Trainer(short_recipe, few_digits, CPU, compiled=False)
    losses = [trainer.train_epoch(epoch).loss for epoch in range(4)]
    assert losses[-1] < losses[0] - 0.3


def test_an_epoch_tells_how_far_it_is(few_digits, short_recipe, monkeypatch, capsys):
    """Loss and accuracy are those of the images so far."""
    monkeypatch.setattr(progress, "EVERY", 0)
    monkeypatch.setattr(training, "READ_SECONDS", -1)
    batches = iter([[100.0, 25], [50.0, 35], [40.0, 0]])
    monkeypatch.setattr(Trainer, "train_batch", lambda *_: torch.tensor(next(batches), dtype=torch.float64))
    trained = Trainer(short_recipe, few_digits, CPU, compiled=False).train_epoch(1)
    lines = re.sub(r"[\d.]+ images/s, \d+ s left", "...", capsys.readouterr().err).splitlines()
    assert lines == ["epoch 2/2: 50 of 110 images, ..., loss 2.000, accuracy 0.500",
                     "epoch 2/2: 100 of 110 images, ..., loss 1.500, accuracy 0.600"]
    assert (trained.loss, trained.accuracy) == pytest.approx((190 / 110, 60 / 110))


def test_a_run_belongs_to_one_process(tmp_path):
    with files.claimed(tmp_path):
        assert "another process" in complaint(*arguments(tmp_path))
    assert not list(tmp_path.iterdir())


def test_compiled_step_is_the_same(few_digits, short_recipe):
    """In float64: in float32 fused operations may round differently, and one flipped spike flips thousands after it."""
    torch.set_default_dtype(torch.float64)
    rows = []
    for compiled in (False, True):
        trainer = Trainer(short_recipe, few_digits, CPU, compiled=compiled)
        images, labels = trainer.training.x[:50], trainer.training.y[:50]
        loss, totals = trainer.step_of(trainer.training_step, 50)(images, torch.full((50, 5), 0.4), labels)
        loss.backward()
        rows.append(([loss.item(), *totals.tolist()], totals[0] == loss, trainer.network.kernels["output"].grad))
    assert rows[0][0] == pytest.approx(rows[1][0], rel=1e-9) and rows[0][1] and rows[1][1]
    torch.testing.assert_close(rows[0][2], rows[1][2], rtol=1e-6, atol=1e-9)


def test_a_run_of_an_earlier_version_goes_on_as_there(tmp_path, on_few_digits):
    """earlier_run: a training.npz and recipe.json of commit f2d4de6, and what that commit made of them in one epoch of
    few_digits. In float64, since processors round float32 otherwise. sums: of the absolute values of ten variables."""
    folder = REPOSITORY / "tests/pytorch/earlier_run"
    train_here(tmp_path, "--resume", str(folder), "--precision", "float64")
    expected = json.loads((folder / "resumed.json").read_text())
    row, = journal.read_log(tmp_path)
    assert row["epoch"] == "2" and {name: float(row[name]) for name in expected["log"]} == pytest.approx(expected["log"])
    values = npz.read_training(tmp_path / "training.npz", PAPER)
    assert {name: float(np.abs(values[name]).sum()) for name in expected["sums"]} == pytest.approx(expected["sums"])


def test_two_processes_compute_what_one_does(tmp_path):
    """Batch statistics of the global batch, gradients of its mean loss, each test image counted once: in float64."""
    for processes in (1, 2):
        done = subprocess.run([sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node",
                               str(processes), "tests/pytorch/one_epoch.py", str(tmp_path / str(processes))],
                              cwd=REPOSITORY, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("epoch 1/1") == 1 and "warning" not in done.stderr.lower()
    one, two = (npz.read_training(tmp_path / name / "training.npz", PAPER) for name in ("1", "2"))
    for name in one:
        np.testing.assert_allclose(two[name], one[name], rtol=0, atol=1e-8, err_msg=name)
    one, two = (json.loads((tmp_path / name / "model.json").read_text()) for name in ("1", "2"))
    assert one["test_accuracy"] == two["test_accuracy"] and one["spikes_per_image"] == two["spikes_per_image"]
    assert [recorded["provenance"][0]["versions"]["processes"] for recorded in (one, two)] == [1, 2]


def test_killed_and_resumed_from_the_command_line(tmp_path):
    """kill -9 in the middle of an epoch; the run then ends like an uninterrupted one."""
    status, line, _ = command(*arguments(tmp_path / "whole", "--epochs", "2", "--threads", "1"))
    assert status == 0, line
    process = subprocess.Popen([sys.executable, *arguments(tmp_path / "cut", "--epochs", "2", "--threads", "1")],
                               cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    while not (tmp_path / "cut" / "training.npz").exists() and process.poll() is None:
        time.sleep(0.1)
    process.kill()
    process.communicate()
    assert len(journal.read_log(tmp_path / "cut")) == 1
    assert command(*arguments(tmp_path / "cut", "--resume", "--threads", "1"))[0] == 0
    assert_same_files(tmp_path / "cut" / "training.npz", tmp_path / "whole" / "training.npz")


def test_a_run_goes_back_and_forth_between_the_frameworks(tmp_path, finished_run):
    """PyTorch trains, TensorFlow continues and evaluates, its checkpoint is converted, PyTorch continues."""
    run = tmp_path / "run"
    run.mkdir()
    for name in ("training.npz", "recipe.json", "log.csv"):
        (run / name).write_bytes((finished_run / name).read_bytes())
    output = in_tensorflow("TWBA/cifar10_twba_example.py", "--output", run, "--resume", "--epochs", "3")
    assert "epochs 3 to 3" in output
    assert "TensorFlow took this run to epoch 3" in complaint(*arguments(run, "--resume", "--epochs", "4"))
    in_tensorflow("-m", "twba_tensorflow.convert", run)
    converted = npz.read_training(run / "training.npz", PAPER)
    assert converted["model/cnn6_16/W_conv2d/Adam_1"].any()
    status, line, output = command(*arguments(run, "--resume", "--epochs", "4"))
    assert status == 0 and "epochs 4 to 4" in output, line
    assert [span["versions"] and min(span["versions"]) for span in card.read(run / "model.npz")["provenance"]] == [
        None, "graph", "cuda"]  # nothing is known of what came without a record; TensorFlow's; PyTorch's
    back = run / "model_cifar10_advanced.ckpt-3"
    done = subprocess.run([TENSORFLOW_PYTHON, "TWBA/cifar10_twba_example.py", "--output", run, "--resume", back, "--epochs", "4"],
                          cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 1 and f"error: {back}: PyTorch took this run to epoch 4 (training.npz)" in done.stderr
    recorded = json.loads((run / "model.json").read_text())
    report = in_tensorflow("TWBA/cifar10_twba_spikes.py", "--checkpoint", run / "model.npz")
    assert "test accuracy %.2f%%" % (100 * recorded["test_accuracy"]) in report


@pytest.mark.parametrize("file", ["training.npz", "model.npz"])
def test_a_run_begins_with_the_weights_it_is_given(tmp_path, finished_run, on_few_digits, file):
    """At a rate too small to move a weight, the new run ends with the old one's kernels. Adam starts from zero.

    A model.npz has quantised weights alone: scaled, they give the same network.
    """
    train_here(tmp_path / "run", "--dataset", "digits", "--epochs", "1", "--learning-rate", "1e-30", "--activation",
               "three-level", "--initial-weights", str(finished_run / file))
    read = npz.read_training if file == "training.npz" else npz.read_model
    before, after = read(finished_run / file, PAPER), npz.read_training(tmp_path / "run" / "training.npz", PAPER)
    for name in (name for name in before if name.endswith(("/kernel", "/W_conv2d", "/W", "/gamma"))):
        scale = 0.25 if file == "model.npz" and name.endswith("/W_conv2d") else 1
        np.testing.assert_allclose(after[name], before[name] * scale, rtol=0, atol=1e-29, err_msg=name)
    weights, new = (npz.read_model(folder / "model.npz", PAPER) for folder in (finished_run, tmp_path / "run"))
    assert all((new[name] == weights[name]).all() for name in weights if name.endswith("/W_conv2d"))
    assert after["beta1_power"] == pytest.approx(0.9 ** 4)  # three steps, and the one that TensorFlow is ahead
    assert not (after["model/bn8/moving_mean"] == before["model/bn8/moving_mean"]).all()
    digest = hashlib.sha256((finished_run / file).read_bytes()).hexdigest()
    assert json.loads((tmp_path / "run" / "model.json").read_text())["recipe"]["initial_weights"] == {
        "file": f"{finished_run.name}/{file}", "sha256": digest}


def test_a_network_of_ones_own(tmp_path, finished_run, on_few_digits):
    """Its run's files hold the table of --network, and TensorFlow resumes it. Another network's run is refused."""
    run, file, papers = tmp_path / "run", tmp_path / "own.toml", tmp_path / "paper.toml"
    for path, architecture in ((file, OWN), (papers, PAPER)):
        path.write_text(to_toml(architecture))
    train_here(run, "--dataset", "digits", "--network", str(file), "--epochs", "1")
    train_here(run, "--resume", "--epochs", "2")
    assert json.loads((run / "recipe.json").read_text())["architecture"] == OWN.to_json()
    assert open_model(run).about == card.load_recipe(run / "training.npz").about
    assert len(npz.read_training(run / "training.npz", OWN)) == len(OWN.training_variable_shapes)
    shutil.copytree(finished_run, tmp_path / "other")
    for named, flags in ((finished_run, [tmp_path / "new", "--resume", str(finished_run), "--network", str(file)]),
                         (tmp_path / "other", [tmp_path / "other", "--resume", "--network", str(file)]),
                         (run, [tmp_path / "new", "--initial-weights", str(run / "training.npz")]),
                         (finished_run, [tmp_path / "new", "--network", str(file), "--initial-weights", str(finished_run)])):
        line = complaint(*arguments(*flags, "--epochs", "9"))
        assert str(named) in line and "--network" in line
    assert not (tmp_path / "new").exists()
    assert "epochs 3 to 3" in in_tensorflow("TWBA/cifar10_twba_example.py", "--output", run, "--resume", "--epochs", "3")


def test_mistaken_initial_weights(tmp_path, finished_run):
    def mistake(*flags):
        return complaint(*arguments(tmp_path / "run", *map(str, flags)))
    assert "twba, not bwba" in mistake("--variant", "bwba", "--initial-weights", finished_run)
    twba_torch.save(twba_torch.load(finished_run), tmp_path / "saved")
    assert "twba, not bwba" in mistake("--variant", "bwba", "--initial-weights", tmp_path / "saved")
    beside = tmp_path / "beside"
    beside.mkdir()
    for name, source in (("best.npz", "model.npz"), ("best.json", "model.json"),
                         ("model_cifar10_advanced.ckpt-9.index", "log.csv"),
                         ("model_cifar10_advanced.ckpt-9.data-00000-of-00001", "log.csv")):
        shutil.copy(finished_run / source, beside / name)
    assert "twba, not bwba" in mistake("--variant", "bwba", "--initial-weights", beside / "best.npz")  # whatever lies beside it
    assert "twba, not bwba" in mistake("--variant", "bwba", "--initial-weights", "twba")  # the released one
    assert "nowhere: " in mistake("--initial-weights", tmp_path / "nowhere")
    assert "--initial-weights begins a run" in mistake("--resume", finished_run, "--initial-weights", finished_run)
    assert not (tmp_path / "run").exists()


class WithoutArithmetic(Trainer):
    """A trainer whose epoch changes a variable, and whose figures are made up."""

    def train_epoch(self, epoch):
        with torch.no_grad():
            self.network.kernels["cnn1"].mul_(-1)
            self.network.norms["bn0"].beta.add_(1)
        return journal.Trained(2.0, 0.25, 0.1)

    def evaluate(self):
        return journal.Tested(2.5, 0.125, 8.0, 0.1)


@pytest.fixture
def without_arithmetic(monkeypatch, few_digits):
    """Train in this process, a run of two epochs by WithoutArithmetic: a function of the folder and further flags."""
    monkeypatch.setattr(training, "Trainer", WithoutArithmetic)
    monkeypatch.setattr(datasets, "load", lambda *_: few_digits)
    return lambda folder, *flags: train.main(arguments(folder, *flags)[2:])


def assert_same_run(found, expected):
    assert names(found) == names(expected)
    for name in ("training.npz", "model.npz"):
        assert_same_files(found / name, expected / name)
    logs = [[(row["epoch"], row["test_loss"]) for row in journal.read_log(folder)] for folder in (found, expected)]
    assert logs[0] == logs[1]
    assert card.read(found / "model.npz")["epochs"] == card.read(expected / "model.npz")["epochs"]


@pytest.fixture
def run(finished_run, tmp_path):
    """A copy of the finished run that a test may spoil."""
    return Path(shutil.copytree(finished_run, tmp_path / "run"))


def test_killed_at_any_replacement(without_arithmetic, tmp_path, monkeypatch):
    """Whenever a run is killed, the next one ends with the files of an uninterrupted run."""
    snapshots = Snapshots(tmp_path / "whole", tmp_path, monkeypatch)
    without_arithmetic(tmp_path / "whole", "--epochs", "1")
    kills = snapshots.taken[:]
    assert len(kills) == 8  # the recipe, an empty log, the log, provenance, the model, training.npz, the curve, the card
    assert all(list(folder.glob(".*.tmp")) for folder in kills)
    for folder in kills:
        without_arithmetic(folder, "--epochs", "1", *["--resume"] * (folder / "training.npz").exists())
        assert_same_run(folder, tmp_path / "whole")


def test_summaries(without_arithmetic, tmp_path):
    """TensorBoard has an epoch's figures once, also where a kill came before the save: by the tags of TensorFlow's side."""
    without_arithmetic(tmp_path, "--epochs", "1")
    shutil.copytree(tmp_path, tmp_path / "saved")
    without_arithmetic(tmp_path, "--resume", "--epochs", "3")
    for name in ("training.npz", "model.npz", "model.json", "recipe.json"):
        shutil.copy(tmp_path / "saved" / name, tmp_path)
    shutil.rmtree(tmp_path / "saved")
    without_arithmetic(tmp_path, "--resume", "--epochs", "4")
    assert scalars(tmp_path) == logged(tmp_path) and len(logged(tmp_path)["test_loss"]) == 4


class Broken(types.ModuleType):
    """A package that is there, and cannot be imported: with another protobuf, say."""

    def __getattr__(self, name):
        raise TypeError("Descriptors cannot be created directly.\nIf this call came from a _pb2.py file, ...")


@pytest.mark.parametrize("module, name", [(None, "ModuleNotFoundError"), (Broken("tensorboard"), "TypeError: Descriptors")])
def test_a_run_does_without_tensorboard(without_arithmetic, tmp_path, capsys, monkeypatch, module, name):
    """A machine with PyTorch alone trains, and says once what it leaves out."""
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    without_arithmetic(tmp_path, "--epochs", "3")
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and error.startswith("warning: ") and "TensorBoard" in error and name in error
    assert card.read(tmp_path / "model.npz")["epochs"] == 3 and not list(tmp_path.glob("events.out*"))


def test_a_run_does_without_matplotlib(without_arithmetic, tmp_path, capsys, monkeypatch):
    """It ends, and is known to have ended."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "twba_nets.system.drawing", raising=False)
    monkeypatch.delattr(system, "drawing", raising=False)
    without_arithmetic(tmp_path, "--epochs", "1")
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "learning_curve.png" in error and "matplotlib" in error
    without_arithmetic(tmp_path, "--resume")
    out, error = capsys.readouterr()
    assert "1 of 1 epochs are done" in out and "completed" not in out and error == ""


def test_summaries_that_fail_in_the_midst(without_arithmetic, tmp_path, capsys, monkeypatch):
    """The run goes on, and the next one makes up for them."""
    from torch.utils.tensorboard import SummaryWriter
    add = SummaryWriter.add_scalar

    def full(writer, name, figure, epoch, seconds):
        if epoch == 2:
            raise OSError("no room")
        add(writer, name, figure, epoch, seconds)

    with monkeypatch.context() as failing:
        failing.setattr(SummaryWriter, "add_scalar", full)
        without_arithmetic(tmp_path, "--epochs", "3")
    assert capsys.readouterr().err.count("no room") == 1
    without_arithmetic(tmp_path, "--resume", "--epochs", "4")
    assert scalars(tmp_path) == logged(tmp_path) and len(logged(tmp_path)["test_loss"]) == 4


@pytest.mark.parametrize("flags", [[], ["--epochs", "5"]])
def test_summaries_that_a_kill_left_out(without_arithmetic, tmp_path, flags):
    """A run that is completed writes them, and so does one that is continued."""
    without_arithmetic(tmp_path, "--epochs", "3")
    events, = tmp_path.glob("events.*")
    events.write_bytes(events.read_bytes()[:400])  # some of the first epoch's
    (tmp_path / "model.json").unlink()
    before = [row["finished_at"] for row in journal.read_log(tmp_path)]
    without_arithmetic(tmp_path, "--resume", *flags)
    assert scalars(tmp_path) == logged(tmp_path) and len(logged(tmp_path)["test_loss"]) == (5 if flags else 3)
    found = EventAccumulator(str(tmp_path)).Reload().Scalars("test_loss")
    assert [time.strftime(journal.TIME, time.gmtime(event.wall_time)) for event in found][:3] == before


def test_limits(without_arithmetic, tmp_path, capsys):
    """60 images in batches of 50 are two steps an epoch; the card says so, and a resumed run keeps the limits."""
    without_arithmetic(tmp_path, "--limit-train", "60", "--limit-test", "7", "--epochs", "1")
    without_arithmetic(tmp_path, "--resume", "--epochs", "2")
    assert capsys.readouterr().out.count("TWBA on digits (first 60 training images, first 7 test images), ") == 2
    assert [row["step"] for row in journal.read_log(tmp_path)] == ["2", "4"]
    recorded = card.read(tmp_path / "model.npz")["recipe"]
    assert (recorded["limit_train"], recorded["limit_test"]) == (60, 7)


def test_a_run_with_teachers(without_arithmetic, finished_run, precise_run, tmp_path):
    """The card names the teachers; a resumed run must be given the same ones again."""
    folder, models = tmp_path / "run", [finished_run / "model.npz", precise_run / "model.npz"]
    both = ["--teacher", *map(str, models)]
    without_arithmetic(folder, "--epochs", "1", *both)
    teachers = [{"file": f"{model.parent.name}/model.npz", "sha256": hashlib.sha256(model.read_bytes()).hexdigest()}
                for model in models]
    assert card.read(folder / "model.npz")["recipe"]["teacher"] == teachers
    first, second = (teacher["file"] for teacher in teachers)
    for flags, line in (((), f"({first}, {second}): name it with --teacher"),
                        (both[:2], f"error: {folder}/training.npz: had {first}, {second} as --teacher, not {first}: "),
                        ([both[0], *both[:0:-1]], f"had {first}, {second} as --teacher, not {second}, {first}: ")):
        with pytest.raises(SystemExit, match=re.escape(line)):
            without_arithmetic(folder, "--resume", "--epochs", "2", *flags)
    without_arithmetic(folder, "--resume", "--epochs", "2", *both)
    assert card.read(folder / "model.npz")["recipe"]["teacher"] == teachers
    with pytest.raises(SystemExit, match="had none as --teacher"):
        without_arithmetic(precise_run, "--resume", "--epochs", "3", "--teacher", str(finished_run))
    with pytest.raises(SystemExit, match="nothing: no such model"):
        without_arithmetic(tmp_path / "new", "--teacher", str(tmp_path / "nothing"))
    shutil.copy(models[0], tmp_path / "alone.npz")
    with pytest.raises(SystemExit, match="alone.npz: cannot teach without its card"):
        without_arithmetic(tmp_path / "new", "--teacher", str(tmp_path / "alone.npz"))
    np.savez(tmp_path / "exported.npz", meta="")
    with pytest.raises(SystemExit, match="exported.npz: is an exported network"):
        without_arithmetic(tmp_path / "new", "--teacher", str(tmp_path / "exported.npz"))
    assert not (tmp_path / "new").exists()


def test_tensorflow_does_not_go_on_with_what_it_cannot_do(tmp_path, precise_run):
    with pytest.raises(AssertionError, match="error: .*training.npz: .* continue with python -m twba_torch.train"):
        in_tensorflow("TWBA/cifar10_twba_example.py", "--output", tmp_path, "--resume", precise_run, "--epochs", "3")


def test_hold_out(without_arithmetic, tmp_path, monkeypatch, capsys):
    """The last training images replace the test images; a resumed run keeps this."""
    seen = []
    monkeypatch.setattr(WithoutArithmetic, "evaluate", lambda trainer: seen.append(
        (len(trainer.training), trainer.test.x.numpy())) or journal.Tested(2.5, 0.125, 8.0, 0.1))
    checked = []  # for a class that one of both parts lacks
    monkeypatch.setattr(datasets, "warn_if_sorted", lambda name, labels, chosen: checked.append(len(chosen)))
    without_arithmetic(tmp_path, "--hold-out", "20", "--epochs", "1")
    assert checked[:2] == [90, 20]
    without_arithmetic(tmp_path, "--resume", "--epochs", "2")
    held_out = datasets.load("digits", PAPER.picture_shape, PAPER.classes).x_train[-20:]
    for images, tested in seen:
        assert images == 90
        np.testing.assert_array_equal(tested, held_out)
    assert capsys.readouterr().out.count("digits (tested on 20 held-out training images), ") == 2
    assert card.read(tmp_path / "model.npz")["recipe"]["hold_out"] == 20
    with pytest.raises(SystemExit, match="--hold-out 61: .* hold out fewer"):
        without_arithmetic(tmp_path / "new", "--hold-out", "61")
    with pytest.raises(SystemExit, match="its hold_out is 20, not 30: ask for no other"):
        without_arithmetic(tmp_path, "--resume", "--hold-out", "30", "--epochs", "3")


def test_a_model_that_is_behind_is_brought_up_to_date(without_arithmetic, finished_run, run, capsys):
    model = npz.read_model(run / "model.npz", PAPER)
    npz.save_model(run / "model.npz", dict(model, **{"model/bn0/beta": model["model/bn0/beta"] - 1}), PAPER)
    for name in ("model.json", "learning_curve.png"):
        (run / name).unlink()
    (run / ".model.json.tmp").write_text("{")
    without_arithmetic(run, "--resume")
    assert_same_run(run, finished_run)
    assert "run: completed: " in capsys.readouterr().out
    without_arithmetic(run, "--resume")
    output = capsys.readouterr().out
    assert "2 of 2 epochs are done" in output and "completed" not in output


@pytest.mark.parametrize("named", ["run", "link", "run/training.npz"])
def test_a_run_that_is_completed_keeps_its_recipe(without_arithmetic, finished_run, run, tmp_path, named, capsys):
    """Whatever its path and the flags are: nothing is trained with them."""
    (tmp_path / "link").symlink_to(run)
    (run / "model.json").unlink()
    without_arithmetic(run, "--resume", str(tmp_path / named), "--learning-rate", "0.5", "--batch-size", "7")
    assert "completed: " in capsys.readouterr().out
    assert_same_run(run, finished_run)
    assert card.load_recipe(run / "model.npz") == card.load_recipe(finished_run / "model.npz")


@pytest.mark.parametrize("flag", ["--resume", "--initial-weights"])
def test_what_tensorflow_took_further_is_not_passed_by(without_arithmetic, run, tmp_path, flag):
    """Also if the folder's path is spelled differently, or PyTorch has saved nothing yet."""
    (tmp_path / "link").symlink_to(run)
    for name in ("index", "data-00000-of-00001"):
        (run / ("model_cifar10_advanced.ckpt-3." + name)).write_text("")
    output = run if flag == "--resume" else tmp_path / "new"
    for named in ("link", "run/training.npz", "run/model_cifar10_advanced.ckpt-3"):
        with pytest.raises(SystemExit, match="epoch 3: .* -m twba_tensorflow.convert "):
            without_arithmetic(output, flag, str(tmp_path / named))
    if flag == "--initial-weights":  # which no training continues from
        without_arithmetic(output, flag, str(run / "model.npz"), "--epochs", "1")


def test_what_tensorflow_did_not_come_to_name_is_passed_by(without_arithmetic, run):
    """A kill during its save leaves a checkpoint that TensorFlow would not continue from either."""
    for epoch in (2, 3):
        for name in ("index", "data-00000-of-00001"):
            (run / f"model_cifar10_advanced.ckpt-{epoch}.{name}").write_text("")
    (run / "checkpoint").write_text('model_checkpoint_path: "model_cifar10_advanced.ckpt-2"\n')
    without_arithmetic(run, "--resume", "--epochs", "3")
    assert npz.read_epoch(run / "training.npz") == 3


def test_an_epoch_is_saved_before_it_is_told(without_arithmetic, tmp_path, monkeypatch, capsys):
    told, saving = [], WithoutArithmetic.saving

    def watched(trainer, folder, epoch):
        save = saving(trainer, folder, epoch)

        def saved():
            sha256 = save()
            told.append("epoch 1/1" in capsys.readouterr().out)
            return sha256
        return saved

    monkeypatch.setattr(WithoutArithmetic, "saving", watched)
    without_arithmetic(tmp_path / "run", "--epochs", "1")
    assert told == [False] and "epoch 1/1" in capsys.readouterr().out


@pytest.mark.parametrize("flags, saved", [([], [1, 2, 3]), (["--minutes", "1.5"], [1, 2])])
def test_a_clock_that_is_set_back(without_arithmetic, tmp_path, monkeypatch, flags, saved):
    """Saves and --minutes depend on the elapsed time, not on the wall clock."""
    clock, saving, epochs = Clock(), WithoutArithmetic.saving, []
    monkeypatch.setattr(training, "time", clock)
    monkeypatch.setattr(WithoutArithmetic, "train_epoch", lambda *_: clock.pass_minute() or journal.Trained(2.0, 0.25, 0.1))
    monkeypatch.setattr(WithoutArithmetic, "saving", lambda *given: epochs.append(given[2]) or saving(*given))
    without_arithmetic(tmp_path / "run", "--epochs", "3", *flags)
    assert epochs == saved


def test_seconds_of_a_clock_that_is_set_back(few_digits, short_recipe, monkeypatch):
    clock = Clock()
    monkeypatch.setattr(training, "time", clock)
    monkeypatch.setattr(Trainer, "train_batch", lambda *_: clock.pass_minute() or torch.zeros(2, dtype=torch.float64))
    monkeypatch.setattr(Trainer, "evaluation_step", lambda *_: clock.pass_minute() or torch.zeros(10, dtype=torch.float64))
    trainer = Trainer(short_recipe, few_digits, CPU, compiled=False)
    assert (trainer.train_epoch(0).seconds, trainer.evaluate().seconds) == (180, 120)  # 3 and 2 batches


@pytest.mark.parametrize("when, line", [
    ("train_epoch", "stopped; no epoch is saved yet: begin again"),
    ("evaluate", "stopped; continue from the last checkpoint with --resume")])
def test_resuming_is_advised_where_it_is_possible(without_arithmetic, tmp_path, monkeypatch, capsys, when, line):
    def interrupted(*_):
        if when == "train_epoch" or (tmp_path / "run" / "training.npz").exists():
            os.kill(os.getpid(), signal.SIGTERM)
        return journal.Tested(2.5, 0.125, 8.0, 0.1)

    monkeypatch.setattr(WithoutArithmetic, when, interrupted)
    with pytest.raises(SystemExit) as stopped:
        without_arithmetic(tmp_path / "run", "--epochs", "2")
    assert stopped.value.code == 130 and capsys.readouterr().err == "\n%s\n" % line


def test_a_damaged_log_is_found_before_training(without_arithmetic, run):
    (run / "log.csv").write_bytes(b"\xff\0")
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    with pytest.raises(SystemExit, match="error: .*log.csv: .*restore"):
        without_arithmetic(run, "--resume", "--epochs", "3")
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before


def test_variables_that_are_no_numbers_are_not_saved(without_arithmetic, run, monkeypatch):
    """The loss may not show them, because a NaN is quantised to 0."""
    def diverge(trainer, epoch):
        with torch.no_grad():
            trainer.network.kernels["cnn1"].fill_(float("nan"))
        return journal.Trained(2.0, 0.25, 0.1)

    monkeypatch.setattr(WithoutArithmetic, "train_epoch", diverge)
    with pytest.raises(SystemExit, match="error: model/cnn1_1/W_conv2d holds values that are not finite in epoch 3: "
                       "continue from the last checkpoint with --resume and a lower --learning-rate"):
        without_arithmetic(run, "--resume", "--epochs", "3")
    assert npz.read_epoch(run / "training.npz") == 2 and card.read(run / "model.npz")["epochs"] == 2


def places(folder):
    """Which epochs were trained by which processor, as the card says."""
    return [(*span["epochs"], span["device"]) for span in card.read(folder / "model.npz")["provenance"]]


def test_the_card_of_a_run_that_went_elsewhere(without_arithmetic, tmp_path, monkeypatch):
    """It moves from a GPU to a CPU, in the same folder and to another one. Code without a record began it."""
    monkeypatch.setattr(training, "device_name", lambda device: "a GPU")
    without_arithmetic(tmp_path / "run", "--epochs", "2")
    monkeypatch.setattr(training, "device_name", lambda device: "a CPU")
    without_arithmetic(tmp_path / "new", "--resume", str(tmp_path / "run"), "--epochs", "3")
    without_arithmetic(tmp_path / "run", "--resume", "--epochs", "4")
    assert places(tmp_path / "run") == [(1, 2, "a GPU"), (3, 4, "a CPU")]
    assert places(tmp_path / "new") == [(1, 2, "a GPU"), (3, 3, "a CPU")]
    seconds = [card.read(tmp_path / name / "model.npz")["training_seconds"] for name in ("run", "new")]
    assert seconds == [pytest.approx(0.8), None]
    (tmp_path / "run" / "provenance.json").unlink()
    without_arithmetic(tmp_path / "run", "--resume", "--epochs", "5")
    assert places(tmp_path / "run") == [(1, 4, None), (5, 5, "a CPU")]


def test_a_card_that_another_machine_writes(without_arithmetic, tmp_path, monkeypatch):
    """A run was killed before its card: the machine that completes it has trained nothing."""
    monkeypatch.setattr(training, "device_name", lambda device: "a GPU")
    without_arithmetic(tmp_path / "run", "--epochs", "1")
    (tmp_path / "run" / "model.json").unlink()
    monkeypatch.setattr(training, "device_name", lambda device: "a CPU")
    without_arithmetic(tmp_path / "run", "--resume", "--epochs", "1")
    assert places(tmp_path / "run") == [(1, 1, "a GPU")]


def test_a_damaged_provenance_is_found_before_training(without_arithmetic, run, tmp_path):
    (run / "provenance.json").write_text("none")
    for flags in ([run, "--resume"], [tmp_path / "new", "--resume", str(run)]):
        with pytest.raises(SystemExit, match="error: .*provenance.json: damaged .*: restore it, or move it away"):
            without_arithmetic(*flags, "--epochs", "3")
    assert not (tmp_path / "new").exists() and npz.read_epoch(run / "training.npz") == 2


def test_initial_weights_that_are_replaced_while_they_are_read(without_arithmetic, run, tmp_path, monkeypatch):
    """The recipe has the digest of the file whose weights the run began with."""
    digest, load = hashlib.sha256((run / "training.npz").read_bytes()).hexdigest(), datasets.load
    before = npz.read_training(run / "training.npz", PAPER)
    other = {name: value + 5 if name.endswith("beta") else value for name, value in before.items()}

    def load_while_it_trains(*named):
        npz.save_training(run / "training.npz", other, 3)
        return load(*named)

    monkeypatch.setattr(datasets, "load", load_while_it_trains)
    without_arithmetic(tmp_path / "new", "--initial-weights", str(run), "--epochs", "1")
    assert card.read(tmp_path / "new" / "model.npz")["recipe"]["initial_weights"]["sha256"] == digest
    after = npz.read_training(tmp_path / "new" / "training.npz", PAPER)
    np.testing.assert_array_equal(after["model/bn0/beta"], before["model/bn0/beta"] + np.float32(1))


def test_a_card_vouches_for_what_was_written(without_arithmetic, finished_run, tmp_path, monkeypatch):
    """It does not vouch for a model that replaces it before the card is written."""
    monkeypatch.setattr(journal.Journal, "draw", lambda log: shutil.copy(finished_run / "model.npz", log.folder))
    without_arithmetic(tmp_path / "run", "--epochs", "1")
    with pytest.raises(training.UserError, match="model.npz: its sha256 is not the one in model.json"):
        card.read(tmp_path / "run" / "model.npz")


def test_a_card_stays_until_the_model_changes(without_arithmetic, run, monkeypatch):
    monkeypatch.setattr(WithoutArithmetic, "train_epoch", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        without_arithmetic(run, "--resume", "--epochs", "3")
    assert card.read(run / "model.npz")["epochs"] == 2


@pytest.mark.parametrize("flags", [[], ["--resume"]])
def test_another_run_ended_before_this_one_claimed_the_folder(without_arithmetic, tmp_path, monkeypatch, flags):
    folder = tmp_path / "run"
    if flags:
        without_arithmetic(folder, "--epochs", "1")

    def load_slowly(*named):
        monkeypatch.setattr(datasets, "load", load)
        without_arithmetic(folder, "--epochs", "2", *flags)
        return load(*named)

    load = datasets.load
    monkeypatch.setattr(datasets, "load", load_slowly)
    with pytest.raises(SystemExit, match="run: (holds a run|another process)"):
        without_arithmetic(folder, "--epochs", "4", *flags)
    assert npz.read_epoch(folder / "training.npz") == 2 and card.read(folder / "model.npz")["epochs"] == 2


def test_another_folders_checkpoint_does_not_overwrite_a_run(without_arithmetic, finished_run, run):
    with pytest.raises(SystemExit, match="run: holds a run already"):
        without_arithmetic(run, "--epochs", "3", "--resume", str(finished_run))


def test_a_released_model_is_not_overwritten(without_arithmetic, run):
    """As TWBA/ holds one: a model without a checkpoint."""
    (run / "training.npz").unlink()
    with pytest.raises(SystemExit, match="run: holds a model .*model.npz.*another folder"):
        without_arithmetic(run, "--epochs", "3")


@pytest.mark.parametrize("name", ["meta", "mps", "hpu", "cpu:x", "", "cuda:99999999999999999999"])
def test_devices_that_cannot_train(name):
    with pytest.raises(training.UserError, match="^--device %s: [^\n]*$" % name):
        device.find(name)


@pytest.mark.parametrize("flag, value", [
    ("--minutes", "0"), ("--minutes", "-1"), ("--minutes", "nan"), ("--minutes", "inf"), ("--batch-size", "1" * 19),
    ("--threads", "1" * 10), ("--resume", "")])
def test_numbers_that_make_no_sense(flag, value, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        train.main(arguments(tmp_path, flag, value)[2:])
    assert stopped.value.code == 2 and "error: argument %s: " % flag in capsys.readouterr().err


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("package, program", [
    ("torch", ["-m", "twba_torch.train"]), ("numpy", ["-m", "twba_torch.train"]), ("torch", ["benchmarks/training_torch.py"]),
    ("nir", ["-m", "twba_chip.formats.nir_graph", "x", "y"]), ("onnx", ["-m", "twba_chip.formats.onnx_model", "x", "y"]),
    # the first that takes long of Python's own modules
    *((module, program) for module in ("typing", "pathlib") for program in (
        ["-m", "twba_chip.formats.onnx_model"], ["-m", "twba_torch.train"], ["twba_command.py", "to-onnx"]))])
def test_interrupted_while_importing(package, program, signal_number, tmp_path):
    status, error = interrupt_import(program, package, signal_number, tmp_path)
    assert (status, error) == (130, "\nstopped\n")


def test_mistakes_get_one_line(tmp_path, finished_run):
    assert "no checkpoint to resume" in complaint(*arguments(tmp_path / "none", "--resume"))
    assert "holds a run already" in complaint(*arguments(finished_run))
    model = str(finished_run / "model.npz")
    assert "holds quantised weights only" in complaint(*arguments(tmp_path, "--resume", model))
    assert "its seed is 0, not 5" in complaint(*arguments(finished_run, "--resume", "--seed", "5", "--epochs", "9"))
    assert "--device cuda:77: not usable" in complaint(*arguments(tmp_path, "--device", "cuda:77"))
    assert "add --no-compile" in complaint(*(flag for flag in arguments(tmp_path) if flag != "--no-compile"),
                                           environment={"CXX": "no-such-compiler"})
    values = npz.read_training(finished_run / "training.npz", PAPER)
    npz.save_training(tmp_path / "training.npz", values, 2)
    assert "--activation" in complaint(*arguments(tmp_path, "--resume"))
    values["model/bn1_1/beta/Adam"][0] = np.nan
    npz.save_training(tmp_path / "training.npz", values, 2)
    assert "bn1_1/beta/Adam holds values that are not finite" in complaint(
        *arguments(tmp_path, "--resume", "--activation", "binary"))
    damaged = tmp_path / "training.npz"
    damaged.write_bytes((finished_run / "training.npz").read_bytes()[:-1000])
    assert "training.npz: damaged" in complaint(*arguments(tmp_path, "--resume"))


def test_a_finished_run_says_so(finished_run):
    status, _, output = command(*arguments(finished_run, "--resume"))
    assert status == 0 and "2 of 2 epochs are done" in output


def test_loss_that_is_no_number(few_digits, short_recipe):
    recipe = dataclasses.replace(short_recipe, learning_rate_steps=((0, 1e30),))
    with pytest.raises(training.UserError, match="lower --learning-rate"):
        Trainer(recipe, few_digits, CPU, compiled=False).train_epoch(0)
