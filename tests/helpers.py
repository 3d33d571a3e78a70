"""Helpers for both frameworks' tests."""
import contextlib
import dataclasses
import importlib.util
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Callable, Iterator, Tuple

import numpy as np
import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from twba_chip.spiking import file as spiking_file, reference
from twba_chip.spiking.file import SpikingNetwork
from twba_nets.datasets import digits
from twba_nets.datasets.dataset import Dataset
from twba_nets.network.architecture import PAPER, SIZES, Architecture, Row, Stage
from twba_nets.runs import journal, recipe as recipes
from twba_nets.system.arrays import Arrays
from twba_nets.system.errors import UserError

# fixtures


def load_few_digits(test_images: int = 60) -> Dataset:
    """110 training images and a few test images; neither count is a multiple of the recipe's batch of 50."""
    data = digits.load()
    return data._replace(x_train=data.x_train[:110], y_train=data.y_train[:110],
                         x_test=data.x_test[:test_images], y_test=data.y_test[:test_images])


@pytest.fixture(scope="session")
def few_digits() -> Dataset:
    return load_few_digits()


@pytest.fixture(scope="session")
def short_recipe() -> recipes.Recipe:
    return dataclasses.replace(recipes.digits("twba"), epochs=2)


@pytest.fixture
def drawn(monkeypatch) -> list:
    """The axes of every figure that the test draws, in order."""
    from matplotlib.figure import Figure
    axes, save = [], Figure.savefig

    def saved(figure, *arguments, **named):
        axes.extend(figure.axes)
        return save(figure, *arguments, **named)

    monkeypatch.setattr(Figure, "savefig", saved)
    return axes


def scalars(folder: Path) -> dict:
    """A run's scalars in TensorBoard: tag -> [(epoch, figure)]."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    found = EventAccumulator(str(folder)).Reload()
    return {tag: [(event.step, pytest.approx(event.value, rel=1e-6)) for event in found.Scalars(tag)]
            for tag in found.Tags()["scalars"]}


def logged(folder: Path) -> dict:
    """The same from its log."""
    rows = journal.read_log(folder)
    return {tag: [(int(row["epoch"]), float(row[tag])) for row in rows] for tag in journal.SCALARS}


# one clear line for every mistake


def user_error(function: Callable, *arguments) -> str:
    """The message, one line, of the UserError that this call must raise."""
    with pytest.raises(UserError) as info:
        function(*arguments)
    line = str(info.value)
    assert line and "\n" not in line, line
    return line


def command_error(main: Callable, *arguments) -> str:
    """The message, one line, after "error: " with which a command's main must stop. arguments: its flags, of any type."""
    with pytest.raises(SystemExit) as info:
        main([str(argument) for argument in arguments])
    line = info.value.code
    assert isinstance(line, str) and line.startswith("error: ") and "\n" not in line, line
    return line[len("error: "):]


def process_error(status: int, stderr: str) -> str:
    """The message, one line, after "error: " that must be all of a failed process's stderr."""
    assert status == 1 and stderr.startswith("error: ") and stderr.count("\n") == 1 and stderr.endswith("\n"), stderr
    return stderr[len("error: "):-1]


