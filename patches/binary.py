"""Quantised layers of TWBA-Nets / BWBA-Nets, for ``tensorlayer/layers/binary.py`` of TensorLayer 1.11.0.

``patches/install.py`` puts this file there. It exports the eight names that ``binary.py`` of
TensorLayer 1.8.4 exported. What does not differ from TensorLayer 1.11.0 is imported from it:
only the ternary layers (no scaling factor alpha) and SignLayer stand here.

The layers' bodies are derived from TensorLayer 1.11.0 (``layers/convolution/ternary_conv.py``,
``layers/dense/ternary_dense.py``, ``layers/quantize.py``), (c) TensorLayer contributors,
Apache License 2.0; see NOTICE.
"""
import tensorflow as tf

from tensorlayer.layers.convolution.binary_conv import BinaryConv2d
from tensorlayer.layers.convolution.dorefa_conv import DorefaConv2d
from tensorlayer.layers.core import Layer
from tensorlayer.layers.core import LayersConfig
from tensorlayer.layers.dense.binary_dense import BinaryDenseLayer
from tensorlayer.layers.dense.dorefa_dense import DorefaDenseLayer
from tensorlayer.layers.scale import ScaleLayer
# `tensorlayer.layers.quantize`, the attribute, is this function: it hides the module of that name
from tensorlayer.layers.utils import quantize

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


@tf.custom_gradient
def ternarise(weights):
    """Ternary weights sign(sign(W + t) + sign(W - t)) with t = 0.7 * mean|W| over the whole tensor.

    Every sign passes the gradient unchanged and the two terms through t cancel: dW = 2 g.

    Parameters
    ----------
    weights : tensor of any shape and floating type

    Returns
    -------
    tensor of the same shape and type with values in {-1, 0, +1}
    """
    # a sum divided by a count, as TensorLayer has it: another rounding could move a weight across t
    mean = tf.div(tf.reduce_sum(tf.abs(weights)), tf.cast(tf.size(weights), weights.dtype))
    threshold = tf.multiply(tf.cast(0.7, weights.dtype), mean)
    return tf.sign(tf.sign(weights + threshold) + tf.sign(weights - threshold)), lambda gradient: 2 * gradient


def binary_sign(x):
    """Two levels: +1 where x >= 0, else -1. Gradient: clip(g, -1, 1) (straight-through estimator)."""
    # sign(0) is 0; the half sends it to +1, so that after (x + 1) / 2 every output is exactly 0 or 1
    return quantize(quantize(x) + 0.5)


def published_sign(x):
    """Three levels, as the published file computes them: sign(sign(x + 0.4) + sign(x - 0.4)).

    Gradient: clipped to [-1, 1] at each sign. The outputs are not binary: see the README.
    """
    return quantize(quantize(x + 0.4) + quantize(x - 0.4))


ACTIVATIONS = {'binary': binary_sign, 'published': published_sign}


class SignLayer(Layer):
    """Quantises the previous layer's outputs by sign.

    Parameters
    ----------
    prev_layer : :class:`Layer`
        Previous layer.
    activation : str
        'binary' (two levels, -1 and +1) or 'published' (three levels, -1, 0 and +1).
    name : str
        A unique layer name.
    """

    def __init__(self, prev_layer, activation='binary', name='sign'):
        super(SignLayer, self).__init__(prev_layer=prev_layer, name=name)
        with tf.variable_scope(name):
            self.outputs = ACTIVATIONS[activation](self.inputs)
        self._add_layers(self.outputs)


class TernaryConv2d(Layer):
    """2D convolution with weights in {-1, 0, +1}, without a scaling factor. The bias stays float.

    Parameters are those of :class:`tensorlayer.layers.BinaryConv2d`, but for ``use_gemm``, which
    TensorLayer declares and does not implement.
    """

    def __init__(
            self,
            prev_layer,
            n_filter=32,
            filter_size=(3, 3),
            strides=(1, 1),
            act=None,
            padding='SAME',
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
        if len(strides) != 2:
            raise ValueError("len(strides) should be 2.")
        channel_axis = 1 if data_format == 'NCHW' else -1
        shape = tuple(filter_size) + (int(self.inputs.get_shape()[channel_axis]), n_filter)
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
                params.append(
                    tf.get_variable(
                        'b_conv2d', shape=(n_filter,), initializer=b_init, dtype=LayersConfig.tf_dtype,
                        **self.b_init_args
                    )
                )
                self.outputs = tf.nn.bias_add(self.outputs, params[1], data_format=data_format, name='bias_add')
            self.outputs = self._apply_activation(self.outputs)

        self._add_layers(self.outputs)
        self._add_params(params)


class TernaryDenseLayer(Layer):
    """Fully connected layer with weights in {-1, 0, +1}, without a scaling factor. The bias stays float.

    Parameters are those of :class:`tensorlayer.layers.BinaryDenseLayer`, but for ``use_gemm``, which
    TensorLayer declares and does not implement. The input has rank 2: [batch, features].
    """

    def __init__(
            self,
            prev_layer,
            n_units=100,
            act=None,
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
        self.n_units = n_units

        with tf.variable_scope(name):
            latent = tf.get_variable(
                'W', shape=(int(self.inputs.get_shape()[-1]), n_units), initializer=W_init,
                dtype=LayersConfig.tf_dtype, **self.W_init_args
            )
            params = [ternarise(latent)]
            self.outputs = tf.matmul(self.inputs, params[0])
            if b_init:
                params.append(
                    tf.get_variable(
                        'b', shape=(n_units,), initializer=b_init, dtype=LayersConfig.tf_dtype, **self.b_init_args
                    )
                )
                self.outputs = tf.nn.bias_add(self.outputs, params[1], name='bias_add')
            self.outputs = self._apply_activation(self.outputs)

        self._add_layers(self.outputs)
        self._add_params(params)
