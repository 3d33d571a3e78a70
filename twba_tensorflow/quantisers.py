"""The quantisers and their straight-through gradients, as the fast graph takes them. twba_torch/quantisers.py stands beside.

Those of the weights are TensorLayer's own, from patches/binary.py. An activation comes in one piece with what stands
around it in the published network: htanh, the quantiser, (x + 1) / 2. Source: the published code's binary.py.

A NaN does not come out as one, since XLA computes as if there were none: the trainer looks at the loss and at the
variables before it saves them, and what reads variables looks at them.
"""
import tensorflow as tf
from tensorlayer.layers.binary import ternarise
from tensorlayer.layers.utils import quantize

from twba_nets.network.quantisers import PUBLISHED_OFFSET

# twba: sign(sign(W + t) + sign(W - t)), t = 0.7 mean|W|; dW = 2 g. bwba: sign(W), 0 at 0; dW = clip(g, -1, 1)
WEIGHTS = {"twba": ternarise, "bwba": quantize}


def relu(product: tf.Tensor, shift: tf.Tensor) -> tf.Tensor:
    """max(product + shift, 0): of the first stage, which does not fire."""
    return tf.nn.relu(product + shift)


def relu_gradient(potential: tf.Tensor, gradient: tf.Tensor) -> tf.Tensor:
    """The gradient where potential > 0, else 0."""
    return tf.where(potential > 0, gradient, tf.zeros_like(gradient))


def fire(product: tf.Tensor, shift: tf.Tensor) -> tf.Tensor:
    """1 where product + shift >= 0, else 0."""
    # a comparison, so that no compiler can round product and sum as one operation (FMA): export.py counts on it
    return tf.cast(product >= -shift, product.dtype)


def fire_gradient(potential: tf.Tensor, gradient: tf.Tensor) -> tf.Tensor:
    """clip(g / 2, -1, 1) where |potential| <= 1, else 0: the half is the slope of (x + 1) / 2, the mask htanh's."""
    return tf.where(tf.abs(potential) <= 1, tf.clip_by_value(gradient / 2, -1, 1), tf.zeros_like(gradient))


def fire_three_levels(product: tf.Tensor, shift: tf.Tensor) -> tf.Tensor:
    """Three levels {0, 1/2, 1} of x = product + shift: (sign(sign(x + 0.4) + sign(x - 0.4)) + 1) / 2, where sign(0) is 0.

    That is 0 up to -0.4, 1 from 0.4 on, and 1/2 between them.
    """
    # the minimum changes no finite number, but it stands between product and sum: no compiler rounds them as one (FMA)
    potential = tf.minimum(product, product.dtype.max) + shift
    return (tf.cast(potential >= PUBLISHED_OFFSET, product.dtype) + tf.cast(potential > -PUBLISHED_OFFSET, product.dtype)) / 2


def fire_three_levels_gradient(potential: tf.Tensor, gradient: tf.Tensor) -> tf.Tensor:
    """Twice that of fire: two inner signs pass the gradient on."""
    return 2 * fire_gradient(potential, gradient)


# activation -> (the outputs of product + shift, a potential's gradient from its output's)
ACTIVATIONS = {
    "relu": (relu, relu_gradient),
    "binary": (fire, fire_gradient),
    "three-level": (fire_three_levels, fire_three_levels_gradient),
}
