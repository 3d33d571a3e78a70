"""One stage of the network for TensorFlow, in few and large operations.

The published code gives each group a strided slice of the channels, a convolution, a batch norm and a sign of its own.
This module computes the same numbers in fewer operations (published_network.py is that graph, with which it is compared):

- A stage's input is [groups, batch, height, width, channels]: its groups lie one after the other. The neurons of the
  stage before write it so; a stage's filters are permuted for that, f = m * G + j of the graph standing at [j, m],
  where G is the number of groups of the stage that follows and j the group that reads the filter.
- Where a stage's stride is above 1, its input's pixels stand in blocks, a block's pixels as channels: every
  convolution has stride 1, its gradients are convolutions (or products) as well, and TensorFlow's are fastest forward.
- Hidden sums are small integers (or halves), so one float holds those of two filters: half of the multiplications.
- Batch norm, quantiser and the next stage's layout are one pass over memory, compiled by XLA.
"""
import tensorflow as tf

from twba_nets import architecture as arch
from twba_tensorflow.quantisers import ACTIVATIONS

PAIR = 4096.0  # a pair of sums is low + PAIR * high: none exceeds 512, and 24 bits hold both, in halves too

compiled = tf.xla.experimental.compile


class StageGraph:
    """Builds one stage's operations.

    stage: of arch.STAGES. size: the height (= width) of its input, before padding. activation: how its neurons fire, a
    key of quantisers.ACTIVATIONS. `pairs` below is 2 where a sum holds two filters', else 1.
    """

    def __init__(self, stage, size, activation):
        self.stage, self.activation = stage, activation
        self.fire, self.fire_gradient = ACTIVATIONS[activation]
        self.block, self.kernel = stage.stride, stage.kernel // stage.stride
        # with blocks the stage before has padded
        self.margin = arch.padding(size, stage) if self.block == 1 else 0
        self.size = arch.output_size(size, stage)
        self.readers = arch.next_groups(stage)
        self.pairs = 2 if stage in arch.HIDDEN_STAGES and self.readers % 2 == 0 else 1
        self.next_block, self.next_margin = 1, 0
        following = arch.following(stage)
        if following and following.stride > 1:
            self.next_block, self.next_margin = following.stride, arch.padding(self.size, following)
        self.per_reader = stage.filters // self.readers

    def train(self, x, weights, gamma, beta):
        """Outputs in the next stage's layout, and the batch's mean and variance, [groups, filters] both.

        x: [groups, batch, height, width, channels]. weights: [groups, kernel, kernel, channels, filters] as they are
        multiplied (quantised). gamma, beta: [groups, filters].
        """
        @tf.custom_gradient
        def run(x, w, gamma, beta):
            sums = self._sums(x, self._paired(w))
            outputs, mean, variance = compiled(self._neurons, [sums, gamma, beta])

            def gradient(d_outputs, *_):
                d_sums, d_gamma, d_beta = compiled(self._neurons_gradient,
                                                   [sums, gamma, beta, mean, variance, d_outputs])
                return self._input_gradient(d_sums, w), self._weight_gradient(x, d_sums, w), d_gamma, d_beta

            return (outputs, mean, variance), gradient

        outputs, mean, variance = run(x, self._arrange_weights(weights), self._arrange(gamma), self._arrange(beta))
        return self._as_input(outputs), self._restore(mean), self._restore(variance)

    def factors(self, weights):
        """train's weights as the convolution has them: in its layout, and those of two filters in one."""
        return self._paired(self._arrange_weights(weights))

    def evaluate(self, x, factors, gamma, beta, mean, variance):
        """Outputs in the next stage's layout, by the moving mean and variance, [groups, filters].

        factors: what factors() gives. x etc. are train's.
        """
        scale = tf.rsqrt(variance + arch.BN_EPSILON) * gamma  # as tf.nn.batch_normalization has it, to the bit
        shift = beta - mean * scale

        def neurons(sums, scale, shift):
            return self._lay_out(self.fire(self._unpaired(sums) * scale, shift))

        arguments = [self._sums(x, factors), self._arrange(scale), self._arrange(shift)]
        # ReLU's sum is left to TensorFlow: compiled, it would be rounded once and not twice
        return self._as_input(neurons(*arguments) if self.activation == "relu" else compiled(neurons, arguments)[0])

    def outputs_in_order(self, x):
        """From the next stage's layout to [batch, height, width, channels], as the published graph has the outputs."""
        images = tf.transpose(self._undo_layout(x), [2, 3, 4, 1, 6, 0, 5])
        return tf.reshape(images, [-1, self.size, self.size, self.stage.groups * self.stage.filters])

    # shapes

    def _arrange(self, values):
        """A value per filter: [groups, filters] -> [pairs, groups, 1, 1, 1, readers / pairs, per_reader]."""
        values = tf.reshape(values, [self.stage.groups, self.per_reader, self.pairs, -1])
        return tf.transpose(values, [2, 0, 3, 1])[:, :, tf.newaxis, tf.newaxis, tf.newaxis]

    def _restore(self, values):
        """The inverse of _arrange."""
        values = tf.transpose(tf.squeeze(values, [2, 3, 4]), [1, 3, 0, 2])
        return tf.reshape(values, [self.stage.groups, self.stage.filters])

    def _arrange_weights(self, weights):
        """[groups, kernel, kernel, channels, filters], pixels of a block as channels, filters by their readers."""
        groups, kernel, _, channels, filters = weights.shape.as_list()
        blocks = (self.kernel, self.block)
        w = tf.reshape(weights, [groups, *blocks, *blocks, channels, self.per_reader, self.readers])
        w = tf.transpose(w, [0, 1, 3, 2, 4, 5, 7, 6])
        return tf.reshape(w, [groups, self.kernel, self.kernel, self.block ** 2 * channels, filters])

    def _lay_out(self, values):
        """[pairs, groups, batch, h, w, readers / pairs, per_reader] -> the same values as the next stage reads them."""
        x = tf.transpose(values, [0, 5, 2, 3, 4, 1, 6])
        if self.next_block == 1:
            return x
        margin = [self.next_margin] * 2
        x = tf.pad(x, [[0, 0]] * 3 + [margin, margin] + [[0, 0]] * 2)
        pairs, readers, _, height, _, groups, per_reader = x.shape.as_list()
        blocks = [height // self.next_block, self.next_block]
        x = tf.reshape(x, [pairs, readers, -1, *blocks, *blocks, groups, per_reader])
        return tf.transpose(x, [0, 1, 2, 3, 5, 4, 6, 7, 8])

    def _undo_layout(self, x):
        """The inverse of _lay_out, from its result in any shape."""
        block, padded = self.next_block, self.size + 2 * self.next_margin
        x = tf.reshape(x, [self.pairs, self.readers // self.pairs, -1, padded // block, padded // block, block, block,
                           self.stage.groups, self.per_reader])
        x = tf.transpose(x, [0, 1, 2, 3, 5, 4, 6, 7, 8])
        x = tf.reshape(x, [self.pairs, self.readers // self.pairs, -1, padded, padded, self.stage.groups,
                           self.per_reader])
        inner = slice(self.next_margin, padded - self.next_margin)
        return tf.transpose(x[:, :, :, inner, inner], [0, 5, 2, 3, 4, 1, 6])

    def _as_input(self, x):
        """The next stage's input: [readers, batch, height, width, channels]."""
        block, padded = self.next_block, self.size + 2 * self.next_margin
        return tf.reshape(x, [self.readers, -1, padded // block, padded // block,
                              block ** 2 * self.stage.groups * self.per_reader])

    # convolutions: x [groups, batch, height, width, channels], w [groups, kernel, kernel, channels, filters]

    def _paired(self, w):
        if self.pairs == 1:
            return w
        low, high = tf.split(w, 2, axis=4)
        return low + PAIR * high

    def _sums(self, x, w):
        """What the neurons add up: [groups, batch, height, width, readers / pairs, per_reader]. w: paired."""
        if self.kernel == 1:
            sums = tf.matmul(_flat(x), tf.squeeze(w, [1, 2]))
        else:
            sums = tf.stack([tf.nn.conv2d(*group, 1, _padding(self.margin)) for group in _groups(x, w)])
        return tf.reshape(sums, [self.stage.groups, -1, self.size, self.size, self.readers // self.pairs,
                                 self.per_reader])

    def _unpaired(self, sums):
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
        turned = tf.transpose(tf.reverse(w, [1, 2]), [0, 1, 2, 4, 3])
        padding = _padding(kernel - 1 - self.margin)
        return tf.stack([tf.nn.conv2d(*group, 1, padding) for group in _groups(d_sums, turned)])

    def _weight_gradient(self, x, d_sums, w):
        if self.kernel == 1:
            product = tf.matmul(_flat(d_sums), _flat(x), transpose_a=True)  # the smaller one is transposed
            return tf.reshape(tf.transpose(product, [0, 2, 1]), w.shape)
        # channels as images, images as channels, and the errors as the filter: a convolution forward once more
        turned = compiled(lambda x, d_sums: (tf.transpose(x, [0, 4, 2, 3, 1]), tf.transpose(d_sums, [0, 2, 3, 1, 4])),
                          [x, d_sums])
        by_channel = tf.stack([tf.nn.conv2d(*group, 1, _padding(self.margin)) for group in _groups(*turned)])
        return tf.transpose(by_channel, [0, 2, 3, 1, 4])

    # batch norm and quantiser, compiled

    def _neurons(self, sums, gamma, beta):
        sums = self._unpaired(sums)
        mean = _over_batch(tf.reduce_mean, sums)
        variance = _over_batch(tf.reduce_mean, tf.squared_difference(sums, mean))
        scale = tf.rsqrt(variance + arch.BN_EPSILON) * gamma
        return self._lay_out(self.fire(sums * scale, beta - mean * scale)), mean, variance

    def _neurons_gradient(self, sums, gamma, beta, mean, variance, d_outputs):
        sums = self._unpaired(sums)
        deviation = tf.rsqrt(variance + arch.BN_EPSILON)
        normed = (sums - mean) * deviation
        errors = self.fire_gradient(normed * gamma + beta, self._undo_layout(d_outputs))
        count = tf.cast(tf.reduce_prod(tf.shape(sums)[2:5]), sums.dtype)
        d_gamma, d_beta = _over_batch(tf.reduce_sum, errors * normed), _over_batch(tf.reduce_sum, errors)
        d_sums = gamma * deviation * (errors - d_beta / count - normed * (d_gamma / count))
        d_sums = tf.transpose(d_sums, [1, 2, 3, 4, 0, 5, 6])
        return tf.reshape(d_sums, [self.stage.groups, -1, self.size, self.size, self.stage.filters]), d_gamma, d_beta


def _over_batch(reduce, values):
    """Reduce over batch, height and width, the last two first, so that threads can share the work."""
    return reduce(reduce(values, [3, 4], keepdims=True), 2, keepdims=True)


def _flat(x):
    """All axes between the groups and the last one as one."""
    return tf.reshape(x, [x.shape[0], -1, x.shape[-1]])


def _groups(x, w):
    return zip(tf.unstack(x), tf.unstack(w))


def _padding(margin):
    return [[0, 0], [margin, margin], [margin, margin], [0, 0]]
