"""The network as the published code builds it, group by group, from the patched TensorLayer's own layers.

fast_network.py computes the same in fewer operations. The tests compare the two, `make bench-train` times them.
"""
from collections import OrderedDict

import tensorflow as tf
import tensorlayer as tl
from tensorlayer.layers import (BatchNormLayer, ConcatLayer, Conv2d, DenseLayer, FlattenLayer, InputLayer,
                                LambdaLayer)
from tensorlayer.layers.binary import BinaryConv2d, SignLayer, TernaryConv2d

from twba_nets import architecture as arch
from twba_tensorflow.fast_network import Network

QUANTISED_CONV = {"twba": TernaryConv2d, "bwba": BinaryConv2d}


def build(x, variant, activation="binary", is_train=False, reuse=False):
    """twba_tensorflow.fast_network.build, the slow way."""
    conv, maps = QUANTISED_CONV[variant], OrderedDict()
    tl.layers.LayersConfig.tf_dtype = x.dtype
    with tf.variable_scope("model", reuse=reuse):
        net = InputLayer(x, name="input")
        net = _batch_norm(_convolve(Conv2d, net, arch.RELU_STAGE, arch.RELU_STAGE.conv), arch.RELU_STAGE.bn,
                          tf.nn.relu, is_train)
        net = _fire(_convolve(Conv2d, net, arch.SPIKE_STAGE, arch.SPIKE_STAGE.conv), arch.SPIKE_STAGE.bn, activation,
                    is_train)
        maps[arch.SPIKE_STAGE.bn] = net.outputs
        for stage in arch.HIDDEN_STAGES:
            groups = [
                _fire(_convolve(conv, net[:, :, :, i::stage.groups], stage, conv_name), bn_name, activation, is_train)
                for i, (conv_name, bn_name) in enumerate(arch.group_names(stage))
            ]
            net = ConcatLayer(groups, name="concat_" + stage.conv)
            maps[stage.conv] = net.outputs
        net = DenseLayer(FlattenLayer(net, name="flatten"), arch.CLASSES, b_init=None, name=arch.OUTPUT,
                         W_init=tf.truncated_normal_initializer(stddev=arch.DENSE_STDDEV))
        net = _batch_norm(net, arch.OUTPUT_BN, None, is_train)
    tl.layers.LayersConfig.tf_dtype = tf.float32
    spikes = tf.stack([tf.reduce_sum(maps[name], [1, 2, 3]) for name in arch.COUNTED_MAPS], axis=1)
    return Network(net.outputs, maps, spikes, net.all_params, tf.no_op())


def session_config(threads):
    """A session as TensorFlow has it."""
    return tf.ConfigProto(intra_op_parallelism_threads=threads, inter_op_parallelism_threads=threads)


def _batch_norm(net, name, act, is_train):
    return BatchNormLayer(net, decay=arch.BN_DECAY, epsilon=arch.BN_EPSILON, act=act, is_train=is_train, name=name)


def _fire(net, bn, activation, is_train):
    net = SignLayer(_batch_norm(net, bn, tl.act.htanh, is_train), activation=activation)
    return LambdaLayer(net, lambda sign: (sign + 1) / 2, name="spikes")


def _convolve(layer, net, stage, name):
    return layer(net, stage.filters, (stage.kernel, stage.kernel), (stage.stride, stage.stride),
                 padding=stage.padding, b_init=None, name=name,
                 W_init=tf.truncated_normal_initializer(stddev=arch.CONV_STDDEV))
