"""The network in few large operations: the same numbers and variables as published_network.py, in less than half the time.

fast_stages.py has the operations of a stage.
"""
import contextlib
from typing import List, NamedTuple, Sequence, Tuple, Union

import tensorflow as tf
import tensorlayer as tl
from tensorlayer.layers import BatchNormLayer, DenseLayer, InputLayer

from twba_nets.network import architecture as arch
from twba_nets.network.architecture import Architecture, Stage
from twba_tensorflow import quantisers
from twba_tensorflow.fast_stages import StageGraph, fold_batch_norm
from twba_tensorflow.published_network import Network
from twba_tensorflow.session import session_config  # noqa: F401 (published_network has its own)


class BatchNorm(NamedTuple):
    """The variables of a group's batch norm, [filters]."""
    beta: tf.Variable
    gamma: tf.Variable
    moving_mean: tf.Variable
    moving_variance: tf.Variable


def build(x: tf.Tensor, variant: str, architecture: Architecture, activation: str = "binary", is_train: bool = False,
          reuse: Union[bool, object] = False) -> Network:
    """Build the network on standardised images x, [batch, size, size, channels], in x's dtype, float32 or float64.

    The variables are in scope `model` under the published code's names. With is_train, batch norm uses the batch's
    statistics and updates the moving ones, else it uses these. reuse: share the variables of a network built before.
    Source: the table of the published code; see architecture.py. Raises ValueError for another dtype, UserError as
    StageGraph.
    """
    if x.dtype not in (tf.float32, tf.float64):
        raise ValueError(f"the images are {x.dtype.name}: 16 bits do not hold the sums of two filters in one number, nor the "
                         "count of a batch's pixels")
    graphs = [StageGraph(stage, activation if stage.fires else "relu") for stage in architecture.stages]
    x, maps, spikes, all_params, assignments = _as_input(x, architecture.stages[0]), {}, [], [], []
    with _scope(x.dtype, reuse):
        for stage, graph in zip(architecture.stages, graphs):
            weights, norms = _variables(stage, variant, x.dtype)
            for w, norm in zip(weights, norms):
                all_params += [w, *norm]
            x, assigned = (_train if is_train else _evaluate)(graph, x, tf.stack(weights), norms)
            assignments += assigned
            if stage.fires:
                maps[stage.map] = graph.outputs_in_order(x)
                spikes.append(_sum_images(x))

        # [1 group, batch, h, w, channels] -> [batch, features]. The squeeze stays where it suffices: fresh weights depend on
        # the seed and on the number of operations before them in the graph
        features = tf.squeeze(x, [0, 2, 3]) if x.shape[2:4].as_list() == [1, 1] else tf.reshape(x, [-1, architecture.features])
        net = DenseLayer(InputLayer(features, name="input"), architecture.classes, b_init=None, name=arch.OUTPUT,
                         W_init=tf.truncated_normal_initializer(stddev=arch.DENSE_STDDEV))
        net = BatchNormLayer(net, decay=arch.BN_DECAY, epsilon=arch.BN_EPSILON, is_train=is_train, name=arch.OUTPUT_BN)
    with tf.control_dependencies(assignments if is_train else []):
        logits = tf.identity(net.outputs)
    return Network(logits, maps, tf.stack(spikes[:-1], axis=1), all_params + net.all_params,
                   tf.no_op() if is_train else tf.group(assignments))


def _as_input(images: tf.Tensor, first: Stage) -> tf.Tensor:
    """The images in the first stage's layout: [1 group, batch, height, width, channels], in blocks if it has a stride."""
    if first.stride > 1:
        margin = [first.margin] * 2
        images = tf.space_to_depth(tf.pad(images, [[0, 0], margin, margin, [0, 0]]), first.stride)
    return images[tf.newaxis]


def build_neurons(sums: tf.Tensor, bn: str) -> tf.Tensor:
    """Only the evaluation graph's neurons with batch norm `bn`: sums [n, channels] -> spikes {0, 1}."""
    with _scope(sums.dtype, reuse=tf.AUTO_REUSE):
        norm = _batch_norm(bn, int(sums.shape[-1]), sums.dtype)
        scale, shift = fold_batch_norm(norm.gamma, norm.beta, norm.moving_mean, norm.moving_variance)
        return quantisers.fire(sums * scale, shift)


