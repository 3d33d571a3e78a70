"""The example scripts as a user meets them: flags, figures, and one clear line for every mistake."""
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from helpers import OWN, REPOSITORY, command_error, interrupt_import, process_error, start_python, to_toml
from twba_chip import evaluate
from twba_chip.spiking import file as spiking_file
from twba_nets import command_line, datasets
from twba_nets.network.architecture import PAPER, is_quantised
from twba_nets.network.quantisers import ACTIVATIONS, LATENT, WEIGHTS
from twba_nets.runs import card, journal, npz, recipe as recipes, run_folder, spike_statistics
from twba_nets.system import files, places
from twba_tensorflow import checkpoint, convert, export, scripts
from twba_tensorflow.evaluation import Result

SCRIPTS = ["%s/cifar10_%s_%s.py" % (variant.upper(), variant, task)
           for variant in WEIGHTS for task in ("example", "spikes")]


@pytest.fixture
def on_few_digits(monkeypatch, few_digits):
    """Whatever data set is asked for, it has these images, under its own classes' names."""
    monkeypatch.setattr(datasets, "load", lambda source, *_: few_digits._replace(
        class_names=datasets.NAMES[source]))


@pytest.fixture
def training_calls(monkeypatch, on_few_digits):
    """What scripts.train would train: a list of (recipe, folder, start, first epoch, initial weights, graph)."""
    from twba_tensorflow import training
    calls = []
    monkeypatch.setattr(training, "train", lambda recipe, data, folder, start, first_epoch, threads, initial, graph:
                        calls.append((recipe, folder, start, first_epoch, initial, graph)))
    return calls


def fails(capsys, function, *arguments, **named):
    """The one line on stderr of a call that must end with a non-zero exit."""
    with pytest.raises(SystemExit) as info:
        function(*arguments, **named)
    assert info.value.code not in (0, None)
    line = info.value.code if isinstance(info.value.code, str) else capsys.readouterr().err
    assert line.startswith("error: ") and "\n" not in line
    return line


def train(*flags, **named):
    scripts.train(recipes.paper("twba"), argv=[str(flag) for flag in flags], **named)


INTERRUPTED_IN_C = """
import os, signal, sys, time
sys.path.insert(0, %r)
from twba_nets.system import interrupts

with interrupts.one_line_for_mistakes("stopped"):
    try:
        os.kill(os.getpid(), signal.%%s)
        time.sleep(60)
    except KeyboardInterrupt:
        raise SystemError("<built-in function GetOperationInputs> returned a result with an error set")
""" % str(REPOSITORY)


@pytest.mark.parametrize("signal_name", ["SIGINT", "SIGTERM"])
def test_interrupted_in_c_code(signal_name):
    """TensorFlow's wrappers turn a KeyboardInterrupt into another error. It still counts as the user's interruption."""
    process = start_python(INTERRUPTED_IN_C % signal_name)
    _, error = process.communicate(timeout=300)
    assert (process.returncode, error) == (130, "\nstopped\n")


INTERRUPTED_IN_A_LIBRARY = """
import os, signal, sys, time
sys.path.insert(0, %r)
from twba_nets.system import interrupts

with interrupts.one_line_for_mistakes("stopped"):
    with %%s:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
        except BaseException as error:
            print("raised")
        time.sleep(60)
""" % str(REPOSITORY)


@pytest.mark.parametrize("context, output", [("open(os.devnull)", "raised\n"), ("interrupts.exiting_at_once()", "")])
def test_interrupted_where_it_gets_lost(context, output):
    """An exception that a library swallows is raised again. None is raised where it does harm."""
    process = start_python(INTERRUPTED_IN_A_LIBRARY % context)
    assert process.communicate(timeout=300) == (output, "\nstopped\n") and process.returncode == 130


LOST_WITHIN = """
import os, signal, sys
sys.path.insert(0, %r)
from twba_nets.system import interrupts

class Stopped:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(1000):  # until Python has called the handler, whose exception a destructor swallows
            pass

with interrupts.one_line_for_mistakes("stopped"):
    with interrupts.one_line_for_mistakes("stopped within"):
        Stopped()
    print("goes on")
""" % str(REPOSITORY)


def test_interrupted_at_the_end_of_a_command_within_another():
    process = start_python(LOST_WITHIN)
    output, error = process.communicate(timeout=300)
    assert process.returncode == 130 and output == "" and error.endswith("\nstopped within\n")


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("package, arguments", [
    *(("numpy", [script]) for script in SCRIPTS), ("tensorflow", SCRIPTS[:1]), ("tensorflow", SCRIPTS[1:2]),
    ("numpy", ["-m", "twba_tensorflow.export", "x", "y"]), ("tensorflow", ["-m", "twba_tensorflow.export", "x", "y"]),
    ("numpy", ["-m", "twba_tensorflow.convert", "x"]), ("numpy", ["-m", "twba_chip.report", "x", "y"]),
    ("matplotlib", ["-m", "twba_chip.report", "x", "y"]), ("numpy", ["benchmarks/training.py"]),
    ("numpy", ["benchmarks/inference.py"]),
    # the first that takes long of Python's own modules; -S, as installed packages may have Python import them at its start
    *((module, ["-S"] + arguments) for module in ("typing", "pathlib") for arguments in (
        SCRIPTS[:1], SCRIPTS[1:2], ["twba_command.py", "export"], ["-m", "twba_chip.export"],
        ["-m", "twba_tensorflow.convert"]))])
