"""The network in few large operations: the numbers and variables of published_network.py, in less than half the time.

fast_stages.py has the operations of a stage.
"""
import contextlib
from collections import OrderedDict, namedtuple

import tensorflow as tf
import tensorlayer as tl
from tensorlayer.layers import BatchNormLayer, DenseLayer, InputLayer

from twba_nets import architecture as arch
from twba_tensorflow import quantisers
from twba_tensorflow.fast_stages import StageGraph
from twba_tensorflow.published_network import Network
from twba_tensorflow.session import session_config  # noqa: F401 (published_network has its own)

BatchNorm = namedtuple("BatchNorm", "beta gamma moving_mean moving_variance")


def build(x, variant, activation="binary", is_train=False, reuse=False):
    """Build the network on the images x, [batch, 24, 24, 3], in x's type, float32 or float64. Returns a Network.

    The variables live under scope `model` and carry the published code's names. With is_train batch norm
    uses (and updates) the batch's statistics, else the moving ones.
    Source: the table of the published code; see architecture.py.
    """
    if x.dtype not in (tf.float32, tf.float64):
        raise ValueError("the images are %s: 16 bits do not hold the sums of two filters in one number, nor the count of "
                         "a batch's pixels" % x.dtype.name)
    x, size = x[tf.newaxis], arch.IMAGE_SIZE
    maps, spikes, all_params, assignments = OrderedDict(), [], [], []
    with _scope(x.dtype, reuse):
        for stage in arch.STAGES:
            weights, norms = _variables(stage, int(x.shape[-1]), variant, x.dtype)
            for w, norm in zip(weights, norms):
                all_params += [w, *norm]
            graph = StageGraph(stage, size, "relu" if stage is arch.RELU_STAGE else activation)
            x = (_train if is_train else _evaluate)(graph, x, tf.stack(weights), norms, assignments)
            size = graph.size
            if stage is not arch.RELU_STAGE:
                name = stage.bn if stage is arch.SPIKE_STAGE else stage.conv
                maps[name] = graph.outputs_in_order(x)
                spikes.append(_sum_images(x))

        net = DenseLayer(InputLayer(tf.squeeze(x, [0, 2, 3]), name="input"), arch.CLASSES, b_init=None,
                         name=arch.OUTPUT, W_init=tf.truncated_normal_initializer(stddev=arch.DENSE_STDDEV))
        net = BatchNormLayer(net, decay=arch.BN_DECAY, epsilon=arch.BN_EPSILON, is_train=is_train, name=arch.OUTPUT_BN)
    with tf.control_dependencies(assignments if is_train else []):
        logits = tf.identity(net.outputs)
    return Network(logits, maps, tf.stack(spikes[:len(arch.COUNTED_MAPS)], axis=1), all_params + net.all_params,
                   tf.no_op() if is_train else tf.group(assignments))


def build_neurons(sums, bn):
    """The evaluation graph's neurons with batch norm `bn` alone: sums [n, channels] -> spikes {0, 1}."""
    with _scope(sums.dtype, reuse=tf.AUTO_REUSE):
        norm = _batch_norm(bn, int(sums.shape[-1]), sums.dtype)
        scale = tf.rsqrt(norm.moving_variance + arch.BN_EPSILON) * norm.gamma
        return quantisers.fire(sums * scale, norm.beta - norm.moving_mean * scale)


@contextlib.contextmanager
def _scope(dtype, reuse):
    """Where the variables live. TensorLayer keeps the type of new ones in a global; this gives it back."""
    before = tl.layers.LayersConfig.tf_dtype
    tl.layers.LayersConfig.tf_dtype = dtype
    try:
        with tf.variable_scope("model", reuse=reuse):
            yield
    finally:
        tl.layers.LayersConfig.tf_dtype = before


def _variables(stage, channels, variant, dtype):
    """A stage's weights as they are multiplied, [kernel, kernel, channels, filters], and batch norms, by group."""
    quantised = stage in arch.HIDDEN_STAGES
    channels //= stage.stride ** 2  # a block's pixels are channels here
    names = arch.group_names(stage) if quantised else [(stage.conv, stage.bn)]
    weights, norms = [], []
    for conv, bn in names:
        w = tf.get_variable(conv + ("/W_conv2d" if quantised else "/kernel"),
                            [stage.kernel, stage.kernel, channels, stage.filters], dtype,
                            tf.truncated_normal_initializer(stddev=arch.CONV_STDDEV))
        weights.append(quantisers.WEIGHTS[variant](w) if quantised else w)
        norms.append(_batch_norm(bn, stage.filters, dtype))
    return weights, norms


def _batch_norm(name, filters, dtype):
    with tf.variable_scope(name):
        return BatchNorm(
            tf.get_variable("beta", [filters], dtype, tf.zeros_initializer()),
            tf.get_variable("gamma", [filters], dtype, tf.random_normal_initializer(1, arch.GAMMA_STDDEV)),
            tf.get_variable("moving_mean", [filters], dtype, tf.zeros_initializer(), trainable=False),
            tf.get_variable("moving_variance", [filters], dtype, tf.ones_initializer(), trainable=False))


def _train(graph, x, weights, norms, assignments):
    """A stage's outputs by the batch's statistics. Assigned: the moving statistics."""
    beta, gamma, moving_mean, moving_variance = (tf.stack(parts) for parts in zip(*norms))
    x, mean, variance = graph.train(x, weights, gamma, beta)
    # assign_moving_average for all groups at once; it has this number in float32, whatever the variables' type
    rate = tf.cast(tf.constant(1 - arch.BN_DECAY, tf.float32), x.dtype)
    for name, moving, value in (("moving_mean", moving_mean, mean), ("moving_variance", moving_variance, variance)):
        for norm, change in zip(norms, tf.unstack((moving - value) * rate)):
            assignments.append(tf.assign_sub(getattr(norm, name), change))
    return x


def _evaluate(graph, x, weights, norms, assignments):
    """A stage's outputs by the moving statistics. Assigned: the quantised weights, so that batches need not quantise them
    anew."""
    factors = graph.factors(weights)
    held = tf.Variable(tf.zeros(factors.shape, factors.dtype), trainable=False,
                       collections=[tf.GraphKeys.LOCAL_VARIABLES])
    assignments.append(tf.assign(held, factors).op)
    return graph.evaluate(x, held, *(tf.stack([getattr(norm, name) for norm in norms]) for name in (
        "gamma", "beta", "moving_mean", "moving_variance")))


def _sum_images(x):
    """Each image's sum of a map in a stage's layout, [groups, batch, ...]. The last axis first: that is several times as
    fast as all at once. Pixels and margins change no sum."""
    return tf.reduce_sum(tf.reduce_sum(tf.reshape(x, [x.shape[0], -1, x.shape[2:].num_elements()]), 2), 0)