@contextlib.contextmanager
def _scope(dtype: tf.DType, reuse: Union[bool, object]):
    """The variables' scope. TensorLayer has the dtype of new ones in a global, which this restores."""
    before = tl.layers.LayersConfig.tf_dtype
    tl.layers.LayersConfig.tf_dtype = dtype
    try:
        with tf.variable_scope("model", reuse=reuse):
            yield
    finally:
        tl.layers.LayersConfig.tf_dtype = before


def _variables(stage: Stage, variant: str, dtype: tf.DType) -> Tuple[List[tf.Tensor], List[BatchNorm]]:
    """A stage's multiplied (quantised) weights, [kernel, kernel, channels, filters], and batch norms, by group."""
    weights, norms = [], []
    for conv, bn in stage.group_names:
        w = tf.get_variable(f"{conv}/{stage.kernel_name}", stage.kernel_shape, dtype,
                            tf.truncated_normal_initializer(stddev=arch.CONV_STDDEV))
        weights.append(quantisers.WEIGHTS[variant](w) if stage.quantised else w)
        norms.append(_batch_norm(bn, stage.filters, dtype))
    return weights, norms


def _batch_norm(name: str, filters: int, dtype: tf.DType) -> BatchNorm:
    with tf.variable_scope(name):
        return BatchNorm(
            tf.get_variable("beta", [filters], dtype, tf.zeros_initializer()),
            tf.get_variable("gamma", [filters], dtype, tf.random_normal_initializer(1, arch.GAMMA_STDDEV)),
            tf.get_variable("moving_mean", [filters], dtype, tf.zeros_initializer(), trainable=False),
            tf.get_variable("moving_variance", [filters], dtype, tf.ones_initializer(), trainable=False))


def _train(graph: StageGraph, x: tf.Tensor, weights: tf.Tensor,
           norms: Sequence[BatchNorm]) -> Tuple[tf.Tensor, List[tf.Tensor]]:
    """A stage's outputs with the batch's statistics, and the operations that update the moving ones."""
    beta, gamma, moving_mean, moving_variance = (tf.stack(parts) for parts in zip(*norms))
    x, mean, variance = graph.train(x, weights, gamma, beta)
    # assign_moving_average for all groups at once; it has this number in float32, whatever the variables' dtype
    rate = tf.cast(tf.constant(1 - arch.BN_DECAY, tf.float32), x.dtype)
    updates = []
    for name, moving, value in (("moving_mean", moving_mean, mean), ("moving_variance", moving_variance, variance)):
        for norm, change in zip(norms, tf.unstack((moving - value) * rate)):
            updates.append(tf.assign_sub(getattr(norm, name), change))
    return x, updates


def _evaluate(graph: StageGraph, x: tf.Tensor, weights: tf.Tensor,
              norms: Sequence[BatchNorm]) -> Tuple[tf.Tensor, List[tf.Operation]]:
    """A stage's outputs with the moving statistics, and the operation that stores its quantised weights for all batches."""
    factors = graph.factors(weights)
    kept = tf.Variable(tf.zeros(factors.shape, factors.dtype), trainable=False,
                       collections=[tf.GraphKeys.LOCAL_VARIABLES])
    statistics = (tf.stack([getattr(norm, name) for norm in norms])
                  for name in ("gamma", "beta", "moving_mean", "moving_variance"))
    return graph.evaluate(x, kept, *statistics), [tf.assign(kept, factors).op]


def _sum_images(x: tf.Tensor) -> tf.Tensor:
    """Each image's sum of a map in a stage's layout, [groups, batch, ...] -> [batch]. Reducing the last axis first is several
    times as fast as all at once. Blocks and margins do not change the sums."""
    return tf.reduce_sum(tf.reduce_sum(tf.reshape(x, [x.shape[0], -1, x.shape[2:].num_elements()]), 2), 0)
