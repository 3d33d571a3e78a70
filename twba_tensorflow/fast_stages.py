"""One stage of the network for TensorFlow, in few and large operations.

The published code gives each group its own strided slice of the channels, convolution, batch norm and sign
(published_network.py). This module computes the same numbers in fewer operations:

- A stage's input is [groups, batch, height, width, channels], with one group after the other. The previous stage writes
  it in this order; for that its filters are permuted: filter f = m * G + j is at [j, m], where G is the number of groups
  of the next stage and j the group that reads the filter.
- If a stage's stride exceeds 1, its input is stored in blocks, with a block's pixels as channels. So every convolution
  has stride 1, and its gradients are forward convolutions (or products) as well, which are TensorFlow's fastest.
- Hidden sums are small integers (or halves), so one float holds those of two filters: half of the multiplications.
- Batch norm, quantiser and the next stage's layout are one pass over memory, compiled by XLA.
"""
from typing import Callable, Iterator, List, Tuple

import tensorflow as tf

from twba_nets.network.architecture import BN_EPSILON, Stage
from twba_nets.system.errors import UserError
from twba_tensorflow.quantisers import ACTIVATIONS

# a pair of sums is low + PAIR * high; up to LARGEST_PAIRED 24 bits hold both, even with halves
PAIR, LARGEST_PAIRED = 4096.0, 512

compiled = tf.xla.experimental.compile


def fold_batch_norm(gamma: tf.Tensor, beta: tf.Tensor, mean: tf.Tensor,
                    variance: tf.Tensor) -> Tuple[tf.Tensor, tf.Tensor]:
    """(scale, shift) of a batch norm as x * scale + shift, bit for bit as in tf.nn.batch_normalization."""
    scale = tf.rsqrt(variance + BN_EPSILON) * gamma
    return scale, beta - mean * scale


