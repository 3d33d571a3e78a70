"""Quantised layers of TWBA-Nets / BWBA-Nets, for ``tensorlayer/layers/binary.py`` of TensorLayer 1.11.0.

``patches/install.py`` puts this file there. It exports the eight names that ``binary.py`` of
TensorLayer 1.8.4 exported. What does not differ from TensorLayer 1.11.0 is imported from it:
only the ternary layers (no scaling factor alpha) and SignLayer stand here. Every call of them that
TensorLayer 1.11.0 or 1.8.4 takes is taken, and means the same. ``tl.files.load_npz`` is mended, too.

The layers' bodies are derived from TensorLayer 1.11.0 (``layers/convolution/ternary_conv.py``,
``layers/dense/ternary_dense.py``, ``layers/quantize.py``), (c) TensorLayer contributors,
Apache License 2.0; see NOTICE.
"""
import functools
import os

import numpy as np
import tensorflow as tf

from tensorlayer import files
from tensorlayer import logging
from tensorlayer.decorators import deprecated_alias
from tensorlayer.layers.convolution.binary_conv import BinaryConv2d
from tensorlayer.layers.convolution.dorefa_conv import DorefaConv2d
from tensorlayer.layers.core import Layer
from tensorlayer.layers.core import LayersConfig
from tensorlayer.layers.dense.binary_dense import BinaryDenseLayer
from tensorlayer.layers.dense.dorefa_dense import DorefaDenseLayer
from tensorlayer.layers.scale import ScaleLayer
from tensorlayer.layers.utils import quantize  # noqa: F401 (the published file has this name, too)

__all__ = [
    'BinaryConv2d',
    'BinaryDenseLayer',
    'DorefaConv2d',
    'DorefaDenseLayer',
    'ScaleLayer',
    'SignLayer',
    'TernaryConv2d',
    'TernaryDenseLayer',
]


def ternarise(weights):
    """Ternary weights sign(sign(W + t) + sign(W - t)) with t = 0.7 * mean|W| over the whole tensor.

    Every sign passes the gradient unchanged and the two terms through t cancel: dW = 2 g.

    Parameters
    ----------
    weights : tensor of any shape and floating type

    Returns
    -------
    tensor of the same shape and type with values in {-1, 0, +1}; all 0 if there is a NaN among the weights, since t is one
    """
    weights = tf.convert_to_tensor(weights)
    # 16 bits hold neither the count nor the sum of a large tensor
    w = tf.cast(weights, tf.float64 if weights.dtype == tf.float64 else tf.float32)
    # the name of the gradient stands in the graph, so that it is known where the graph is imported
    with tf.get_default_graph().gradient_override_map({'Sign': 'Identity'}):
        # a sum divided by a count, as TensorLayer has it: another rounding could move a weight across t
        mean = tf.div(tf.reduce_sum(tf.abs(w)), tf.cast(tf.size(w), w.dtype))
        threshold = tf.stop_gradient(tf.multiply(tf.cast(0.7, w.dtype), mean))
        ternary = tf.sign(tf.sign(w + threshold) + tf.sign(w - threshold))
    # without this operation a seed would give other initial values than before: they depend on the operations' number
    return tf.identity(tf.cast(ternary, weights.dtype))


# registered and not tf.custom_gradient's: of the latter, an imported graph knows the name alone
@tf.RegisterGradient('TWBA_ClippedGradient')
def _clipped_gradient(operation, _, gradient):
    return tf.clip_by_value(gradient, -1, 1), None


@tf.RegisterGradient('TWBA_TwiceClippedGradient')
def _twice_clipped_gradient(operation, _, gradient):
    return 2 * tf.clip_by_value(gradient, -1, 1), None


def _straight_through(x, levels, gradient):
    """levels, but NaN where x is NaN: tf.sign makes a number of it, and training would go on unnoticed.

    x's gradient is the function that is registered as `gradient`.
    """
    levels = tf.where(tf.is_nan(x), x, levels)
    with tf.get_default_graph().gradient_override_map({'IdentityN': gradient}):
        return tf.identity_n([x, levels])[1]


