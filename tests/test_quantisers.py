"""The quantisers of patches/binary.py and their gradients against values computed by hand."""
import numpy as np
import pytest
import tensorflow as tf
from tensorlayer.layers import binary
from tensorlayer.layers.utils import quantize

from twba_nets.network import quantisers as np_quantisers
from twba_nets.network.architecture import PAPER
from twba_tensorflow import fast_network, published_network, quantisers


def value_and_gradient(function, x, upstream, dtype=np.float32):
    """function(x) and the gradient of sum(upstream * function(x)) with respect to x."""
    with tf.Graph().as_default(), tf.Session() as session:
        x = tf.constant(np.array(x, dtype))
        y = function(x)
        return session.run([y, tf.gradients(y, x, np.array(upstream, dtype))[0]])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_ternarise(dtype):
    # mean|W| = 1, so t = 0.7; weights just beside the threshold fall on either side of it
    weights = [2.0, -1.0, 0.69, -0.69, 0.71, -0.71, 1.2, -1.0]
    y, gradient = value_and_gradient(binary.ternarise, weights, range(-4, 4), dtype)
    assert y.dtype == dtype
    np.testing.assert_array_equal(y, [1, -1, 0, 0, 1, -1, 1, -1])
    np.testing.assert_array_equal(gradient, 2 * np.arange(-4, 4))  # 2 g, not clipped, nothing through t


def test_ternarise_on_its_threshold():
    """|W| = t exactly: one sign is 0, the other +-1, so the weight survives. In float64, 0.7 * 10 is 7 exactly."""
    weights = [7.0, -7.0, 6.0, 20.0]  # mean|W| = 10
    y, _ = value_and_gradient(binary.ternarise, weights, np.ones(4), np.float64)
    np.testing.assert_array_equal(y, [1, -1, 0, 1])


@pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16])
def test_ternarise_in_16_bits(dtype):
    """float16 ends at 65,504: neither the count of these weights nor the sum of their magnitudes is in it."""
    weights = np.tile(np.array([4.0, -4.0, 2.0, -2.0], np.float32), 20000)  # mean|W| = 3, t = 2.1
    with tf.Graph().as_default(), tf.Session() as session:
        x = tf.constant(weights, dtype)
        y = binary.ternarise(x)
        gradient, = tf.gradients(y, x, tf.constant(weights, dtype))
        assert y.dtype == gradient.dtype == dtype
        y, gradient = session.run([tf.cast(y, tf.float32), tf.cast(gradient, tf.float32)])
    np.testing.assert_array_equal(y, np.tile([1, -1, 0, 0], 20000))
    np.testing.assert_array_equal(gradient, 2 * weights)


def test_the_network_is_not_built_in_16_bits():
    with tf.Graph().as_default(), pytest.raises(ValueError, match="the images are float16: 16 bits do not hold"):
        fast_network.build(tf.zeros([2, 24, 24, 3], tf.float16), "twba", PAPER)


@pytest.mark.parametrize("constant, expected", [(0.0, 0), (0.3, 1), (-2.0, -1)])
def test_ternarise_constant_tensor(constant, expected):
    y, gradient = value_and_gradient(binary.ternarise, np.full((3, 3, 2, 4), constant), np.full((3, 3, 2, 4), 5.0))
    np.testing.assert_array_equal(y, np.full((3, 3, 2, 4), expected))
    np.testing.assert_array_equal(gradient, np.full((3, 3, 2, 4), 10.0))


def test_ternary_and_binary_are_fixed_points():
    """Quantised weights, as model.npz holds them, quantise to themselves."""
    ternary = np.random.RandomState(0).choice([-1.0, 0.0, 1.0], (3, 3, 16, 8))
    binary_weights = np.random.RandomState(0).choice([-1.0, 1.0], (3, 3, 16, 8))
    np.testing.assert_array_equal(value_and_gradient(binary.ternarise, ternary, ternary)[0], ternary)
    np.testing.assert_array_equal(value_and_gradient(quantize, binary_weights, ternary)[0], binary_weights)


@pytest.mark.parametrize("variant, values", [("twba", [-1, 0, 1]), ("bwba", [-1, 1])])
@pytest.mark.parametrize("kind", ["int8", "float16", "float32", "float64"])
def test_latent_weights_from_quantised_ones(variant, values, kind):
    """They are quantised to the same, and a few steps of training can change them. Latent ones stay."""
    quantise = np_quantisers.WEIGHTS[variant].quantise
    weights = np.random.RandomState(0).choice(values, (3, 3, 32, 8)).astype(kind)
    latent = np_quantisers.latent(weights)
    assert latent.dtype == (np.float64 if kind == "float64" else np.float32)
    np.testing.assert_array_equal(quantise(latent), weights)
    assert np.abs(latent).max() <= 0.25
    np.testing.assert_array_equal(np_quantisers.latent(latent), latent)