def test_interrupted_while_importing(package, arguments, signal_number, tmp_path):
    status, error = interrupt_import(arguments, package, signal_number, tmp_path)
    assert status == 130 and error.startswith("\nstopped") and error.count("\n") == 2


@pytest.mark.parametrize("arguments, environment", [
    *(([script], "") for script in SCRIPTS), (["-m", "twba_tensorflow.export", "x", "y"], ""),
    (["-m", "twba_tensorflow.convert", "x"], ""), (["-m", "twba_chip.report", "x", "y"], ""),
    (["-m", "twba_chip.formats.nir_graph", "x", "y"], "-torch"), (["-m", "twba_chip.formats.onnx_model", "x", "y"], "-torch"),
    (["-m", "twba_chip.formats.qonnx_model", "x", "y"], "-torch"), (["docs/release.py", "x"], "-torch"),
    (["-m", "twba_torch.train"], "-torch"),
    (["benchmarks/training.py"], ""), (["benchmarks/inference.py"], ""), (["benchmarks/training_torch.py"], "-torch")])
def test_without_packages(arguments, environment):
    """-S: Python then finds none."""
    done = subprocess.run([sys.executable, "-S"] + arguments, cwd=str(REPOSITORY), stderr=subprocess.PIPE,
                          universal_newlines=True)
    line = process_error(done.returncode, done.stderr)
    package, rest = line.split(" ", 1)
    assert package in ("numpy", "tqdm", "nir", "onnx", "torch")
    assert rest == (f"is not installed for {sys.executable}: run `make setup{environment}`, then the same command with "
                    f".venv{environment}/bin/python")


@pytest.mark.parametrize("backend", ["module://matplotlib_inline.backend_inline", "nonsense", None])
def test_the_users_backend_of_matplotlib(backend):
    """TensorLayer imports pyplot. A missing backend ends nothing, and the user's setting is restored."""
    environment = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}
    code = "import os; from twba_tensorflow import quieten_tensorflow; quieten_tensorflow(); print(os.environ.get('MPLBACKEND'))"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=str(REPOSITORY), stdout=subprocess.PIPE,
                          universal_newlines=True, env=dict(environment, **{"MPLBACKEND": backend} if backend else {}))
    assert (done.returncode, done.stdout) == (0, f"{backend}\n")


def test_a_package_that_tensorlayer_lacks(tmp_path):
    """It is named: nothing is wrong with the patch."""
    (tmp_path / "lxml.py").write_text("raise ModuleNotFoundError('none', name='lxml')")
    done = subprocess.run([sys.executable, "-W", "ignore", SCRIPTS[0], "--output", str(tmp_path / "run")], cwd=str(REPOSITORY),
                          stderr=subprocess.PIPE, universal_newlines=True, env=dict(os.environ, PYTHONPATH=str(tmp_path)))
    assert process_error(done.returncode, done.stderr).startswith("lxml is not installed for")


@pytest.mark.parametrize("name", ["tensorflow.python", "twba_nets.nothing"])
def test_a_module_that_is_missing_within(name):
    """A missing package gets one line even in the middle of the program. A missing module of this project is a bug."""
    code = ("from twba_nets.system import interrupts; interrupts.exit_at_once()\n"
            f"with interrupts.one_line_for_mistakes('stopped'): raise ModuleNotFoundError('no', name={name!r})")
    done = subprocess.run([sys.executable, "-c", code], cwd=str(REPOSITORY), stderr=subprocess.PIPE, universal_newlines=True)
    assert done.returncode == 1
    assert done.stderr.startswith("error: tensorflow is not" if name.startswith("tensorflow") else "Traceback")


@pytest.mark.parametrize("script", SCRIPTS)
def test_help(script, tmp_path):
    """From any folder, without TensorFlow's import."""
    output = subprocess.check_output([sys.executable, "-X", "importtime", str(REPOSITORY / script), "--help"],
                                     stderr=subprocess.STDOUT, cwd=str(tmp_path)).decode()
    assert script.split("/")[0] + "-Net" in output and "--data-dir DIR" in output and "--threads N" in output
    imported = [line.split("|")[-1].strip() for line in output.splitlines() if line.startswith("import time")]
    assert "twba_tensorflow.scripts" in imported and "tensorflow" not in imported


def test_defaults_are_the_papers(training_calls, tmp_path, monkeypatch):
    assert command_line.default_run("bwba") == REPOSITORY / "runs" / "bwba"
    monkeypatch.setattr(places, "HOME", tmp_path)
    scripts.train(recipes.paper("bwba"), argv=[])
    assert training_calls == [(recipes.paper("bwba"), tmp_path / "runs" / "bwba", None, 0, None, "fast")]