def binary_sign(x):
    """Two levels: +1 where x >= 0, else -1; NaN where x is NaN. Gradient: clip(g, -1, 1) (straight-through estimator)."""
    # sign(0) is 0; the half sends it to +1, so that after (x + 1) / 2 every output is exactly 0 or 1
    return _straight_through(x, tf.sign(tf.sign(x) + 0.5), 'TWBA_ClippedGradient')


def published_sign(x):
    """Three levels, as the published file computes them: sign(sign(x + 0.4) + sign(x - 0.4)); NaN where x is NaN.

    Gradient: clipped to [-1, 1] at each sign, so 2 clip(g, -1, 1). The outputs are not binary: see docs/differences.md.
    """
    return _straight_through(x, tf.sign(tf.sign(x + 0.4) + tf.sign(x - 0.4)), 'TWBA_TwiceClippedGradient')


ACTIVATIONS = {'binary': binary_sign, 'published': published_sign}


# What the two ternary layers share


def _refuse_gemm(use_gemm):
    if use_gemm:
        raise NotImplementedError("use_gemm=True: TensorLayer declares it and does not implement it. Leave it False.")


def _add_bias(outputs, name, size, b_init, b_init_args, data_format=None):
    """Returns (the outputs with the bias added, its variable)."""
    create = functools.partial(tf.get_variable, name, initializer=b_init, dtype=LayersConfig.tf_dtype, **b_init_args)
    try:
        bias = create(shape=(size,))
    except Exception:  # a constant, whose shape get_variable takes from itself alone
        bias = create()
    if bias.shape.as_list() != [size]:
        return outputs + bias, bias  # one number for all, as in TensorLayer 1.8.4
    return tf.nn.bias_add(outputs, bias, data_format=data_format, name='bias_add'), bias


class SignLayer(Layer):
    """Quantises the previous layer's outputs by sign.

    Parameters
    ----------
    prev_layer : :class:`Layer`
        Previous layer.
    name : str
        A unique layer name.
    activation : str
        'binary' (two levels, -1 and +1) or 'published' (three levels, -1, 0 and +1).
    """

    @deprecated_alias(layer='prev_layer', end_support_version=1.9)
    def __init__(self, prev_layer, name='sign', activation='binary'):
        super(SignLayer, self).__init__(prev_layer=prev_layer, name=name)
        if activation not in ACTIVATIONS:
            raise ValueError("activation should be one of %s, not %r" % (', '.join(sorted(ACTIVATIONS)), activation))
        with tf.variable_scope(name):
            self.outputs = ACTIVATIONS[activation](self.inputs)
        self._add_layers(self.outputs)


