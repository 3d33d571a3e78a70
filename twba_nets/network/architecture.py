"""A network's architecture: a table of rows and a few sizes, and the quantities derived from them.

PAPER is the network of the paper ("Model-2"). Layout is NHWC. The first stages are float and turn an image into spikes, off chip.
The hidden stages are quantised. The classifier is a float dense layer, off chip.
"""
import collections
import dataclasses
import itertools
import re
import sys
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Tuple

import numpy as np

from twba_nets.system import places
from twba_nets.system.errors import UserError

OUTPUT = "output"  # the classifier: dense, no bias
OUTPUT_BN = "bn8"  # its batch norm; not to be confused with bn8_1 ... bn8_8 of the paper's stage cnn8
LARGEST = 1 << 16  # the largest number in a table
MOST_SYNAPSES = 2 ** 15 - 2  # of a hidden neuron in an exported network: its threshold is an int16

BN_DECAY = 0.9
BN_EPSILON = 1e-5
ADAM_SLOTS = ("Adam", "Adam_1")  # TensorFlow's names of the first and second moment
CONV_STDDEV = 0.02  # of the truncated normal initialiser
GAMMA_STDDEV = 0.002  # of a normal distribution with mean 1
DENSE_STDDEV = 0.1

Shape = Tuple[int, ...]
SIZES = ("picture_size", "image_size", "channels", "classes", "float_stages")


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of the table: a convolution with its batch norm.

    With groups > 1 it holds that many convolutions, named conv_1 ... conv_G, and as many batch norms.
    Group i (from 0) reads the input channels i, i + G, i + 2G, ...; the outputs are concatenated in order.
    filters: per group. kernel, stride: side of a square. padding: TensorFlow's SAME or VALID.
    """
    conv: str
    bn: str
    groups: int
    filters: int
    kernel: int
    stride: int
    padding: str


class Reader(NamedTuple):
    """The reader of a stage's output map: the next stage, or the classifier, which counts as one group."""
    groups: int = 1
    stride: int = 1
    margin: int = 0


@dataclasses.dataclass(frozen=True)
class Stage(Row):
    """A row of the table with its place in the network. Maps are square.

    size, channels: of its input map. margin: zeros padded on each side of it. output_size: side of its output map.
    quantised: whether its weights are quantised. fires: whether its outputs are spikes (else ReLU's floats).
    """
    size: int
    channels: int
    margin: int
    output_size: int
    quantised: bool
    fires: bool
    reader: Reader

    @property
    def output_channels(self) -> int:
        """Channels of its output map: the filters of all groups."""
        return self.groups * self.filters

    @property
    def map(self) -> str:
        """The name of its output map."""
        return self.conv if self.quantised else self.bn

    @property
    def map_shape(self) -> Tuple[int, int, int]:
        """(height, width, channels) of its output map."""
        return self.output_size, self.output_size, self.output_channels

    @property
    def kernel_shape(self) -> Tuple[int, int, int, int]:
        """Shape of one group's kernel, HWIO."""
        return self.kernel, self.kernel, self.channels // self.groups, self.filters

    @property
    def fan_in(self) -> int:
        """Synapses per neuron, including those of weight zero and those on padding."""
        return self.kernel ** 2 * self.channels // self.groups

    @property
    def group_names(self) -> List[Tuple[str, str]]:
        """The (convolution, batch norm) names of its groups; a hidden stage numbers them even if it has only one."""
        if not self.quantised:
            return [(self.conv, self.bn)]
        return [(f"{self.conv}_{i + 1}", f"{self.bn}_{i + 1}") for i in range(self.groups)]

    @property
    def kernel_name(self) -> str:
        """TensorLayer's name of the kernel in the scope of a convolution."""
        return "W_conv2d" if self.quantised else "kernel"

    @property
    def variable_names(self) -> List[Tuple[str, str]]:
        """The names of each group's variables: (kernel, scope of the four batch norm variables)."""
        return [(f"model/{conv}/{self.kernel_name}", f"model/{bn}") for conv, bn in self.group_names]