def test_flags_amend_the_recipe(training_calls, tmp_path):
    train("--output", tmp_path / "run", "--epochs", 40, "--batch-size", 100, "--seed", 3, "--activation", "three-level",
          "--learning-rate-steps", "0:0.01", "20:0.001")
    recipe = training_calls[0][0]
    assert (recipe.epochs, recipe.batch_size, recipe.seed, recipe.activation) == (40, 100, 3, "three-level")
    assert recipe.learning_rate_steps == ((0, 0.01), (20, 0.001))
    assert card.load_recipe(tmp_path / "run" / "a checkpoint") == recipe


def test_an_earlier_name_of_the_activation(training_calls, tmp_path):
    train("--output", tmp_path / "run", "--activation", "published")
    assert training_calls[0][0].activation == "three-level"
    assert command_line.spikes_parser("twba").parse_args(["--activation", "published"]).activation == "three-level"


def test_linear_decay(training_calls, finished_run, tmp_path):
    train("--output", tmp_path / "run", "--epochs", 4, "--linear-decay", 0.01)
    assert training_calls[0][0].learning_rate_steps == ((0, 0.01), (1, 0.0075), (2, 0.005), (3, 0.0025))
    folder = shutil.copytree(str(finished_run), str(tmp_path / "more"))
    train("--output", folder, "--resume", "--epochs", 4, "--linear-decay", 0.002)  # from now on
    assert training_calls[1][0].learning_rate_steps == ((0, 0.005), (2, 0.002), (3, 0.001))


def test_limits(on_few_digits, few_digits, finished_run, tmp_path, monkeypatch, capsys):
    """Only the first images; the recipe says so, and a resumed run keeps the limits."""
    from twba_tensorflow import training
    training_calls = []
    monkeypatch.setattr(training, "train", lambda recipe, data, *_: training_calls.append((recipe, data)))
    train("--output", tmp_path / "run", "--dataset", "digits", "--limit-train", 60, "--limit-test", 7)
    data = training_calls[0][1]
    np.testing.assert_array_equal(data.x_train, few_digits.x_train[:60])
    np.testing.assert_array_equal(data.y_train, few_digits.y_train[:60])
    np.testing.assert_array_equal(data.x_test, few_digits.x_test[:7])
    np.testing.assert_array_equal(data.y_test, few_digits.y_test[:7])
    assert "(first 60 training images, first 7 test images)" in capsys.readouterr().out
    limited = Path(shutil.copytree(str(finished_run), str(tmp_path / "limited")))
    (limited / "model.json").unlink()
    shutil.copy(str(tmp_path / "run" / "recipe.json"), str(limited))
    train("--output", limited, "--resume", "--epochs", 9)
    assert [len(array) for array in training_calls[1][1][1:5]] == [60, 60, 7, 7]
    assert (training_calls[1][0].limit_train, training_calls[1][0].limit_test) == (60, 7)
    for folder, flag, limit, text in ((limited, "--limit-train", 70, "limit_train is 60"),
                                      (limited, "--limit-test", 8, "limit_test is 7"),
                                      (tmp_path / "new", "--limit-train", 49, "limit_train 49"),
                                      (tmp_path / "new", "--limit-train", 111, "--limit-train 111: digits has 110"),
                                      (tmp_path / "new", "--limit-test", 61, "--limit-test 61: digits has 60")):
        assert text in fails(capsys, train, "--output", folder, "--dataset", "digits", flag, limit,
                             *["--resume"] * folder.exists(), "--epochs", 9)
    assert len(training_calls) == 2 and not (tmp_path / "new").exists()


def test_initial_weights(training_calls, finished_run, tmp_path):
    """A new run with the old one's 270 latent variables, whatever its activation; the recipe says whose they are."""
    train("--output", tmp_path / "run", "--dataset", "digits", "--activation", "three-level", "--initial-weights", finished_run)
    recipe, _, start, first_epoch, initial, _ = training_calls[0]
    assert (start, first_epoch, recipe.activation) == (None, 0, "three-level")
    name = "model_cifar10_advanced.ckpt-2.data-00000-of-00001"
    digest = hashlib.sha256((finished_run / name).read_bytes()).hexdigest()
    assert recipe.initial_weights == {"file": "%s/%s" % (finished_run.name, name), "sha256": digest}
    assert card.load_recipe(tmp_path / "run" / "a checkpoint") == recipe
    latent = checkpoint.read(run_folder.locate(finished_run), PAPER)
    assert list(initial) == list(latent) and all((initial[name] == latent[name]).all() for name in latent)
    train("--output", tmp_path / "another", "--dataset", "digits", "--initial-weights", finished_run / "model.npz")
    quantised, initial = npz.read_model(finished_run / "model.npz", PAPER), training_calls[1][4]
    for name, value in quantised.items():  # quantised weights are scaled, so that training can change them
        scale = LATENT if is_quantised(name) else 1
        assert initial[name].dtype == np.float32 and (initial[name] == scale * value).all(), name