def test_binary_weights_are_tensorlayers_sign():
    """sign(W), 0 included; gradient clip(g, -1, 1) wherever W lies."""
    y, gradient = value_and_gradient(quantize, [-3.0, -1e-30, 0.0, 0.5, 3.0], [-2.0, -0.5, 0.0, 0.5, 2.0])
    np.testing.assert_array_equal(y, [-1, -1, 0, 1, 1])
    np.testing.assert_array_equal(gradient, [-1, -0.5, 0, 0.5, 1])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_binary_activation(dtype):
    y, gradient = value_and_gradient(binary.binary_sign, [-2.0, -1e-30, -0.0, 0.0, 1e-30, 2.0],
                                     [-3.0, -1.0, -0.25, 0.25, 1.0, 3.0], dtype)
    assert y.dtype == dtype
    np.testing.assert_array_equal(y, [-1, -1, 1, 1, 1, 1])  # x >= 0 fires
    np.testing.assert_array_equal(gradient, [-1, -1, -0.25, 0.25, 1, 1])


def test_published_activation():
    x = np.array([-2.0, -0.4, -0.39, 0.0, 0.39, 0.4, 2.0], np.float32)
    y, gradient = value_and_gradient(binary.published_sign, x, [-3.0, -1.0, -0.25, 0.0, 0.25, 1.0, 3.0])
    np.testing.assert_array_equal(y, [-1, -1, 0, 0, 0, 1, 1])  # on +-0.4 one sign is 0, the other decides
    np.testing.assert_array_equal(gradient, [-2, -2, -0.5, 0, 0.5, 2, 2])  # two clipped terms