@dataclasses.dataclass(frozen=True)
class Architecture:
    """A network.

    rows: its table. picture_size: side of the square input pictures. image_size: side of the crop that the first stage reads
    (random in training, else central). channels: of pictures and crops. classes: number of logits. float_stages: how many of
    the first rows have float weights; the last of them makes the input spikes, the others have ReLU.
    stages: the rows with their places in the network (derived).
    Raises ValueError, naming row and field, if they do not form a network.
    """
    rows: Tuple[Row, ...]
    picture_size: int
    image_size: int
    channels: int
    classes: int
    float_stages: int
    stages: Tuple[Stage, ...] = dataclasses.field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        for name in SIZES:
            _check_number(name, getattr(self, name), 2 if name == "classes" else 1)
        if self.image_size > self.picture_size:
            raise ValueError(f"image_size {self.image_size} is larger than picture_size {self.picture_size}")
        for number, row in enumerate(self.rows, 1):
            _check_row(number, row)
        if not self.float_stages < len(self.rows):
            raise ValueError(f"float_stages is {self.float_stages}, and there are {len(self.rows)} rows: a quantised one must "
                             "follow")
        object.__setattr__(self, "stages", _stages(self))
        self._check_names()

    def _check_names(self) -> None:
        names = [name for stage in self.stages for names in stage.group_names for name in names] + [OUTPUT, OUTPUT_BN]
        names += [stage.conv for stage in self.stages if stage.quantised]  # the names of their maps and arrays
        # TensorFlow renames a variable whose name differs from another's only in case
        counts = collections.Counter(name.lower() for name in names)
        twice = [name for name in names if counts[name.lower()] > 1]
        if twice:
            raise ValueError(f"{twice[0]} is the name of two layers")

    @property
    def hidden(self) -> Tuple[Stage, ...]:
        """The quantised stages, which run on a chip."""
        return self.stages[self.float_stages:]

    @property
    def encoder(self) -> Stage:
        """The stage that makes the input spikes."""
        return self.stages[self.float_stages - 1]

    @property
    def largest_inputs(self) -> np.ndarray:
        """The largest absolute value of each input channel, float64 [channels]: a standardised image has mean square 1."""
        return np.full(self.channels, (self.image_size ** 2 * self.channels) ** 0.5)

    @property
    def picture_shape(self) -> Tuple[int, int, int]:
        """(height, width, channels) of the input pictures."""
        return self.picture_size, self.picture_size, self.channels

    @property
    def features(self) -> int:
        """Number of inputs of the classifier."""
        return self.stages[-1].output_size ** 2 * self.stages[-1].output_channels

    @property
    def map_shapes(self) -> Dict[str, Tuple[int, int, int]]:
        """Name -> (height, width, channels) of the maps of spikes, in network order."""
        return {stage.map: stage.map_shape for stage in self.stages if stage.fires}

    @property
    def counted_maps(self) -> Tuple[str, ...]:
        """Names of the maps whose spikes are counted: all but the last, which the paper computes off chip."""
        return tuple(self.map_shapes)[:-1]

    @property
    def variable_shapes(self) -> Dict[str, Shape]:
        """The model's variables, name -> shape, in graph order, as in the original's model.npz. PAPER has 270."""
        layers: List[Tuple[str, str, Shape]] = [
            (*names, stage.kernel_shape) for stage in self.stages for names in stage.variable_names]
        layers.append((f"model/{OUTPUT}/W", f"model/{OUTPUT_BN}", (self.features, self.classes)))
        shapes: Dict[str, Shape] = {}
        for kernel, bn, shape in layers:
            shapes[kernel] = shape
            for name in ("beta", "gamma", "moving_mean", "moving_variance"):
                shapes[f"{bn}/{name}"] = shape[-1:]
        return shapes

    @property
    def training_variable_shapes(self) -> Dict[str, Shape]:
        """A training run's variables, name -> shape: the model's, and Adam's under TensorFlow's names. PAPER has 596."""
        shapes = self.variable_shapes
        for name, shape in self.variable_shapes.items():
            if "/moving_" not in name:
                shapes.update({f"{name}/{slot}": shape for slot in ADAM_SLOTS})
        shapes.update(beta1_power=(), beta2_power=())
        return shapes

    def __str__(self) -> str:
        size = "x".join(map(str, self.picture_shape))
        return f"{self.rows[0].conv} ... {self.rows[-1].conv} ({len(self.rows)} rows, {size} to {self.classes} classes)"

    def difference(self, other: "Architecture") -> str:
        """A text that says where another network first differs from this one."""
        ours, theirs = ([f"{name} {getattr(network, name)}" for name in SIZES] + [str(row) for row in network.to_json()["rows"]]
                        for network in (self, other))
        return next(f"{one}, not {two}" for one, two in itertools.zip_longest(ours, theirs, fillvalue="no row") if one != two)

    def to_json(self) -> Dict[str, Any]:
        """The dictionary that from_json takes: the sizes, and `rows`, each a list of values in the order of Row's fields."""
        sizes = {name: getattr(self, name) for name in SIZES}
        return dict(sizes, rows=[list(dataclasses.astuple(row)) for row in self.rows])


def from_json(found: Any) -> Architecture:
    """The architecture in a parsed JSON or TOML document (Architecture.to_json). Raises ValueError if it is invalid."""
    known, given = {*SIZES, "rows"}, set(found) if isinstance(found, dict) else set()
    if given != known:
        wrong = [f"unknown field {name}" for name in sorted(given - known)] + [f"no {name}" for name in sorted(known - given)]
        raise ValueError(f"{', '.join(wrong)}; a network has the fields {', '.join(SIZES)} and rows")
    if not isinstance(found["rows"], (list, tuple)):
        raise ValueError("rows is not a list")
    fields = [field.name for field in dataclasses.fields(Row)]
    for number, row in enumerate(found["rows"], 1):
        if not isinstance(row, (list, tuple)) or len(row) != len(fields):
            raise ValueError(f"row {number} is not [{', '.join(fields)}]")
    return Architecture(tuple(Row(*row) for row in found["rows"]), *(found[name] for name in SIZES))