@pytest.mark.slow
def test_a_network_of_ones_own(on_few_digits, finished_run, tmp_path, capsys):
    """Its run's files hold the table of --network. A run of another network is neither resumed nor used as a start."""
    run, file, papers = tmp_path / "run", tmp_path / "own.toml", tmp_path / "paper.toml"
    for path, architecture in ((file, OWN), (papers, PAPER)):
        path.write_text(to_toml(architecture))
    train("--output", run, "--dataset", "digits", "--network", file, "--epochs", 1)
    train("--output", run, "--resume", "--epochs", 2, "--graph", "published")
    assert json.loads((run / "recipe.json").read_text())["architecture"] == OWN.to_json()
    assert card.load_recipe(run / "model.npz").architecture == OWN
    assert len(checkpoint.read_training(run_folder.newest(run), OWN)) == len(OWN.training_variable_shapes)
    export.main([str(run), str(tmp_path / "net.npz")])
    assert spiking_file.load(tmp_path / "net.npz").architecture == OWN
    count("--checkpoint", run, "--json", tmp_path / "spikes.json")
    summary, row = json.loads((tmp_path / "spikes.json").read_text()), journal.read_log(run)[-1]
    assert [row["map"] for row in summary["maps"]] == ["norm2", "conv3"] and summary["accuracy"] == float(row["test_accuracy"])
    convert.main([str(run)])
    assert len(npz.read_training(run / "training.npz", OWN)) == len(OWN.training_variable_shapes)
    capsys.readouterr()
    for folder, flags in ((run, ["--output", run, "--resume", "--network", papers]),
                          (finished_run, ["--output", finished_run, "--resume", "--network", file]),
                          (run, ["--output", tmp_path / "new", "--initial-weights", run]),
                          (finished_run, ["--output", tmp_path / "new", "--network", file, "--initial-weights", finished_run])):
        line = fails(capsys, train, *flags, "--epochs", 9)
        assert str(folder) in line and "--network" in line and "picture" not in line
    assert not (tmp_path / "new").exists()


def test_a_run_of_another_network(training_calls, finished_run, tmp_path, capsys):
    """It is neither resumed nor used as a start."""
    (tmp_path / "own.toml").write_text(to_toml(OWN))
    for flags in (["--output", finished_run, "--resume"], ["--output", tmp_path / "new", "--initial-weights", finished_run]):
        line = fails(capsys, train, *flags, "--network", tmp_path / "own.toml", "--epochs", 9)
        assert str(finished_run) in line and "--network" in line and "picture" not in line
    assert not training_calls and not (tmp_path / "new").exists()


def test_a_checkpoint_without_the_state_file_is_found(training_calls, finished_run, tmp_path, capsys):
    """For example after a copy to another machine, or a kill during the first save: it is resumed, not overwritten."""
    folder = Path(shutil.copytree(str(finished_run), str(tmp_path / "run")))
    (folder / "checkpoint").unlink()
    (folder / "model_cifar10_advanced.ckpt-9.index").write_text("")  # without its data
    train("--output", folder, "--resume", "--epochs", 9)
    assert training_calls[0][2:4] == (folder / "model_cifar10_advanced.ckpt-2", 2)
    assert "holds a run already" in fails(capsys, scripts.train, recipes.paper("twba"), argv=["--output", str(folder)])


@pytest.mark.parametrize("flags", [[], ["--resume", "another"]])
def test_a_released_model_is_not_overwritten(training_calls, finished_run, tmp_path, capsys, flags):
    """As TWBA/ holds one: a model without a checkpoint."""
    shutil.copy(str(finished_run / "model.npz"), str(tmp_path))
    flags = [flag if flag != "another" else str(finished_run) for flag in flags]
    line = fails(capsys, scripts.train, recipes.paper("twba"), argv=["--output", str(tmp_path)] + flags)
    assert "%s: holds a model already" % tmp_path in line and training_calls == []


def test_a_folder_that_tensorflow_takes_for_a_pattern(training_calls, finished_run, tmp_path, capsys):
    folder = shutil.copytree(str(finished_run), str(tmp_path / "run[1]"))
    for flags in ([], ["--resume"]):
        line = fails(capsys, scripts.train, recipes.paper("twba"), argv=["--output", str(folder)] + flags)
        assert "run[1]: " in line
    assert "rename the folder" in fails(capsys, count, "--checkpoint", folder)
    assert training_calls == []


def test_a_folder_that_tensorflow_cannot_write_down(training_calls, finished_run, tmp_path, monkeypatch, capsys):
    """For example one in Latin-1; also as the working folder, with a path relative to it."""
    folder = Path(shutil.copytree(str(finished_run), str(tmp_path / "l\udce4ufe" / "run")))
    monkeypatch.chdir(folder.parent)
    for path in (folder, "run"):
        for flags in ([], ["--resume"]):
            line = fails(capsys, scripts.train, recipes.paper("twba"), argv=["--output", str(path)] + flags)
            assert str(path) in line and "rename the folder" in line
        assert "rename the folder" in fails(capsys, count, "--checkpoint", path)
        assert "rename the folder" in command_error(convert.main, path)
    assert training_calls == []


