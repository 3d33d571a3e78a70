"""The quantisers and their straight-through gradients for the fast graph; twba_torch/quantisers.py is PyTorch's counterpart.

Those of the weights are TensorLayer's, from patches/binary.py. An activation combines three steps of the published
network: htanh, the quantiser, (x + 1) / 2. Source: the published code's binary.py.

They do not propagate a NaN, as XLA assumes there are none. So the trainer checks the loss, and the variables before it
saves them, and the readers of checkpoints check the variables.
"""
import tensorflow as tf
from tensorlayer.layers.binary import ternarise
from tensorlayer.layers.utils import quantize

from twba_nets.network.quantisers import PUBLISHED_OFFSET

# twba: sign(sign(W + t) + sign(W - t)), t = 0.7 mean|W|; dW = 2 g. bwba: sign(W), 0 at 0; dW = clip(g, -1, 1)
WEIGHTS = {"twba": ternarise, "bwba": quantize}


def relu(product: tf.Tensor, shift: tf.Tensor) -> tf.Tensor:
    """max(product + shift, 0), for stages that do not fire."""
    return tf.nn.relu(product + shift)


def relu_gradient(potential: tf.Tensor, gradient: tf.Tensor) -> tf.Tensor:
    """The gradient where potential > 0, else 0."""
    return tf.where(potential > 0, gradient, tf.zeros_like(gradient))


def fire(product: tf.Tensor, shift: tf.Tensor) -> tf.Tensor:
    """1 where product + shift >= 0, else 0."""
    # a comparison, because a compiler could fuse product and sum into an FMA, which rounds once: export.py relies on this
    return tf.cast(product >= -shift, product.dtype)


def fire_gradient(potential: tf.Tensor, gradient: tf.Tensor) -> tf.Tensor:
    """clip(g / 2, -1, 1) where |potential| <= 1, else 0: the half is the slope of (x + 1) / 2, the mask htanh's."""
    return tf.where(tf.abs(potential) <= 1, tf.clip_by_value(gradient / 2, -1, 1), tf.zeros_like(gradient))


def fire_three_levels(product: tf.Tensor, shift: tf.Tensor) -> tf.Tensor:
    """Three levels {0, 1/2, 1} of x = product + shift: (sign(sign(x + 0.4) + sign(x - 0.4)) + 1) / 2, with sign(0) = 0.

    This is 0 up to -0.4, 1 from 0.4 on, and 1/2 in between.
    """
    # the minimum changes no finite number, but keeps a compiler from fusing product and sum into an FMA
    potential = tf.minimum(product, product.dtype.max) + shift
    return (tf.cast(potential >= PUBLISHED_OFFSET, product.dtype) + tf.cast(potential > -PUBLISHED_OFFSET, product.dtype)) / 2


def fire_three_levels_gradient(potential: tf.Tensor, gradient: tf.Tensor) -> tf.Tensor:
    """Twice fire's gradient: two inner signs pass it on."""
    return 2 * fire_gradient(potential, gradient)


# activation -> (its outputs, from product and shift; its gradient, from the potential and the output's gradient)
ACTIVATIONS = {
    "relu": (relu, relu_gradient),
    "binary": (fire, fire_gradient),
    "three-level": (fire_three_levels, fire_three_levels_gradient),
}