def read(path: Path) -> Architecture:
    """The architecture in a TOML file. Raises UserError, naming file, row and field, if it is invalid."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        return from_json(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError) as error:  # RecursionError: from a file of brackets
        text = error.strerror if isinstance(error, OSError) else error
        example = places.recorded(places.NETWORKS / "paper.toml")
        raise UserError(f"{path}: does not describe a network ({text}): see {example} for an example")


def is_quantised(name: str) -> bool:
    """Whether the network quantises this variable before use."""
    return name.endswith("/W_conv2d")


def _check_number(name: str, value: Any, least: int = 1) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= LARGEST:
        raise ValueError(f"{name} {value!r} is not a whole number from {least} to {LARGEST}")


def _check_row(number: int, row: Row) -> None:
    for name in ("conv", "bn"):
        value = getattr(row, name)
        # the final number keeps it distinct from most attributes of a PyTorch module; the spikes of cnnA1 and A1 are spikesA1
        if not isinstance(value, str) or not re.match(r"(?!groups|spikes|cnn[A-Za-z]|bfloat16\Z)[A-Za-z]+[0-9]+\Z", value):
            raise ValueError(f"row {number}: {name} {value!r} is not letters and a number, such as cnn1 (nor groups1, spikes1, "
                             "cnnA1 or bfloat16)")
    where = f"row {number} ({row.conv})"
    for name in ("groups", "filters", "kernel", "stride"):
        _check_number(f"{where}: {name}", getattr(row, name))
    if row.padding not in ("SAME", "VALID"):
        raise ValueError(f"{where}: padding {row.padding!r} is neither SAME nor VALID")


def _stages(architecture: Architecture) -> Tuple[Stage, ...]:
    stages: List[Stage] = []
    size, channels = architecture.image_size, architecture.channels
    for index, row in enumerate(architecture.rows):
        where = f"row {index + 1} ({row.conv})"
        margin, output_size = _extent(where, row, size)
        quantised = index >= architecture.float_stages
        if not quantised and row.groups > 1:
            raise ValueError(f"{where}: groups {row.groups}, but a float stage has one group")
        if channels % row.groups:
            raise ValueError(f"{where}: groups {row.groups} do not share {channels} channels evenly")
        if stages and stages[-1].filters % row.groups:
            raise ValueError(f"{where}: groups {row.groups} do not share the {stages[-1].filters} filters of a group of "
                             f"{stages[-1].conv} evenly")
        stages.append(Stage(**dataclasses.asdict(row), size=size, channels=channels, margin=margin, output_size=output_size,
                            quantised=quantised, fires=index + 1 >= architecture.float_stages, reader=Reader()))
        size, channels = output_size, row.groups * row.filters
    readers = [Reader(stage.groups, stage.stride, stage.margin) for stage in stages[1:]] + [Reader()]
    return tuple(dataclasses.replace(stage, reader=reader) for stage, reader in zip(stages, readers))


def _extent(where: str, row: Row, size: int) -> Tuple[int, int]:
    """(zeros on each side, side of the output map) for an input map of this size, with TensorFlow's padding."""
    covered = size if row.padding == "SAME" else size - row.kernel + 1
    output_size = -(-covered // row.stride)
    zeros = max((output_size - 1) * row.stride + row.kernel - size, 0)
    if zeros % 2 or output_size < 1:
        raise ValueError(f"{where}: kernel {row.kernel}, stride {row.stride} and padding {row.padding} would pad a map of "
                         f"{size} x {size} on one side only, or leave nothing of it")
    return zeros // 2, output_size


PAPER = Architecture((
    Row("cnn00", "bn00", 1, 32, 3, 1, "SAME"),  # float, then ReLU
    Row("cnn0", "bn0", 1, 64, 3, 1, "SAME"),  # float, then sign: the input spikes
    Row("cnn1", "bn1", 2, 128, 4, 2, "SAME"),  # from here on hidden stages: quantised weights, then sign
    Row("cnn2", "bn2", 8, 64, 3, 1, "SAME"),
    Row("cnn4", "bn4", 4, 128, 2, 2, "SAME"),
    Row("cnn6", "bn6", 16, 128, 3, 1, "VALID"),
    Row("cnn7", "bn7", 4, 256, 1, 1, "SAME"),
    Row("cnn8", "bn8", 8, 128, 2, 2, "SAME"),
    Row("cnn10", "bn10", 8, 128, 2, 1, "VALID"),
    Row("cnn11", "bn11", 1, 512, 1, 1, "VALID"),
), picture_size=32, image_size=24, channels=3, classes=10, float_stages=2)