def test_a_run_that_is_completed_keeps_its_recipe(finished_run, on_few_digits, tmp_path, capsys):
    """Whatever its path and the flags are: nothing is trained with them."""
    (tmp_path / "link").symlink_to(tmp_path / "run")
    for resumed in (["--resume"], ["--resume", str(tmp_path / "link")]):
        folder = Path(shutil.copytree(str(finished_run), str(tmp_path / "run")))
        (folder / "model.json").unlink()
        scripts.train(recipes.paper("twba"), argv=["--output", str(folder), "--learning-rate", "0.5"] + resumed)
        assert "completed: " in capsys.readouterr().out
        assert card.load_recipe(folder / "model.npz") == card.load_recipe(finished_run / "model.npz")
        shutil.rmtree(str(folder))


@pytest.mark.parametrize("name, resumable", [
    ("model_cifar10_advanced.ckpt-1.index", True), ("model_cifar10_advanced.ckpt.index", True), ("training.npz", True),
    ("log.csv", False)])
def test_resuming_is_advised_where_something_is_saved(tmp_path, name, resumable):
    (tmp_path / name).write_text("")
    advice = "go on with --resume" if resumable else "no epoch is saved yet: begin again"
    assert command_line.stopped(tmp_path, "go on with --resume") == "stopped; " + advice


def test_mistaken_initial_weights(finished_run, training_calls, tmp_path, capsys):
    def complaint(variant, *flags):
        flags = ["--output", str(tmp_path / "run")] + [str(flag) for flag in flags]
        return fails(capsys, scripts.train, recipes.paper(variant), argv=flags)
    assert "twba, not bwba" in complaint("bwba", "--initial-weights", finished_run)
    assert "no such checkpoint" in complaint("twba", "--initial-weights", tmp_path / "nowhere")
    assert "--initial-weights begins a run" in complaint(
        "twba", "--resume", finished_run, "--initial-weights", finished_run)
    assert training_calls == [] and not (tmp_path / "run").exists()


@pytest.mark.parametrize("flags, named", [(["--resume"], {}), (["--resume", "True"], {}), ([], {"resume": True})])
def test_resume(training_calls, finished_run, tmp_path, flags, named):
    folder = shutil.copytree(str(finished_run), str(tmp_path / "run"))
    train("--output", folder, "--epochs", 9, *flags, **named)
    recipe, _, start, first_epoch, *_ = training_calls[0]
    assert start.name == "model_cifar10_advanced.ckpt-2" and first_epoch == 2
    assert recipe.dataset == "digits" and recipe.epochs == 9 and recipe.batch_size == 50


def test_resume_with_a_lower_rate_is_the_originals_way(training_calls, finished_run, tmp_path):
    folder = shutil.copytree(str(finished_run), str(tmp_path / "run"))
    train("--output", folder, "--resume", "--learning-rate", 0.0001, "--epochs", 100)
    recipe = training_calls[0][0]
    assert [recipe.learning_rate(epoch) for epoch in (0, 1, 2, 99)] == [0.005, 0.005, 0.0001, 0.0001]


def test_resume_from_the_originals_checkpoint(training_calls, finished_run, tmp_path, capsys):
    for part in (".index", ".data-00000-of-00001"):
        shutil.copy(str(run_folder.newest(finished_run)) + part,
                    str(tmp_path / ("model_cifar10_advanced.ckpt" + part)))
    original, activation = tmp_path / "model_cifar10_advanced.ckpt", ("--activation", "three-level")
    assert "--activation" in fails(capsys, train, "--output", tmp_path / "run", "--resume", original)
    assert not training_calls and not (tmp_path / "run").exists()
    train("--output", tmp_path / "run", "--resume", original, *activation)
    train("--output", tmp_path / "run", "--resume", original, "--initial-epoch", 200, *activation)
    train("--output", tmp_path, "--resume", "--initial-epoch", 200, *activation)
    assert [call[3] for call in training_calls] == [0, 200, 200]
    assert training_calls[1][0].learning_rate(200) == 0.001
    assert {call[0].activation for call in training_calls} == {"three-level"}
    assert "holds no epoch" in capsys.readouterr().out