@contextlib.contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """No file of this process grows beyond this many bytes: as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# random networks


SEEDS = (37, 60, 112)  # for random_architecture: various groups, strides, padding, classes, float stages and last maps
RANDOM = (("twba", "binary"), ("bwba", "three-level"), ("bwba", "binary"))  # weights and activations for each seed
FORMS = [(1, 1, "SAME"), (2, 2, "SAME"), (4, 2, "SAME"), (3, 1, "SAME"), (2, 1, "VALID"), (3, 1, "VALID")]  # kernel, stride


def random_architecture(seed: int) -> Architecture:
    """A small network on pictures of 8x8: one to three float stages, one to four hidden ones, and one whose map is 1x1 or 2x2."""
    random = np.random.RandomState(seed)

    def pick(values):
        return values[random.randint(len(values))]

    while True:
        floats, hidden = pick([1, 2, 3]), pick([1, 2, 3, 4])
        rows = [Row(f"cnn0{i}", f"bn0{i}", 1, 8 * i, *pick(FORMS[2:4])) for i in range(1, floats + 1)]
        rows += [Row(f"cnn{i}", f"bn{i}0", pick([1, 2, 4]), pick([4, 8, 12]), *pick(FORMS)) for i in range(1, hidden + 1)]
        rows.append(Row("cnn9", "bn9", 2, 8, pick(range(1, 9)), 1, "VALID"))
        with contextlib.suppress(ValueError):  # these rows do not fit
            architecture = Architecture(tuple(rows), 8, 8, pick([1, 3]), pick([2, 10, 13]), floats)
            if architecture.stages[-1].output_size <= 2:
                return architecture


def script(name: str) -> ModuleType:
    """A module of docs/, which is no package."""
    specification = importlib.util.spec_from_file_location(name, REPOSITORY / "docs" / f"{name}.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


# a small network for the digits with names other than the paper's; an epoch takes seconds
OWN = Architecture((Row("conv1", "norm1", 1, 8, 3, 1, "SAME"), Row("conv2", "norm2", 1, 16, 4, 4, "SAME"),
                    Row("conv3", "norm3", 2, 16, 3, 1, "SAME"), Row("conv4", "norm4", 4, 8, 2, 2, "SAME")), 32, 24, 3, 10, 2)


def to_toml(architecture: Architecture) -> str:
    """The text of a TOML file that architecture.read() takes."""
    columns = ", ".join(field.name for field in dataclasses.fields(Row))
    rows = ["  [{}],".format(", ".join(f'"{value}"' if isinstance(value, str) else str(value) for value in row))
            for row in architecture.to_json()["rows"]]
    return "\n".join([f"{name} = {getattr(architecture, name)}" for name in SIZES]
                     + [f"rows = [  # {columns}", *rows, "]", ""])


def random_variables(seed: int = 0, architecture: Architecture = PAPER) -> Arrays:
    """Values for the model variables, 270 in the paper's network. Neurons fire about half of the time."""
    random, values = np.random.RandomState(seed), {}
    for name, shape in architecture.variable_shapes.items():
        if name.endswith("moving_variance"):
            values[name] = random.uniform(0.5, 2.0, shape) * 10
        elif name.endswith("gamma"):
            values[name] = random.normal(0, 1, shape)  # negative ones too
        else:
            values[name] = random.normal(0, 0.3, shape)
    return values


def random_network(variant: str = "twba", seed: int = 0, architecture: Architecture = PAPER, **source) -> SpikingNetwork:
    """A random exported network. Thresholds are around 0, the median of the sums; some filters always or never fire.

    source: entries of meta's source.
    """
    random, arrays = np.random.RandomState(seed), {}
    for name, (dtype, shape) in spiking_file.array_types(architecture).items():
        if name.endswith("/weights"):
            value = weights = random.choice([-1, 0, 1] if variant == "twba" else [-1, 1], shape)
        elif name.endswith("/thresholds"):
            lowest, highest = -(weights < 0).sum((0, 1, 2)), (weights > 0).sum((0, 1, 2))
            value = np.clip(random.randint(-8, 9, shape), lowest, highest + 1)
            value[::16], value[1::16] = lowest[::16], highest[1::16] + 1
        elif name.endswith("/scale"):
            value = random.uniform(0.5, 1.5, shape) * random.choice([-1, 1], shape)
        else:  # kernels and offsets
            value = random.normal(scale=np.prod(shape[:-1]) ** -0.5 / 2, size=shape)
        arrays[name] = value.astype(dtype)
    return spiking_file.describe(architecture, arrays, variant, source)


def network_and_data(images: int, **source) -> Tuple[SpikingNetwork, Dataset]:
    """A random exported network that predicts several classes for the digits, and the first test digits.

    Their labels are its predictions, except every third: so its accuracy is neither 0 nor 1.
    """
    network, data = random_network(), digits.load()
    x = data.x_test[:images]
    spikes = reference.encode(network, reference.central_crop(x, PAPER))
    logits = reference.classify(network, reference.forward(network, spikes)["cnn11"])
    network.arrays["output/offset"] -= logits.mean(0)
    labels = (logits - logits.mean(0)).argmax(1).astype(np.int32)
    labels[::3] = (labels[::3] + 1) % 10
    return (spiking_file.describe(PAPER, network.arrays, network.variant, source),
            data._replace(x_test=x, y_test=labels))


