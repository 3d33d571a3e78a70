"""The network as the published code builds it, group by group, from the patched TensorLayer's layers.

Read this module first: it is the table of architecture.py in TernaryConv2d (or BinaryConv2d), BatchNormLayer and SignLayer.
fast_network.py, the default (--graph), computes the same in fewer operations. The tests compare the two;
`make bench-train` times them.
"""
from typing import Dict, List, NamedTuple, Union

import tensorflow as tf
import tensorlayer as tl
from tensorlayer.layers import (BatchNormLayer, ConcatLayer, Conv2d, DenseLayer, FlattenLayer, InputLayer,
                                LambdaLayer)
from tensorlayer.layers.binary import BinaryConv2d, SignLayer, TernaryConv2d

from twba_nets.network import architecture as arch
from twba_nets.network.architecture import Architecture


class Network(NamedTuple):
    """A built network.

    logits: [batch, classes]. maps: name -> activations [batch, height, width, channels] of every stage that fires: the counted
    maps (Architecture.counted_maps), then the last one. spikes: [batch, counted maps], the sum of each.
    all_params: the tensors of TensorLayer's list of that name: the *quantised* weights and all other variables.
    refresh: an operation to run before an evaluation if variables have changed; the fast graph quantises the weights in it.
    """
    logits: tf.Tensor
    maps: Dict[str, tf.Tensor]
    spikes: tf.Tensor
    all_params: List[tf.Tensor]
    refresh: tf.Operation


QUANTISED_CONV = {"twba": TernaryConv2d, "bwba": BinaryConv2d}
PATCHED_NAMES = {"binary": "binary", "three-level": "published"}  # activation -> its name in patches/binary.py


def build(x: tf.Tensor, variant: str, architecture: Architecture, activation: str = "binary", is_train: bool = False,
          reuse: Union[bool, object] = False) -> Network:
    """Build the network on standardised images x, [batch, size, size, channels], in x's dtype, float32 or float64.

    The variables are in scope `model` under the published code's names. With is_train, batch norm uses the batch's
    statistics and updates the moving ones, else it uses these. reuse: share the variables of a network built before.
    """
    maps = {}
    tl.layers.LayersConfig.tf_dtype = x.dtype  # TensorLayer has the dtype of new variables in this global
    with tf.variable_scope("model", reuse=reuse):
        net = InputLayer(x, name="input")
        for stage in architecture.stages:
            conv = QUANTISED_CONV[variant] if stage.quantised else Conv2d
            groups = [
                _neurons(_convolve(conv, net[:, :, :, i::stage.groups] if stage.quantised else net, stage, conv_name), stage,
                         bn_name, activation, is_train)
                for i, (conv_name, bn_name) in enumerate(stage.group_names)
            ]
            net = ConcatLayer(groups, name=f"concat_{stage.conv}") if stage.quantised else groups[0]
            if stage.fires:
                maps[stage.map] = net.outputs
        net = DenseLayer(FlattenLayer(net, name="flatten"), architecture.classes, b_init=None, name=arch.OUTPUT,
                         W_init=tf.truncated_normal_initializer(stddev=arch.DENSE_STDDEV))
        net = _batch_norm(net, arch.OUTPUT_BN, None, is_train)
    tl.layers.LayersConfig.tf_dtype = tf.float32
    spikes = tf.stack([tf.reduce_sum(activations, [1, 2, 3]) for activations in list(maps.values())[:-1]], axis=1)
    return Network(net.outputs, maps, spikes, net.all_params, tf.no_op())


def session_config(threads: int) -> tf.ConfigProto:
    """TensorFlow's default configuration. threads: CPU cores, 0 for all."""
    return tf.ConfigProto(intra_op_parallelism_threads=threads, inter_op_parallelism_threads=threads)


def _batch_norm(net, name, act, is_train):
    return BatchNormLayer(net, decay=arch.BN_DECAY, epsilon=arch.BN_EPSILON, act=act, is_train=is_train, name=name)


def _neurons(net, stage, bn, activation, is_train):
    if not stage.fires:
        return _batch_norm(net, bn, tf.nn.relu, is_train)
    net = SignLayer(_batch_norm(net, bn, tl.act.htanh, is_train), activation=PATCHED_NAMES[activation])
    return LambdaLayer(net, lambda sign: (sign + 1) / 2, name="spikes")


def _convolve(layer, net, stage, name):
    return layer(net, stage.filters, (stage.kernel, stage.kernel), (stage.stride, stage.stride),
                 padding=stage.padding, b_init=None, name=name,
                 W_init=tf.truncated_normal_initializer(stddev=arch.CONV_STDDEV))