def test_what_a_kill_left_undone_is_completed(finished_run, on_few_digits, tmp_path, capsys):
    """The model's behind, the curve, the card, half a checkpoint: as after a kill in the last save."""
    folder = Path(shutil.copytree(str(finished_run), str(tmp_path / "run")))
    (folder / "model.npz").write_bytes(b"an epoch behind")
    for name in ("model.json", "learning_curve.png"):
        (folder / name).unlink()
    (folder / "model_cifar10_advanced.ckpt-0.data-00000-of-00001").write_text("")
    (folder / ".model.npz.tmp").write_text("")
    train("--output", folder, "--resume")
    assert "completed: model.npz, its card and the learning curve" in capsys.readouterr().out
    names, expected = ({path.name for path in run.iterdir() if "tfevents" not in path.name} for run in (folder, finished_run))
    assert names == expected
    values, expected = (checkpoint.read(run / "model.npz", PAPER) for run in (folder, finished_run))
    assert all((values[name] == expected[name]).all() for name in expected)
    cards = [card.read(run / "model.npz") for run in (folder, finished_run)]
    assert all(cards[0][key] == cards[1][key] for key in ("recipe", "epochs", "test_accuracy", "test_loss"))


def test_nothing_is_completed_from_another_folder(finished_run, on_few_digits, tmp_path, capsys):
    train("--output", tmp_path / "run", "--resume", finished_run)
    assert "ckpt-2: 2 of 2 epochs are done" in capsys.readouterr().out
    assert not (tmp_path / "run").exists()


def test_nothing_left_to_train(training_calls, finished_run, capsys):
    train("--output", finished_run, "--resume")
    assert training_calls == []
    assert "2 of 2 epochs are done" in capsys.readouterr().out


def test_a_run_is_not_overwritten(finished_run, on_few_digits, capsys):
    assert "holds a run already" in fails(capsys, train, "--output", finished_run)


def test_a_run_belongs_to_one_process(training_calls, tmp_path, capsys):
    with files.claimed(tmp_path):
        line = fails(capsys, train, "--output", tmp_path)
    assert str(tmp_path) in line and "--output" in line
    assert not training_calls and not list(tmp_path.iterdir())
    train("--output", tmp_path)
    assert training_calls


def test_nothing_to_resume(tmp_path, on_few_digits, capsys):
    assert "leave --resume out" in fails(capsys, train, "--output", tmp_path, "--resume")


