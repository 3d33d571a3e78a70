"""The network of the paper ("Model-2") as a table, and what follows from it. No framework is imported here.

Layout NHWC, input [batch, 24, 24, 3]. The two float convolutions turn the image into spikes
(off chip), the hidden stages are quantised, the classifier is a float dense layer (off chip).
"""
import dataclasses
from typing import Dict, List, NamedTuple, Sequence, Tuple

VARIANTS = ("twba", "bwba")  # ternary {-1, 0, +1} or binary {-1, +1} weights
ACTIVATIONS = ("binary", "published")  # {0, 1}, or the three levels {0, 0.5, 1} of the published code
IMAGE_SIZE = 24
CHANNELS = 3
CLASSES = 10


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of the table: a convolution with its batch norm.

    With groups > 1 it holds that many convolutions, named conv_1 ... conv_G, and as many batch norms.
    Group i (from 0) reads the input channels i, i + G, i + 2G, ...; the outputs are concatenated in order.
    filters counts one group's. kernel and stride are square. padding is TensorFlow's.
    """
    conv: str
    bn: str
    groups: int
    filters: int
    kernel: int
    stride: int
    padding: str


TABLE = (
    Row("cnn00", "bn00", 1, 32, 3, 1, "SAME"),  # float, then ReLU
    Row("cnn0", "bn0", 1, 64, 3, 1, "SAME"),  # float, then sign: the input spikes
    Row("cnn1", "bn1", 2, 128, 4, 2, "SAME"),  # from here on quantised weights, then sign: the hidden stages
    Row("cnn2", "bn2", 8, 64, 3, 1, "SAME"),
    Row("cnn4", "bn4", 4, 128, 2, 2, "SAME"),
    Row("cnn6", "bn6", 16, 128, 3, 1, "VALID"),
    Row("cnn7", "bn7", 4, 256, 1, 1, "SAME"),
    Row("cnn8", "bn8", 8, 128, 2, 2, "SAME"),
    Row("cnn10", "bn10", 8, 128, 2, 1, "VALID"),
    Row("cnn11", "bn11", 1, 512, 1, 1, "VALID"),
)
FLOAT_STAGES = 2  # the first rows: float weights, off chip
OUTPUT = "output"  # dense, no bias
OUTPUT_BN = "bn8"  # its batch norm; the groups of stage cnn8 have bn8_1 ... bn8_8

BN_DECAY = 0.9
BN_EPSILON = 1e-5
TERNARY_FACTOR = 0.7  # a weight is 0 up to this times the mean |W| of its tensor
PUBLISHED_OFFSET = 0.4  # of the two inner signs of the published activation
ADAM_SLOTS = ("Adam", "Adam_1")  # TensorFlow's names of the first and second moment
CONV_STDDEV = 0.02  # of the truncated normal initialiser
GAMMA_STDDEV = 0.002  # of a normal distribution about 1
DENSE_STDDEV = 0.1


class Reader(NamedTuple):
    """What reads a stage's output map: the stage after it, or the classifier, which counts as one group."""
    groups: int = 1
    stride: int = 1
    margin: int = 0


@dataclasses.dataclass(frozen=True)
class Stage(Row):
    """A row of the table with its place in the network. Maps are square.

    size, channels: of its input map. margin: how many zeros pad that on each side. output_size: of its output map.
    quantised: whether its weights are. fires: whether its outputs are spikes (of the first stage ReLU's floats).
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
        """Of one group's kernel, HWIO."""
        return self.kernel, self.kernel, self.channels // self.groups, self.filters

    @property
    def group_names(self) -> List[Tuple[str, str]]:
        """The (convolution, batch norm) names of its groups; a hidden stage's are numbered even where there is one."""
        if not self.quantised:
            return [(self.conv, self.bn)]
        return [(f"{self.conv}_{i + 1}", f"{self.bn}_{i + 1}") for i in range(self.groups)]

    @property
    def kernel_name(self) -> str:
        """What TensorLayer calls the kernel in the scope of a convolution."""
        return "W_conv2d" if self.quantised else "kernel"

    @property
    def variable_names(self) -> List[Tuple[str, str]]:
        """The names of its groups' variables: (kernel, the scope of its batch norm's four)."""
        return [(f"model/{conv}/{self.kernel_name}", f"model/{bn}") for conv, bn in self.group_names]