def integrate_events(spikes: np.ndarray, weights: np.ndarray, stage: Stage) -> np.ndarray:
    """The potentials of a stage's neurons after all spikes of one image have arrived, one at a time, as on a chip.

    spikes: bool [H, W, C]. weights: int8 [k, k, C / groups, groups * filters]. Returns int32 [H', W', groups * filters].
    """
    size, potentials = stage.output_size, np.zeros(stage.map_shape, np.int32)
    for row, column, channel in np.argwhere(spikes):
        synapse, group = divmod(channel, stage.groups)
        neurons = slice(group * stage.filters, (group + 1) * stage.filters)
        for y in range(stage.kernel):
            for x in range(stage.kernel):
                # the neuron at (top, left) receives this spike through the synapse (y, x) of its kernel
                top, skipped_rows = divmod(row + stage.margin - y, stage.stride)
                left, skipped_columns = divmod(column + stage.margin - x, stage.stride)
                if not skipped_rows and not skipped_columns and 0 <= top < size and 0 <= left < size:
                    potentials[top, left, neurons] += weights[y, x, synapse, neurons]
    return potentials


# processes


def start_process(*arguments, **named) -> subprocess.Popen:
    """Start Python, with stdout and stderr as text. Ctrl-C reaches it even if the tests run in the background."""
    return subprocess.Popen([sys.executable, "-W", "ignore", *map(str, arguments)], stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, universal_newlines=True,
                            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL), **named)


def start_python(code: str, *arguments) -> subprocess.Popen:
    """Start Python code in a separate process."""
    return start_process("-c", code, *arguments)


# the example script's train() on the images of few_digits
TRAIN = f"""
import sys
import warnings
sys.path.insert(0, {str(REPOSITORY / "tests")!r})
with warnings.catch_warnings(record=True):  # scikit-learn insists on its own
    from helpers import load_few_digits
from twba_nets import datasets
from twba_nets.runs import recipe
from twba_tensorflow import scripts

datasets.load = lambda *_: load_few_digits()
scripts.train(recipe.paper("twba"))
"""


def start_training(folder: Path, *flags) -> subprocess.Popen:
    """Start a training run on few_digits, in TensorFlow and single-threaded."""
    return start_python(TRAIN, "--output", folder, "--threads", 1, *flags)


# a stand-in for a module: it signals the start of its import, which never ends
SLOW = """
import os, time
open(os.path.join(os.path.dirname(__file__), "started"), "w").close()
while True:
    time.sleep(0.1)  # not for long: a signal between Python's look for signals and the sleep does not end it
"""


def interrupt_import(arguments: list, package: str, signal_number: int, folder: Path) -> Tuple[int, str]:
    """(exit status, stderr) of Python with these arguments, interrupted while it imports the package.

    folder: an empty folder for the package's stand-in.
    """
    (folder / f"{package}.py").write_text(SLOW)
    process = start_process(*arguments, cwd=REPOSITORY, env=dict(os.environ, PYTHONPATH=str(folder)))
    while not (folder / "started").exists() and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal_number)
    _, error = process.communicate(timeout=300)
    return process.returncode, error


class Clock:
    """A stand-in for the time module whose date is set back by a day after the first minute."""

    def __init__(self):
        self.now, self.set_back = 5.0, 0.0  # seconds since the machine's start

    def monotonic(self):
        return self.now

    def time(self):
        return 1e9 + self.now - self.set_back

    def pass_minute(self):
        self.now, self.set_back = self.now + 60, 86400.0 * (self.now > 60)


class Snapshots:
    """Copies of a run's folder as a kill would leave it, before each replacement of a file."""

    def __init__(self, folder: Path, copies: Path, monkeypatch):
        self.folder, self.copies, self.taken = folder, copies, []
        monkeypatch.setattr(os, "replace", self.before(os.replace))

    def before(self, function: Callable) -> Callable:
        """The function, with a copy made before each call."""
        def watched(*arguments, **named):
            self.taken.append(self.copies / f"killed_{len(self.taken)}")
            shutil.copytree(str(self.folder), str(self.taken[-1]))
            return function(*arguments, **named)
        return watched