def test_a_conversion_killed_before_training_npz_leaves_no_run(finished_run, tmp_path, monkeypatch):
    """A training.npz without its recipe would continue with another."""
    def full(*_):
        raise OSError("killed")

    monkeypatch.setattr(npz, "save_training", full)
    with pytest.raises(OSError, match="killed"):
        convert.convert(finished_run, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["provenance.json", "recipe.json"]


@pytest.mark.parametrize("flag, value, text", [
    ("--seed", "9", "its seed is 0, not 9"), ("--activation", "three-level", "its activation is binary"),
    ("--dataset", "cifar10", "its dataset is digits")])
def test_resume_as_something_else(finished_run, on_few_digits, capsys, flag, value, text):
    assert text in fails(capsys, train, "--output", finished_run, "--resume", "--epochs", "9", flag, value)


def test_resume_the_other_variant(finished_run, on_few_digits, capsys):
    line = fails(capsys, scripts.train, recipes.paper("bwba"), argv=["--output", str(finished_run), "--resume"])
    assert "twba, not bwba" in line


def test_missing_data(tmp_path, capsys):
    line = fails(capsys, train, "--output", tmp_path / "run", "--data-dir", tmp_path)
    assert str(tmp_path) in line and "--data-dir" in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("folder", ["file", "file/run"])
def test_unwritable_output(tmp_path, on_few_digits, capsys, folder):
    (tmp_path / "file").write_text("")
    line = fails(capsys, train, "--output", tmp_path / folder)
    assert "%s: " % (tmp_path / folder) in line and "name another" in line


@pytest.mark.parametrize("flags", [
    ["--epochs", "0"], ["--epochs", "1" * 19], ["--epochs", "\u00b2"], ["--batch-size", "-1"],
    ["--batch-size", "1" * 19], ["--batch-size", "50001"], ["--threads", "1" * 10], ["--threads", "1025"],
    ["--threads", "-1"], ["--seed", "-1"],
    ["--seed", "2147483648"], ["--initial-epoch", "1" * 19], ["--learning-rate", "0"], ["--learning-rate", "-1"],
    ["--linear-decay", "0"], ["--linear-decay", "nan"], ["--output", ""], ["--data-dir", ""], ["--initial-weights", ""],
    ["--network", ""], ["--network", "nowhere.toml"],
    ["--learning-rate", "nan"], ["--learning-rate", "inf"], ["--learning-rate", "1e-50"], ["--learning-rate", "1e39"],
    ["--learning-rate-steps", "5"], ["--learning-rate-steps", "0:nan"], ["--learning-rate-steps", "-1:0.1"],
    ["--learning-rate-steps", "0:0.1:2"], ["--learning-rate-steps", "1.5:0.1"], ["--resume", ""],
    ["--activation", "x"], ["--learning-rate", "1", "--learning-rate-steps", "0:1"]])
def test_bad_flags(flags, capsys):
    with pytest.raises(SystemExit) as info:
        train(*flags)
    assert info.value.code == 2
    assert "error: argument %s: " % flags[-2] in capsys.readouterr().err


@pytest.mark.parametrize("flag, value", [("--batch-size", "1" * 19), ("--threads", "1" * 10), ("--limit", "1" * 19),
                                         ("--limit", "-1")])
def test_bad_flags_of_an_evaluation(flag, value, capsys):
    with pytest.raises(SystemExit) as info:
        count(flag, value)
    assert info.value.code == 2
    assert "error: argument %s: " % flag in capsys.readouterr().err


def count(*flags, variant="twba"):
    scripts.count_spikes(variant, [str(flag) for flag in flags])


def test_spikes(finished_run, on_few_digits, tmp_path, capsys):
    count("--checkpoint", finished_run, "--batch-size", 25, "--json", tmp_path / "spikes.json")
    output = capsys.readouterr().out
    summary = json.loads((tmp_path / "spikes.json").read_text())
    log = journal.read_log(finished_run)[-1]
    assert summary["images"] == 60 and summary["variant"] == "twba" and summary["activation"] == "binary"
    assert summary["accuracy"] == float(log["test_accuracy"])
    assert summary["loss"] == pytest.approx(float(log["test_loss"]), rel=1e-6)
    assert summary["total"]["spikes_mean"] == pytest.approx(float(log["spikes_per_image"]))
    # one sum for each batch, as the original prints it, and nothing lost between the tables
    assert output.split()[:3] == ["%.10g" % value for value in summary["batch_sums"]]
    assert sum(summary["batch_sums"]) == sum(row["spikes_total"] for row in summary["maps"])
    assert [(row["map"], row["neurons"]) for row in summary["maps"]] == [
        ("bn0", 36864), ("cnn1", 36864), ("cnn2", 73728), ("cnn4", 18432), ("cnn6", 32768), ("cnn7", 16384),
        ("cnn8", 4096), ("cnn10", 1024)]
    assert all("%.1f" % row["spikes_mean"] in output for row in summary["maps"])


def test_one_engine_gives_one_figure(finished_run, on_few_digits, tmp_path):
    """--engine of the scripts computes what `twba-nets evaluate` does, to the bit, from a checkpoint as from model.npz."""
    figures = []
    for number, (command, *arguments) in enumerate((
            (count, "--checkpoint", finished_run, "--engine"), (count, "--checkpoint", finished_run / "model.npz", "--engine"),
            (lambda *argv: evaluate.main([str(text) for text in argv]), finished_run))):
        command(*arguments, "--json", tmp_path / f"{number}.json")
        figures.append(json.loads((tmp_path / f"{number}.json").read_text()))
        figures[-1].pop("checkpoint")
    assert figures[0] == figures[1] == figures[2]


@pytest.mark.parametrize("name", ["bwba", "bwba-published"])
def test_a_released_network_by_its_name(name, capsys):
    line = fails(capsys, count, "--checkpoint", name)  # of the other variant
    assert str(places.released(name) / "model.npz") in line and "bwba" in line


@pytest.mark.slow
def test_spikes_of_the_quantised_model_are_the_checkpoints(finished_run, on_few_digits, tmp_path):
    summaries = []
    for source in (finished_run, finished_run / "model.npz"):
        count("--checkpoint", source, "--limit", 7, "--json", tmp_path / "spikes.json")
        summaries.append(json.loads((tmp_path / "spikes.json").read_text()))
        assert summaries[-1].pop("checkpoint").startswith(str(source))
    assert summaries[0] == summaries[1]
    assert summaries[0]["images"] == 7 and len(summaries[0]["batch_sums"]) == 1


@pytest.mark.slow
def test_spikes_by_the_published_graph_are_the_same(finished_run, on_few_digits, tmp_path):
    """Every figure, to the bit: with binary activations the two graphs evaluate alike."""
    figures = []
    for graph in ("fast", "published"):
        count("--checkpoint", finished_run, "--graph", graph, "--json", tmp_path / graph)
        figures.append(json.loads((tmp_path / graph).read_text()))
    assert figures[0] == figures[1]


def test_spikes_by_the_engine_are_tensorflows(finished_run, on_few_digits, tmp_path, capsys):
    summaries = []
    for flags in ([], ["--engine"]):
        count("--checkpoint", finished_run, "--json", tmp_path / "spikes.json", *flags)
        summaries.append(json.loads((tmp_path / "spikes.json").read_text()))
    tensorflow, engine = summaries
    assert engine["accuracy"] == tensorflow["accuracy"]
    assert engine["loss"] == pytest.approx(tensorflow["loss"], abs=1e-3)
    assert engine["total"]["spikes_total"] == pytest.approx(tensorflow["total"]["spikes_total"], rel=1e-4)


def test_published_activations_by_the_engine(finished_run, on_few_digits, tmp_path, capsys):
    shutil.copy(str(finished_run / "model.npz"), str(tmp_path))
    recipes.Recipe("twba", activation="three-level", dataset="digits").save(tmp_path)
    line = fails(capsys, count, "--checkpoint", tmp_path / "model.npz", "--engine")
    assert "its activations are three-level" in line


def test_spikes_of_the_other_variant(finished_run, on_few_digits, tmp_path, capsys):
    assert "its variant is twba" in fails(capsys, count, "--checkpoint", finished_run, variant="bwba")
    shutil.copy(str(finished_run / "model.npz"), str(tmp_path))  # no recipe.json beside it
    line = fails(capsys, count, "--checkpoint", tmp_path / "model.npz", variant="bwba")
    assert "twba checkpoint" in line


def test_spikes_with_the_other_activation(finished_run, on_few_digits, capsys):
    line = fails(capsys, count, "--checkpoint", finished_run, "--activation", "three-level")
    assert "binary, not three-level" in line


def test_spikes_of_a_checkpoint_that_nothing_describes(finished_run, on_few_digits, tmp_path, monkeypatch, capsys):
    """Taken as the other activation, it would give a plausible wrong accuracy."""
    asked = []
    monkeypatch.setattr(scripts, "_evaluate", lambda model, *rest: asked.append(model.about.activation) or result())
    shutil.copy(str(finished_run / "model.npz"), str(tmp_path))
    line = fails(capsys, count, "--checkpoint", tmp_path / "model.npz")
    assert str(tmp_path / "model.npz") in line and "--activation" in line and not asked
    for activation in ACTIVATIONS:
        count("--checkpoint", tmp_path / "model.npz", "--activation", activation)
    assert asked == list(ACTIVATIONS)


@pytest.mark.parametrize("name", ["model.json", "recipe.json", "provenance.json", "log.csv", "model.npz", "new.json",
                                  "checkpoint"])
def test_figures_do_not_take_another_files_place(finished_run, on_few_digits, tmp_path, capsys, name):
    folder = Path(shutil.copytree(str(finished_run), str(tmp_path / "run")))
    (folder / "recipe.json").rename(folder / "before.json")
    (folder / "new.npz").write_bytes(b"")  # new.json would be its card
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    line = fails(capsys, count, "--checkpoint", folder / "model.npz", "--json", folder / name)
    assert "%s: " % (folder / name) in line and "name another file" in line
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("name", ["", "nowhere/spikes.json"])
def test_figures_that_cannot_be_written(on_few_digits, tmp_path, monkeypatch, capsys, name):
    """It is said before anything is computed."""
    line = fails(capsys, count, "--checkpoint", tmp_path / "nothing", "--json", tmp_path / name)
    assert "--json %s: " % (tmp_path / name) in line


def test_figures_can_be_written_again(finished_run, on_few_digits, tmp_path, monkeypatch):
    monkeypatch.setattr(scripts, "_evaluate", lambda *arguments: result())
    (tmp_path / "spikes.json").write_text("")
    for _ in range(2):
        count("--checkpoint", finished_run, "--json", tmp_path / "spikes.json")
    assert json.loads((tmp_path / "spikes.json").read_text())["images"] == 2


def test_spikes_without_a_checkpoint(tmp_path, capsys):
    assert "no such checkpoint" in fails(capsys, count, "--checkpoint", tmp_path / "runs")


def result():
    """Two images; the second has one spike more in each map but bn0, which has 10 more."""
    per_map = np.arange(8.0)
    return Result(1.25, 0.5, np.array([per_map, per_map + [10, 1, 1, 1, 1, 1, 1, 1]]))


def test_summary():
    summary = spike_statistics.summarise(result(), PAPER, batch_size=1)
    assert summary["batch_sums"] == [28, 45]
    assert summary["maps"][0] == {"map": "bn0", "neurons": 36864, "spikes_mean": 5, "spikes_sd": 5,
                                  "firing_rate": 5 / 36864, "spikes_total": 10}
    assert summary["total"] == {"map": "total", "neurons": 220160, "spikes_mean": 36.5, "spikes_sd": 8.5,
                                "firing_rate": 36.5 / 220160, "spikes_total": 73}


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_published_activations_are_said_not_to_be_spikes(activation, capsys):
    summary = spike_statistics.summarise(result(), PAPER, 200)
    spike_statistics.report(summary, "model.npz", "twba", activation, "cifar10", "PyTorch")
    assert ("not spike counts" in capsys.readouterr().out) == (activation == "three-level")


@pytest.mark.slow
def test_spikes_on_the_real_test_set(cifar10_dir, finished_run, tmp_path):
    """Real images through the script itself; an untrained network's accuracy says nothing, its counts must add up."""
    subprocess.check_call([sys.executable, "TWBA/cifar10_twba_spikes.py", "--checkpoint", str(finished_run),
                           "--dataset", "cifar10", "--limit", "450", "--json", str(tmp_path / "spikes.json")],
                          cwd=str(REPOSITORY), env=dict(os.environ, CIFAR10_DIR=str(cifar10_dir)))
    summary = json.loads((tmp_path / "spikes.json").read_text())
    assert summary["images"] == 450 and len(summary["batch_sums"]) == 3
    assert sum(summary["batch_sums"]) == summary["total"]["spikes_total"]
    assert summary["dataset"] == "cifar10"