def stages_of(table: Sequence[Row], size: int = IMAGE_SIZE) -> Tuple[Stage, ...]:
    """The stages of a table, for images [size, size, 3]. Raises ValueError if its rows do not fit each other."""
    stages, channels = [], CHANNELS
    for index, row in enumerate(table):
        margin, output_size = _extent(row, size)
        stages.append(Stage(**vars(row), size=size, channels=channels, margin=margin, output_size=output_size,
                            quantised=index >= FLOAT_STAGES, fires=index > 0, reader=Reader()))
        if channels % row.groups:
            raise ValueError(f"{row.conv}: {row.groups} groups do not share {channels} channels evenly")
        if index > 0 and stages[-2].filters % row.groups:
            raise ValueError(f"{row.conv}: {row.groups} groups do not share the {stages[-2].filters} filters of a group of "
                             f"{stages[-2].conv} evenly")
        size, channels = output_size, row.groups * row.filters
    if size != 1:
        raise ValueError(f"{table[-1].conv}: the classifier reads one position, and this map has {size} x {size}")
    readers = [Reader(stage.groups, stage.stride, stage.margin) for stage in stages[1:]] + [Reader()]
    return tuple(dataclasses.replace(stage, reader=reader) for stage, reader in zip(stages, readers))


def _extent(row: Row, size: int) -> Tuple[int, int]:
    """(zeros on each side, size of the output map) for an input map of this size, as TensorFlow pads."""
    covered = size if row.padding == "SAME" else size - row.kernel + 1
    output_size = -(-covered // row.stride)
    zeros = max((output_size - 1) * row.stride + row.kernel - size, 0)
    if zeros % 2 or output_size < 1:
        raise ValueError(f"{row.conv}: a map of {size} x {size} would be padded on one side alone, or is too small")
    return zeros // 2, output_size


STAGES = stages_of(TABLE)


def map_shapes(stages: Sequence[Stage] = STAGES) -> Dict[str, Tuple[int, int, int]]:
    """Name -> (height, width, channels) of the maps of spikes, in network order: the eight counted, then cnn11's."""
    return {stage.map: stage.map_shape for stage in stages if stage.fires}


# The maps whose spikes are counted: cnn11 feeds the classifier and is computed off chip with it.
COUNTED_MAPS = tuple(map_shapes())[:-1]


def variable_shapes(stages: Sequence[Stage] = STAGES) -> Dict[str, tuple]:
    """The 270 model variables, name -> shape, in the order of the graph (and of the original's model.npz)."""
    layers = [(*names, stage.kernel_shape) for stage in stages for names in stage.variable_names]
    layers.append((f"model/{OUTPUT}/W", f"model/{OUTPUT_BN}", (features(stages), CLASSES)))
    shapes = {}
    for kernel, bn, shape in layers:
        shapes[kernel] = shape
        for name in ("beta", "gamma", "moving_mean", "moving_variance"):
            shapes[f"{bn}/{name}"] = shape[-1:]
    return shapes


def features(stages: Sequence[Stage] = STAGES) -> int:
    """How many spikes the classifier reads."""
    return stages[-1].output_size ** 2 * stages[-1].output_channels


def training_variable_shapes() -> Dict[str, tuple]:
    """The 596 variables of a training run, name -> shape: the model's, and Adam's under TensorFlow's names."""
    shapes = variable_shapes()
    for name, shape in variable_shapes().items():
        if "/moving_" not in name:
            shapes.update({f"{name}/{slot}": shape for slot in ADAM_SLOTS})
    shapes.update(beta1_power=(), beta2_power=())
    return shapes


def is_quantised(name: str) -> bool:
    """Whether the network quantises this variable before it uses it."""
    return name.endswith("/W_conv2d")
