"""The network of architecture.py as a TensorFlow 1.15 / TensorLayer 1.11 graph."""
import contextlib
from collections import OrderedDict, namedtuple

import tensorflow as tf
import tensorlayer as tl
from tensorlayer.layers import (BatchNormLayer, ConcatLayer, Conv2d, DenseLayer, FlattenLayer, InputLayer,
                                LambdaLayer)

from twba_nets import architecture as arch
from twba_nets.errors import UserError

try:
    from tensorlayer.layers.binary import BinaryConv2d, SignLayer, TernaryConv2d
except ImportError:
    raise UserError("TensorLayer is not patched with this project's binary.py: run python patches/install.py")

QUANTISED_CONV = {"twba": TernaryConv2d, "bwba": BinaryConv2d}

Network = namedtuple("Network", "logits maps all_params")
Network.__doc__ = """A built network.

logits: [batch, 10]. maps: name -> activations [batch, height, width, channels] of the counted maps.
all_params: the 270 tensors of TensorLayer's list of that name: the *quantised* weights, and all other variables.
"""


def build(x, variant, activation="binary", is_train=False, reuse=False):
    """Build the network on the images x, [batch, 24, 24, 3], in x's floating type. Returns a Network.

    The variables live under scope `model` and carry the published code's names. With is_train batch norm
    uses (and updates) the batch's statistics, else the moving ones.
    Source: the table of the published code; see architecture.py.
    """
    conv, maps = QUANTISED_CONV[variant], OrderedDict()

    def batch_norm(net, name, act):
        return BatchNormLayer(net, decay=arch.BN_DECAY, epsilon=arch.BN_EPSILON, act=act, is_train=is_train,
                              name=name)

    def fire(net, bn):
        net = SignLayer(batch_norm(net, bn, tl.act.htanh), activation=activation)
        return LambdaLayer(net, lambda sign: (sign + 1) / 2, name="spikes")

    with _layers_of_type(x.dtype), tf.variable_scope("model", reuse=reuse):
        net = InputLayer(x, name="input")
        net = batch_norm(_convolve(Conv2d, net, arch.RELU_STAGE, arch.RELU_STAGE.conv), arch.RELU_STAGE.bn,
                         tf.nn.relu)
        net = fire(_convolve(Conv2d, net, arch.SPIKE_STAGE, arch.SPIKE_STAGE.conv), arch.SPIKE_STAGE.bn)
        maps[arch.SPIKE_STAGE.bn] = net.outputs

        for stage in arch.HIDDEN_STAGES:
            groups = [
                fire(_convolve(conv, net[:, :, :, i::stage.groups], stage, conv_name), bn_name)
                for i, (conv_name, bn_name) in enumerate(arch.group_names(stage))
            ]
            net = ConcatLayer(groups, name="concat_" + stage.conv)
            maps[stage.conv] = net.outputs

        net = FlattenLayer(net, name="flatten")
        net = DenseLayer(net, arch.CLASSES, b_init=None, name=arch.OUTPUT,
                         W_init=tf.truncated_normal_initializer(stddev=arch.DENSE_STDDEV))
        net = batch_norm(net, arch.OUTPUT_BN, None)
    counted = OrderedDict((name, maps[name]) for name in arch.COUNTED_MAPS)
    return Network(net.outputs, counted, net.all_params)


@contextlib.contextmanager
def _layers_of_type(dtype):
    """TensorLayer keeps the type of new variables in a global; this gives it back."""
    before = tl.layers.LayersConfig.tf_dtype
    tl.layers.LayersConfig.tf_dtype = dtype
    try:
        yield
    finally:
        tl.layers.LayersConfig.tf_dtype = before


def _convolve(layer, net, stage, name):
    return layer(net, stage.filters, (stage.kernel, stage.kernel), (stage.stride, stage.stride),
                 padding=stage.padding, b_init=None, name=name,
                 W_init=tf.truncated_normal_initializer(stddev=arch.CONV_STDDEV))


def cross_entropy(logits, labels):
    """Softmax cross entropy of each image: logits [batch, 10], labels [batch] -> [batch]."""
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)


def correct(logits, labels):
    """Which images are classified rightly: [batch] of bool."""
    return tf.equal(tf.argmax(logits, 1, output_type=labels.dtype), labels)


def model_variables():
    """The 270 model variables of the default graph, name -> variable, in the order of architecture.py.

    A second network built on the same variables (reuse) adds none; Adam's slots are not among them.
    """
    variables = {variable.op.name: variable for variable in tf.global_variables()}
    return OrderedDict((name, variables[name]) for name in arch.variable_shapes())
