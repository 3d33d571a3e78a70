"""The network of the paper ("Model-2"), as a table. No framework is imported here.

Layout NHWC, input [batch, 24, 24, 3]. The two float convolutions turn the image into spikes
(off chip), the hidden stages are quantised, the classifier is a float dense layer (off chip).
"""
from collections import OrderedDict, namedtuple

VARIANTS = ("twba", "bwba")  # ternary {-1, 0, +1} or binary {-1, +1} weights
ACTIVATIONS = ("binary", "published")  # {0, 1}, or the three levels {0, 0.5, 1} of the published code
IMAGE_SIZE = 24
CHANNELS = 3
CLASSES = 10

Stage = namedtuple("Stage", "conv bn groups filters kernel stride padding")
Stage.__doc__ = """A convolution with its batch norm.

With groups > 1 a stage holds that many convolutions, named conv_1 ... conv_G, and as many batch norms.
Group i (from 0) reads the input channels i, i + G, i + 2G, ...; the outputs are concatenated in order.
filters counts one group's. kernel and stride are square.
"""

RELU_STAGE = Stage("cnn00", "bn00", 1, 32, 3, 1, "SAME")  # float, then ReLU
SPIKE_STAGE = Stage("cnn0", "bn0", 1, 64, 3, 1, "SAME")  # float, then sign: the input spikes
HIDDEN_STAGES = (
    Stage("cnn1", "bn1", 2, 128, 4, 2, "SAME"),
    Stage("cnn2", "bn2", 8, 64, 3, 1, "SAME"),
    Stage("cnn4", "bn4", 4, 128, 2, 2, "SAME"),
    Stage("cnn6", "bn6", 16, 128, 3, 1, "VALID"),
    Stage("cnn7", "bn7", 4, 256, 1, 1, "SAME"),
    Stage("cnn8", "bn8", 8, 128, 2, 2, "SAME"),
    Stage("cnn10", "bn10", 8, 128, 2, 1, "VALID"),
    Stage("cnn11", "bn11", 1, 512, 1, 1, "VALID"),
)
STAGES = (RELU_STAGE, SPIKE_STAGE) + HIDDEN_STAGES
OUTPUT = "output"  # dense, no bias
OUTPUT_BN = "bn8"  # its batch norm; the groups of stage cnn8 have bn8_1 ... bn8_8

# The maps whose spikes are counted: cnn11 feeds the classifier and is computed off chip with it.
COUNTED_MAPS = (SPIKE_STAGE.bn,) + tuple(stage.conv for stage in HIDDEN_STAGES[:-1])

BN_DECAY = 0.9
BN_EPSILON = 1e-5
TERNARY_FACTOR = 0.7  # a weight is 0 up to this times the mean |W| of its tensor
PUBLISHED_OFFSET = 0.4  # of the two inner signs of the published activation
ADAM_SLOTS = ("Adam", "Adam_1")  # TensorFlow's names of the first and second moment
CONV_STDDEV = 0.02  # of the truncated normal initialiser
GAMMA_STDDEV = 0.002  # of a normal distribution about 1
DENSE_STDDEV = 0.1


def group_names(stage):
    """The (convolution, batch norm) names of a hidden stage's groups; they are numbered even where G = 1."""
    return [("%s_%d" % (stage.conv, i + 1), "%s_%d" % (stage.bn, i + 1)) for i in range(stage.groups)]


def following(stage):
    """The stage after this one; None after the last."""
    return dict(zip(STAGES, STAGES[1:])).get(stage)


def next_groups(stage):
    """How many groups the stage after this one has; the classifier and float convolutions have one."""
    return following(stage).groups if following(stage) else 1


def output_size(size, stage):
    """Height (= width) of a stage's output for an input of that height."""
    covered = size if stage.padding == "SAME" else size - stage.kernel + 1
    return -(-covered // stage.stride)


def padding(size, stage):
    """TensorFlow's SAME (or no) padding on each side of an input of that height: symmetric throughout this network."""
    return max((output_size(size, stage) - 1) * stage.stride + stage.kernel - size, 0) // 2


def map_shapes():
    """Name -> (height, width, channels) of the maps of spikes, in network order: the eight counted, then cnn11's."""
    size, shapes = IMAGE_SIZE, OrderedDict()
    shapes[SPIKE_STAGE.bn] = (size, size, SPIKE_STAGE.filters)
    for stage in HIDDEN_STAGES:
        size = output_size(size, stage)
        shapes[stage.conv] = (size, size, stage.groups * stage.filters)
    return shapes


def variable_shapes():
    """The 270 model variables, name -> shape, in the order of the graph (and of the original's model.npz)."""
    shapes, channels = OrderedDict(), CHANNELS

    def add(weights, shape, bn):
        shapes["model/" + weights] = shape
        for name in ("beta", "gamma", "moving_mean", "moving_variance"):
            shapes["model/%s/%s" % (bn, name)] = shape[-1:]

    for stage in (RELU_STAGE, SPIKE_STAGE):
        add(stage.conv + "/kernel", (stage.kernel, stage.kernel, channels, stage.filters), stage.bn)
        channels = stage.filters
    for stage in HIDDEN_STAGES:
        shape = (stage.kernel, stage.kernel, channels // stage.groups, stage.filters)
        for conv, bn in group_names(stage):
            add(conv + "/W_conv2d", shape, bn)
        channels = stage.groups * stage.filters
    add(OUTPUT + "/W", (channels, CLASSES), OUTPUT_BN)
    return shapes


def training_variable_shapes():
    """The 596 variables of a training run, name -> shape: the model's, and Adam's under TensorFlow's names."""
    shapes = variable_shapes()
    for name, shape in variable_shapes().items():
        if "/moving_" not in name:
            shapes.update({"%s/%s" % (name, slot): shape for slot in ADAM_SLOTS})
    shapes.update(beta1_power=(), beta2_power=())
    return shapes


def is_quantised(name):
    """Whether the network quantises this variable before it uses it."""
    return name.endswith("/W_conv2d")
