"""Training runs: resumed, killed, in several processes, and passed between the frameworks."""
import dataclasses
import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from conftest import REPOSITORY, in_tensorflow
from twba_nets import architecture as arch, files, journal, npz, recipe as recipes
from twba_torch import training, variables
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
    """A run of two epochs. Not to be changed by a test."""
    folder = tmp_path_factory.mktemp("finished_run")
    short_recipe.save(folder)
    training.train(Trainer(short_recipe, few_digits, CPU, compiled=False), folder, 0)
    return folder


def test_files_of_a_run(finished_run, short_recipe):
    assert {path.name for path in finished_run.iterdir()} == {
        "training.npz", "model.npz", "model.json", "recipe.json", "log.csv", "learning_curve.png"}
    assert {name: value.shape for name, value in npz.read_training(finished_run / "training.npz").items()} == \
        arch.training_variable_shapes()
    assert npz.read_epoch(finished_run / "training.npz") == 2
    model = npz.read_model(finished_run / "model.npz")
    assert {name: value.shape for name, value in model.items()} == arch.variable_shapes()
    npz.check_variant(model, "twba", "model.npz")
    card = json.loads((finished_run / "model.json").read_text())
    rows = journal.read_log(finished_run)
    assert [row["step"] for row in rows] == ["3", "6"]
    assert card["test_accuracy"] == float(rows[-1]["test_accuracy"]) and card["epochs"] == 2
    assert recipes.load(finished_run / "model.npz") == short_recipe


def test_the_quantised_model_is_the_trained_one(finished_run, few_digits, short_recipe):
    """Evaluated from model.npz, a run gives the accuracy and spikes of its log."""
    trainer = Trainer(short_recipe, few_digits, CPU, compiled=False)
    variables.assign(npz.read_model(finished_run / "model.npz"), trainer.network)
    result = trainer.evaluate()
    card = json.loads((finished_run / "model.json").read_text())
    assert result.accuracy == card["test_accuracy"] and sum(result.spikes) == card["spikes_per_image"]


def test_a_run_in_pieces_is_the_whole_run(tmp_path, finished_run, few_digits, short_recipe):
    first = Trainer(short_recipe, few_digits, CPU, compiled=False)
    assert training.train(first, tmp_path, 0, minutes=1e-9) == 1
    assert not (tmp_path / "model.json").exists()  # no finished run
    second = Trainer(short_recipe, few_digits, CPU, compiled=False)
    variables.assign(npz.read_training(tmp_path / "training.npz"), second.network, second.adam)
    assert training.train(second, tmp_path, npz.read_epoch(tmp_path / "training.npz"), minutes=60) == 2
    assert_same_files(tmp_path / "training.npz", finished_run / "training.npz")
    assert_same_files(tmp_path / "model.npz", finished_run / "model.npz")
    assert [row["epoch"] for row in journal.read_log(tmp_path)] == ["1", "2"]


def test_learning(few_digits, short_recipe):
    trainer = Trainer(short_recipe, few_digits, CPU, compiled=False)
    losses = [trainer.train_epoch(epoch)[0] for epoch in range(4)]
    assert losses[-1] < losses[0] - 0.3


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
        uniforms = torch.full((50, 5), 0.4)
        loss, correct = trainer.step_of(trainer.training_step, 50)(images, uniforms, labels)
        loss.backward()
        rows.append((loss.item(), correct.item(), trainer.network.kernels["output"].grad))
    assert rows[0][:2] == pytest.approx(rows[1][:2], rel=1e-9)
    torch.testing.assert_close(rows[0][2], rows[1][2], rtol=1e-6, atol=1e-9)


def test_two_processes_compute_what_one_does(tmp_path):
    """Batch statistics of the global batch, gradients of its mean loss, each test image counted once: in float64."""
    for processes in (1, 2):
        status, line, _ = command("-m", "torch.distributed.run", "--nproc-per-node", str(processes), "--master-port",
                                  str(29500 + os.getpid() % 1000), "tests_torch/one_epoch.py",
                                  str(tmp_path / str(processes)))
        assert status == 0, line
    one, two = (npz.read_training(tmp_path / name / "training.npz") for name in ("1", "2"))
    for name in one:
        np.testing.assert_allclose(two[name], one[name], rtol=0, atol=1e-8, err_msg=name)
    one, two = (json.loads((tmp_path / name / "model.json").read_text()) for name in ("1", "2"))
    assert one["test_accuracy"] == two["test_accuracy"] and one["spikes_per_image"] == two["spikes_per_image"]
    assert two["versions"]["processes"] == 2


def test_killed_and_resumed_from_the_command_line(tmp_path):
    """kill -9 in the middle of an epoch; the run then ends as one that was left alone."""
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
    """PyTorch trains, TensorFlow goes on and evaluates, its checkpoint is converted, PyTorch goes on."""
    run = tmp_path / "run"
    run.mkdir()
    for name in ("training.npz", "recipe.json", "log.csv"):
        (run / name).write_bytes((finished_run / name).read_bytes())
    output = in_tensorflow("TWBA/cifar10_twba_example.py", "--output", run, "--resume", "--epochs", "3")
    assert "epochs 3 to 3" in output
    assert "TensorFlow took this run to epoch 3" in complaint(*arguments(run, "--resume", "--epochs", "4"))
    in_tensorflow("-m", "twba_nets.convert", run)
    converted = npz.read_training(run / "training.npz")
    assert converted["model/cnn6_16/W_conv2d/Adam_1"].any()
    status, line, output = command(*arguments(run, "--resume", "--epochs", "4"))
    assert status == 0 and "epochs 4 to 4" in output, line
    card = json.loads((run / "model.json").read_text())
    report = in_tensorflow("TWBA/cifar10_twba_spikes.py", "--checkpoint", run / "model.npz")
    assert "test accuracy %.2f%%" % (100 * card["test_accuracy"]) in report


def test_mistakes_get_one_line(tmp_path, finished_run):
    assert "no checkpoint to resume from" in complaint(*arguments(tmp_path / "none", "--resume"))
    assert "holds a run already" in complaint(*arguments(finished_run))
    model = str(finished_run / "model.npz")
    assert "holds quantised weights only" in complaint(*arguments(tmp_path, "--resume", model))
    assert "its seed is 0, not 5" in complaint(*arguments(finished_run, "--resume", "--seed", "5", "--epochs", "9"))
    assert "--device cuda:77: not usable" in complaint(*arguments(tmp_path, "--device", "cuda:77"))
    assert "add --no-compile" in complaint(*(flag for flag in arguments(tmp_path) if flag != "--no-compile"),
                                           environment={"CXX": "no-such-compiler"})
    values = npz.read_training(finished_run / "training.npz")
    npz.save_training(tmp_path / "training.npz", values, 2)
    assert "add --activation binary" in complaint(*arguments(tmp_path, "--resume"))
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