class TernaryConv2d(Layer):
    """2D convolution with weights in {-1, 0, +1}, without a scaling factor. The bias stays float.

    Parameters are those of :class:`tensorlayer.layers.BinaryConv2d`. Where the number of input channels is unknown,
    it is taken to be 1, as there.
    """

    @deprecated_alias(layer='prev_layer', end_support_version=1.9)
    def __init__(
            self,
            prev_layer,
            n_filter=32,
            filter_size=(3, 3),
            strides=(1, 1),
            act=None,
            padding='SAME',
            use_gemm=False,
            W_init=tf.truncated_normal_initializer(stddev=0.02),
            b_init=tf.constant_initializer(value=0.0),
            W_init_args=None,
            b_init_args=None,
            use_cudnn_on_gpu=None,
            data_format=None,
            name='ternary_cnn2d',
    ):
        super(TernaryConv2d, self).__init__(
            prev_layer=prev_layer, act=act, W_init_args=W_init_args, b_init_args=b_init_args, name=name
        )
        _refuse_gemm(use_gemm)
        if len(strides) != 2:
            raise ValueError("len(strides) should be 2.")
        channels = tf.compat.dimension_value(self.inputs.get_shape()[1 if data_format == 'NCHW' else -1])
        if channels is None:
            logging.warning("%s: unknown input channels, set to 1" % self.name)
            channels = 1
        shape = (filter_size[0], filter_size[1], channels, n_filter)
        strides = (1, 1) + tuple(strides) if data_format == 'NCHW' else (1,) + tuple(strides) + (1,)

        with tf.variable_scope(name):
            latent = tf.get_variable(
                'W_conv2d', shape=shape, initializer=W_init, dtype=LayersConfig.tf_dtype, **self.W_init_args
            )
            params = [ternarise(latent)]
            self.outputs = tf.nn.conv2d(
                self.inputs, params[0], strides=strides, padding=padding, use_cudnn_on_gpu=use_cudnn_on_gpu,
                data_format=data_format
            )
            if b_init:
                self.outputs, bias = _add_bias(
                    self.outputs, 'b_conv2d', n_filter, b_init, self.b_init_args, data_format
                )
                params.append(bias)
            self.outputs = self._apply_activation(self.outputs)

        self._add_layers(self.outputs)
        self._add_params(params)


class TernaryDenseLayer(Layer):
    """Fully connected layer with weights in {-1, 0, +1}, without a scaling factor. The bias stays float.

    Parameters are those of :class:`tensorlayer.layers.BinaryDenseLayer`. The input has rank 2: [batch, features].
    """

    @deprecated_alias(layer='prev_layer', end_support_version=1.9)
    def __init__(
            self,
            prev_layer,
            n_units=100,
            act=None,
            use_gemm=False,
            W_init=tf.truncated_normal_initializer(stddev=0.1),
            b_init=tf.constant_initializer(value=0.0),
            W_init_args=None,
            b_init_args=None,
            name='ternary_dense',
    ):
        super(TernaryDenseLayer, self).__init__(
            prev_layer=prev_layer, act=act, W_init_args=W_init_args, b_init_args=b_init_args, name=name
        )
        if self.inputs.get_shape().ndims != 2:
            raise ValueError("The input dimension must be rank 2, please reshape or flatten it")
        _refuse_gemm(use_gemm)
        features = tf.compat.dimension_value(self.inputs.get_shape()[-1])
        if features is None:
            raise ValueError("The number of input features must be known, please set the input's shape")
        self.n_units = n_units

        with tf.variable_scope(name):
            latent = tf.get_variable(
                'W', shape=(features, n_units), initializer=W_init, dtype=LayersConfig.tf_dtype, **self.W_init_args
            )
            params = [ternarise(latent)]
            self.outputs = tf.matmul(self.inputs, params[0])
            if b_init is not None:
                self.outputs, bias = _add_bias(self.outputs, 'b', n_units, b_init, self.b_init_args)
                params.append(bias)
            self.outputs = self._apply_activation(self.outputs)

        self._add_layers(self.outputs)
        self._add_params(params)


def load_npz(path='', name='model.npz', allow_pickle=False):
    """TensorLayer's, which reads nothing that its save_npz writes where NumPy refuses pickles (1.16.3 and later).

    Parameters
    ----------
    path, name : str
        Folder and name of the file.
    allow_pickle : bool
        save_npz pickles its arrays, and loading a pickle can run any code. True: you trust this file.

    Returns
    -------
    list of array
    """
    file = os.path.join(path, name)
    try:
        with np.load(file, allow_pickle=allow_pickle) as archive:
            return archive['params']
    except ValueError as error:
        if 'allow_pickle' not in str(error):
            raise
        raise ValueError(
            "%s holds pickles, which can run any code when they are loaded: if you trust the file, read it with "
            "tl.files.load_npz(name=..., allow_pickle=True)" % file
        ) from None


# load_and_assign_npz finds the one in files.utils
files.load_npz = files.utils.load_npz = load_npz