@pytest.mark.parametrize("activation, thresholds", [("binary", [0]), ("three-level", [-0.4, 0.4])])
def test_no_compiler_rounds_product_and_sum_as_one(activation, thresholds):
    """The fast graph's activations, compiled, decide as the published graph's operations, which are rounded one by one.

    Sums are small integers or halves. All potentials lie on a threshold, or as far beside it as float32 rounds.
    """
    random, count = np.random.RandomState(0), 100000
    sums, scale = np.float32(random.randint(-1024, 1025, count) / 2), np.float32(random.uniform(-0.1, 0.1, count))
    shift = np.float32(random.choice(thresholds, count)) - sums * scale

    def levels(potential):
        at_least = potential >= np.float32(thresholds[-1])
        return at_least if activation == "binary" else (at_least + (potential > np.float32(thresholds[0])) * 1.0) / 2

    expected = levels(sums * scale + shift)
    rounded_once = np.float32(sums.astype(float) * scale + shift)  # what a fused operation (FMA) would give
    assert (levels(rounded_once) != expected).mean() > 0.05

    with tf.Graph().as_default(), tf.Session() as session:
        fire, _ = quantisers.ACTIVATIONS[activation]
        outputs, = tf.xla.experimental.compile(lambda x, a, b: fire(x * a, b), [tf.constant(x) for x in (sums, scale, shift)])
        np.testing.assert_array_equal(session.run(outputs), expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("activation, outputs, gradients", [
    ("binary", [0, 0, 0, 0, 1, 1, 1, 1, 1], [0, -0.5, -1, -1, 1, 0.25, 1, 0.5, 0]),
    ("three-level", [0, 0, 0, 0.5, 0.5, 0.5, 1, 1, 1], [0, -1, -2, -2, 2, 0.5, 2, 1, 0])])
def test_activations_of_the_fast_graph(activation, outputs, gradients, dtype):
    """At their thresholds, 0 and +-0.4, and at htanh's ends: no gradient beyond 1. (x + 1) / 2 halves it, then it is clipped.

    -0.3999 and 0.3999 lie beside the published thresholds. At 0 the binary one fires.
    """
    potential, upstream = [-1.1, -1, -0.4, -0.3999, 0, 0.3999, 0.4, 1, 1.1], [-1, -1, -3, -9, 3, 0.5, 2, 1, 1]
    fire, gradient = quantisers.ACTIVATIONS[activation]
    with tf.Graph().as_default(), tf.Session() as session:
        x, zero = tf.constant(np.array(potential, dtype)), tf.zeros([], dtype)
        found = session.run([fire(x, zero), fire(zero, x), gradient(x, tf.constant(np.array(upstream, dtype)))])
    np.testing.assert_array_equal(found, [outputs, outputs, gradients])


def test_weights_hide_a_nan():
    """As TensorLayer's signs do; docs/own_network.md says so."""
    weights = [np.nan, 1.0, -1.0]
    np.testing.assert_array_equal(value_and_gradient(binary.ternarise, weights, np.ones(3))[0], [0, 0, 0])
    np.testing.assert_array_equal(value_and_gradient(quantize, weights, np.ones(3))[0], [0, 1, -1])


@pytest.mark.parametrize("function", [binary.binary_sign, binary.published_sign])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_activations_keep_nan(function, dtype):
    """A broken number is no spike. Infinite ones have a sign."""
    y, gradient = value_and_gradient(function, [np.nan, np.inf, -np.inf, 0.9], [1.0, 1.0, 1.0, 1.0], dtype)
    assert y.dtype == dtype
    np.testing.assert_array_equal(y, [np.nan, 1, -1, 1])
    assert np.isfinite(gradient).all()


def test_stock_layers_where_nothing_differs():
    """Eight names; what does not differ from TensorLayer 1.11 is TensorLayer's own."""
    import tensorlayer
    assert sorted(binary.__all__) == ["BinaryConv2d", "BinaryDenseLayer", "DorefaConv2d", "DorefaDenseLayer",
                                      "ScaleLayer", "SignLayer", "TernaryConv2d", "TernaryDenseLayer"]
    for name in binary.__all__:
        assert getattr(tensorlayer.layers, name) is getattr(binary, name)
    assert binary.BinaryConv2d.__module__ == "tensorlayer.layers.convolution.binary_conv"
    assert binary.ScaleLayer.__module__ == "tensorlayer.layers.scale"


@pytest.mark.parametrize("bias", [None, tf.constant_initializer(0.5)])
def test_ternary_layers_have_no_scaling_factor(bias):
    """Outputs of the layers themselves: plain sums of the kept inputs, with the (float) bias added."""
    weights = np.array([[3.0, -3.0], [0.1, 3.0]], np.float32)  # t = 0.7 * 2.275: the 0.1 is dropped
    x = np.array([[10.0, 1.0]], np.float32)
    expected = np.array([[10.0, -9.0]]) + (0.5 if bias else 0)
    with tf.Graph().as_default(), tf.Session() as session:
        initialiser = tf.constant_initializer(weights)
        dense = binary.TernaryDenseLayer(_input(x), 2, W_init=initialiser, b_init=bias, name="dense")
        conv = binary.TernaryConv2d(_input(x.reshape(1, 1, 1, 2)), 2, (1, 1), W_init=initialiser, b_init=bias,
                                    name="conv")
        session.run(tf.global_variables_initializer())
        np.testing.assert_array_equal(session.run(dense.outputs), expected)
        np.testing.assert_array_equal(session.run(conv.outputs).reshape(1, 2), expected)
        # all_params holds the quantised weights
        np.testing.assert_array_equal(session.run(conv.all_params[0]).reshape(2, 2), [[1, -1], [0, 1]])


def _input(x):
    import tensorlayer
    return tensorlayer.layers.InputLayer(tf.constant(x), name=f"input_{x.ndim}")


def test_one_registry():
    """All code that names quantisers has the registry's names. PyTorch's are tested in tests/pytorch."""
    assert list(quantisers.WEIGHTS) == list(published_network.QUANTISED_CONV) == list(np_quantisers.WEIGHTS)
    assert set(quantisers.ACTIVATIONS) - {"relu"} == set(published_network.PATCHED_NAMES) == set(np_quantisers.ACTIVATIONS)
    assert not set(np_quantisers.ALIASES) & set(np_quantisers.ACTIVATIONS)
    assert {np_quantisers.canonical(name) for name in np_quantisers.ALIASES} <= set(np_quantisers.ACTIVATIONS)
    assert [name for name in np_quantisers.ACTIVATIONS if np_quantisers.is_binary(name)] == ["binary"]
    assert [(weights.levels, weights.datatype) for weights in np_quantisers.WEIGHTS.values()] == [
        ((-1, 0, 1), "TERNARY"), ((-1, 1), "BIPOLAR")]


@pytest.mark.parametrize("variant, quantise", [("twba", binary.ternarise), ("bwba", quantize)])
def test_numpy_quantises_weights_as_tensorflow(variant, quantise):
    """With the factor in twba_nets/network/quantisers.py; the library's file has its own copy of it."""
    weights = np.random.RandomState(0).normal(size=(3, 3, 32, 64)).astype(np.float32)
    weights[0, 0, 0, :2] = 0, np_quantisers.TERNARY_FACTOR * np.abs(weights).mean() * 1.001  # just beyond the threshold
    with tf.Graph().as_default(), tf.Session() as session:
        expected = session.run(quantise(tf.constant(weights)))
    np.testing.assert_array_equal(np_quantisers.WEIGHTS[variant].quantise(weights), expected)
    np.testing.assert_array_equal(np_quantisers.WEIGHTS[variant].quantise(expected), expected)


def test_the_published_activation_turns_at_the_named_offset():
    x = np_quantisers.PUBLISHED_OFFSET * np.float32([-1.001, -0.999, 0, 0.999, 1.001])
    with tf.Graph().as_default(), tf.Session() as session:
        assert session.run(binary.published_sign(tf.constant(x))).tolist() == [-1, 0, 0, 0, 1]