class StageGraph:
    """Builds one stage's operations.

    activation: a key of quantisers.ACTIVATIONS. In the shapes below, `pairs` is 2 if a float holds the sums of two
    filters, else 1; `readers` are the groups of the next stage, each of which reads `per_reader` filters of a group;
    `next_block` is that stage's stride. Raises UserError if the stride does not divide kernel and map.
    """

    def __init__(self, stage: Stage, activation: str):
        self.stage, self.activation = stage, activation
        self.fire, self.fire_gradient = ACTIVATIONS[activation]
        if stage.kernel % stage.stride or (stage.size + 2 * stage.margin) % stage.stride:
            raise UserError(f"{stage.conv}: the fast graph needs a stride that divides kernel and padded input map; stride "
                            f"{stage.stride}, kernel {stage.kernel}, map {stage.size} x {stage.size}: use --graph published")
        self.block, self.kernel = stage.stride, stage.kernel // stage.stride
        self.margin = stage.margin if self.block == 1 else 0  # with blocks the previous stage pads
        self.size, self.readers = stage.output_size, stage.reader.groups
        self.pairs = 2 if stage.quantised and stage.fan_in <= LARGEST_PAIRED and self.readers % 2 == 0 else 1
        self.next_block = stage.reader.stride
        self.next_margin = stage.reader.margin if self.next_block > 1 else 0
        self.per_reader = stage.filters // self.readers

    def train(self, x: tf.Tensor, weights: tf.Tensor, gamma: tf.Tensor,
              beta: tf.Tensor) -> Tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Outputs in the next stage's layout, and the batch's mean and variance, both [groups, filters].

        x: [groups, batch, height, width, channels]. weights: quantised, [groups, kernel, kernel, channels, filters].
        gamma, beta: [groups, filters].
        """
        @tf.custom_gradient
        def forward(x, w, gamma, beta):
            sums = self._sums(x, self._paired(w))
            outputs, mean, variance = compiled(self._neurons, [sums, gamma, beta])

            def gradient(d_outputs, *_):
                d_sums, d_gamma, d_beta = compiled(self._neurons_gradient,
                                                   [sums, gamma, beta, mean, variance, d_outputs])
                return self._input_gradient(d_sums, w), self._weight_gradient(x, d_sums, w), d_gamma, d_beta

            return (outputs, mean, variance), gradient

        outputs, mean, variance = forward(x, self._arrange_weights(weights), self._arrange(gamma), self._arrange(beta))
        return self._as_input(outputs), self._restore(mean), self._restore(variance)

    def factors(self, weights: tf.Tensor) -> tf.Tensor:
        """train's weights for the convolution: in its layout, with those of two filters in one number."""
        return self._paired(self._arrange_weights(weights))

    def evaluate(self, x: tf.Tensor, factors: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor, mean: tf.Tensor,
                 variance: tf.Tensor) -> tf.Tensor:
        """Outputs in the next stage's layout, with the moving mean and variance, [groups, filters].

        factors: from factors(). The other arguments are train's.
        """
        scale, shift = fold_batch_norm(gamma, beta, mean, variance)

        def neurons(sums, scale, shift):
            return self.fire(self._unpaired(sums) * scale, shift)

        arguments = [self._sums(x, factors), self._arrange(scale), self._arrange(shift)]
        # ReLU's sum is left to TensorFlow: compiled, it would be rounded once instead of twice
        if self.activation == "relu":
            outputs = compiled(self._lay_out, [neurons(*arguments)])
        else:
            outputs = compiled(lambda *arguments: self._lay_out(neurons(*arguments)), arguments)
        return self._as_input(outputs[0])

    def outputs_in_order(self, x: tf.Tensor) -> tf.Tensor:
        """From the next stage's layout to the published graph's, [batch, height, width, channels]."""
        # [pairs, groups, batch, h, w, readers / pairs, per_reader] -> [batch, h, w, groups, per_reader, pairs, readers / pairs]
        images = tf.transpose(self._undo_layout(x), [2, 3, 4, 1, 6, 0, 5])
        return tf.reshape(images, [-1, *self.stage.map_shape])

    # shapes

    def _arrange(self, values: tf.Tensor) -> tf.Tensor:
        """A value per filter: [groups, filters] -> [pairs, groups, 1, 1, 1, readers / pairs, per_reader]."""
        values = tf.reshape(values, [self.stage.groups, self.per_reader, self.pairs, -1])
        values = tf.transpose(values, [2, 0, 3, 1])  # -> [pairs, groups, readers / pairs, per_reader]
        return values[:, :, tf.newaxis, tf.newaxis, tf.newaxis]

    def _restore(self, values: tf.Tensor) -> tf.Tensor:
        """The inverse of _arrange."""
        values = tf.squeeze(values, [2, 3, 4])  # [pairs, groups, readers / pairs, per_reader]
        values = tf.transpose(values, [1, 3, 0, 2])  # -> [groups, per_reader, pairs, readers / pairs]
        return tf.reshape(values, [self.stage.groups, self.stage.filters])

    def _arrange_weights(self, weights: tf.Tensor) -> tf.Tensor:
        """[groups, kernel, kernel, channels, filters] -> the same with a block's pixels as channels, filters by readers."""
        groups, kernel, _, channels, filters = weights.shape.as_list()
        blocks = (self.kernel, self.block)
        w = tf.reshape(weights, [groups, *blocks, *blocks, channels, self.per_reader, self.readers])
        # -> [groups, kernel / block (rows, columns), block (rows, columns), channels, readers, per_reader]
        w = tf.transpose(w, [0, 1, 3, 2, 4, 5, 7, 6])
        return tf.reshape(w, [groups, self.kernel, self.kernel, self.block ** 2 * channels, filters])

    def _lay_out(self, values: tf.Tensor) -> tf.Tensor:
        """[pairs, groups, batch, h, w, readers / pairs, per_reader] -> the same values in the next stage's layout."""
        x = tf.transpose(values, [0, 5, 2, 3, 4, 1, 6])  # -> [pairs, readers / pairs, batch, h, w, groups, per_reader]
        if self.next_block == 1:
            return x
        margin = [self.next_margin] * 2
        x = tf.pad(x, [[0, 0]] * 3 + [margin, margin] + [[0, 0]] * 2)  # only XLA can pad so many axes
        pairs, readers, _, height, _, groups, per_reader = x.shape.as_list()
        blocks = [height // self.next_block, self.next_block]
        x = tf.reshape(x, [pairs, readers, -1, *blocks, *blocks, groups, per_reader])
        # -> [pairs, readers / pairs, batch, h / block, w / block, block (rows, columns), groups, per_reader]
        return tf.transpose(x, [0, 1, 2, 3, 5, 4, 6, 7, 8])

    def _undo_layout(self, x: tf.Tensor) -> tf.Tensor:
        """The inverse of _lay_out, from its result in any shape."""
        block, padded = self.next_block, self.size + 2 * self.next_margin
        x = tf.reshape(x, [self.pairs, self.readers // self.pairs, -1, padded // block, padded // block, block, block,
                           self.stage.groups, self.per_reader])
        # -> [pairs, readers / pairs, batch, h / block, block, w / block, block, groups, per_reader]
        x = tf.transpose(x, [0, 1, 2, 3, 5, 4, 6, 7, 8])
        x = tf.reshape(x, [self.pairs, self.readers // self.pairs, -1, padded, padded, self.stage.groups,
                           self.per_reader])
        inner = slice(self.next_margin, padded - self.next_margin)
        # -> [pairs, groups, batch, h, w, readers / pairs, per_reader]
        return tf.transpose(x[:, :, :, inner, inner], [0, 5, 2, 3, 4, 1, 6])

    def _as_input(self, x: tf.Tensor) -> tf.Tensor:
        """The next stage's input: [readers, batch, height, width, channels]."""
        block, padded = self.next_block, self.size + 2 * self.next_margin
        return tf.reshape(x, [self.readers, -1, padded // block, padded // block,
                              block ** 2 * self.stage.groups * self.per_reader])

    # convolutions: x [groups, batch, height, width, channels], w [groups, kernel, kernel, channels, filters]

    def _paired(self, w: tf.Tensor) -> tf.Tensor:
        if self.pairs == 1:
            return w
        low, high = tf.split(w, 2, axis=4)
        return low + PAIR * high

    def _sums(self, x, w):
        """The neurons' sums: [groups, batch, height, width, readers / pairs, per_reader]. w: paired."""
        if self.kernel == 1:
            sums = tf.matmul(_flat(x), tf.squeeze(w, [1, 2]))
        else:
            sums = tf.stack([tf.nn.conv2d(*group, 1, _padding(self.margin)) for group in _groups(x, w)])
        return tf.reshape(sums, [self.stage.groups, -1, self.size, self.size, self.readers // self.pairs,
                                 self.per_reader])

    def _unpaired(self, sums: tf.Tensor) -> tf.Tensor:
        """[pairs, groups, batch, height, width, readers / pairs, per_reader]; exact."""
        if self.pairs == 1:
            return sums[tf.newaxis]
        high = tf.floor(sums * (2 / PAIR) + 0.5) / 2
        return tf.stack([sums - PAIR * high, high])

    def _input_gradient(self, d_sums, w):
        """d_sums: [groups, batch, height, width, filters]."""
        groups, kernel, _, channels, _ = w.shape.as_list()
        if kernel == 1:
            size = self.size
            return tf.reshape(tf.matmul(_flat(d_sums), tf.squeeze(w, [1, 2]), transpose_b=True),
                              [groups, -1, size, size, channels])
        turned = tf.transpose(tf.reverse(w, [1, 2]), [0, 1, 2, 4, 3])  # [groups, kernel, kernel, filters, channels]
        padding = _padding(kernel - 1 - self.margin)
        return tf.stack([tf.nn.conv2d(*group, 1, padding) for group in _groups(d_sums, turned)])

    def _weight_gradient(self, x, d_sums, w):
        if self.kernel == 1:
            product = tf.matmul(_flat(d_sums), _flat(x), transpose_a=True)  # the smaller one is transposed
            return tf.reshape(tf.transpose(product, [0, 2, 1]), w.shape)  # [groups, channels, filters]
        # a forward convolution with channels as images, images as channels, and errors as filters.
        # x: [groups, channels, height, width, batch]. d_sums: [groups, height, width, batch, filters]
        turned = compiled(lambda x, d_sums: (tf.transpose(x, [0, 4, 2, 3, 1]), tf.transpose(d_sums, [0, 2, 3, 1, 4])),
                          [x, d_sums])
        by_channel = tf.stack([tf.nn.conv2d(*group, 1, _padding(self.margin)) for group in _groups(*turned)])
        return tf.transpose(by_channel, [0, 2, 3, 1, 4])  # -> [groups, kernel, kernel, channels, filters]

    # batch norm and quantiser, compiled

    def _neurons(self, sums, gamma, beta):
        sums = self._unpaired(sums)
        mean = _over_batch(tf.reduce_mean, sums)
        variance = _over_batch(tf.reduce_mean, tf.squared_difference(sums, mean))
        scale, shift = fold_batch_norm(gamma, beta, mean, variance)
        return self._lay_out(self.fire(sums * scale, shift)), mean, variance

    def _neurons_gradient(self, sums, gamma, beta, mean, variance, d_outputs):
        sums = self._unpaired(sums)
        deviation = tf.rsqrt(variance + BN_EPSILON)
        normed = (sums - mean) * deviation
        errors = self.fire_gradient(normed * gamma + beta, self._undo_layout(d_outputs))
        count = tf.cast(tf.reduce_prod(tf.shape(sums)[2:5]), sums.dtype)
        d_gamma, d_beta = _over_batch(tf.reduce_sum, errors * normed), _over_batch(tf.reduce_sum, errors)
        d_sums = gamma * deviation * (errors - d_beta / count - normed * (d_gamma / count))
        # -> [groups, batch, h, w, pairs, readers / pairs, per_reader]
        d_sums = tf.transpose(d_sums, [1, 2, 3, 4, 0, 5, 6])
        return tf.reshape(d_sums, [self.stage.groups, -1, self.size, self.size, self.stage.filters]), d_gamma, d_beta


def _over_batch(reduce: Callable, values: tf.Tensor) -> tf.Tensor:
    """Reduce over batch, height and width, the last two first, so that threads can share the work."""
    return reduce(reduce(values, [3, 4], keepdims=True), 2, keepdims=True)


def _flat(x: tf.Tensor) -> tf.Tensor:
    """All axes between the groups and the last one as one."""
    return tf.reshape(x, [x.shape[0], -1, x.shape[-1]])


def _groups(x: tf.Tensor, w: tf.Tensor) -> Iterator[Tuple[tf.Tensor, tf.Tensor]]:
    return zip(tf.unstack(x), tf.unstack(w))


def _padding(margin: int) -> List[List[int]]:
    return [[0, 0], [margin, margin], [margin, margin], [0, 0]]
