"""The eight patched names, for other people's networks: every call that TensorLayer 1.11's stock layers or the published
binary.py (the signatures of TensorLayer 1.8.4) take; meta graphs; files."""
import importlib
import inspect
import re
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
import tensorlayer as tl

from helpers import REPOSITORY, start_process

STOCK_MODULES = {
    "BinaryConv2d": "convolution.binary_conv", "BinaryDenseLayer": "dense.binary_dense",
    "DorefaConv2d": "convolution.dorefa_conv", "DorefaDenseLayer": "dense.dorefa_dense",
    "ScaleLayer": "scale", "SignLayer": "quantize",
    "TernaryConv2d": "convolution.ternary_conv", "TernaryDenseLayer": "dense.ternary_dense",
}
W, B = tf.truncated_normal_initializer(stddev=0.1), tf.constant_initializer(0.5)
CONVOLUTION = [("n_filter", 4), ("filter_size", (3, 2)), ("strides", (2, 1)), ("act", tf.identity), ("padding", "VALID"),
               ("use_gemm", False), ("W_init", W), ("b_init", B), ("W_init_args", {}), ("b_init_args", {}),
               ("use_cudnn_on_gpu", False), ("data_format", "NHWC"), ("name", "given")]
DENSE = [("n_units", 4), ("act", tf.nn.relu), ("use_gemm", False), ("W_init", W), ("b_init", B), ("W_init_args", {}),
         ("b_init_args", {}), ("name", "given")]
BITS = [("bitW", 2), ("bitA", 2)]
# TensorLayer 1.8.4's parameters after prev_layer, in order, each with a value that differs from its default where it may
SIGNATURES_184 = {
    "BinaryConv2d": CONVOLUTION, "BinaryDenseLayer": DENSE, "DorefaConv2d": BITS + CONVOLUTION,
    "DorefaDenseLayer": BITS + DENSE, "ScaleLayer": [("init_scale", 0.5), ("name", "given")],
    "SignLayer": [("name", "given")], "TernaryConv2d": CONVOLUTION, "TernaryDenseLayer": DENSE,
}
DEFAULTS_184 = {
    "n_filter": 32, "filter_size": (3, 3), "strides": (1, 1), "padding": "SAME", "use_gemm": False, "W_init_args": None,
    "b_init_args": None, "use_cudnn_on_gpu": None, "data_format": None, "n_units": 100, "bitW": 1, "bitA": 3,
    "init_scale": 0.05,
}
NAMES = sorted(SIGNATURES_184)
GEMM = sorted(name for name in NAMES if "use_gemm" in dict(SIGNATURES_184[name]))


@pytest.fixture(autouse=True)
def graph():
    with tf.Graph().as_default() as graph:
        yield graph


def previous(name, features=6):
    """A layer that the one called `name` can follow."""
    shape = [2, features] if "Dense" in name else [2, 5, 5, features]
    return tl.layers.InputLayer(tf.constant(np.random.RandomState(0).randn(*shape), tf.float32))


def parameters(layer):
    return list(inspect.signature(layer.__init__).parameters.values())[1:]


def plain(default):
    """A default that can be compared: initialisers by their type and settings."""
    return (type(default), default.get_config()) if hasattr(default, "get_config") else default


@pytest.mark.parametrize("name", NAMES)
def test_signatures(name):
    """Both older signatures are the beginning of ours: the same names, order and defaults. (act: None is tf.identity.)"""
    stock = getattr(importlib.import_module("tensorlayer.layers." + STOCK_MODULES[name]), name)
    ours = parameters(getattr(tl.layers, name))
    expected = parameters(stock)
    assert [p.name for p in ours[:len(expected)]] == [p.name for p in expected]
    assert [plain(p.default) for p in ours[:len(expected)]] == [plain(p.default) for p in expected]
    assert [p.name for p in expected] == ["prev_layer"] + [key for key, _ in SIGNATURES_184[name]]
    for parameter in ours:
        if parameter.name in DEFAULTS_184:
            assert parameter.default == DEFAULTS_184[parameter.name]


@pytest.mark.parametrize("name", NAMES)
def test_every_argument_by_position_and_by_name(name):
    layer, arguments = getattr(tl.layers, name), SIGNATURES_184[name]
    results = []
    for pass_on in (lambda net: layer(net, *[value for _, value in arguments]),
                    lambda net: layer(net, **dict(arguments)),
                    lambda net: layer(prev_layer=net, **dict(arguments)),
                    lambda net: layer(layer=net, **dict(arguments))):
        with tf.Graph().as_default(), tf.Session() as session:
            tf.set_random_seed(0)
            net = pass_on(previous(name))
            assert net.name == "given"
            assert net.outputs.op.name.startswith("given/")
            session.run(tf.global_variables_initializer())
            results.append(session.run(net.outputs))
    assert results[0].shape == ((2, 4) if "Dense" in name else (2, 2, 4, 4) if "Conv" in name else (2, 5, 5, 6))
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


@pytest.mark.parametrize("name", GEMM)
def test_use_gemm_is_refused_as_tensorlayer_does(name):
    with pytest.raises(Exception, match="TODO|does not implement it"):
        getattr(tl.layers, name)(previous(name), use_gemm=True)


def test_sign_layer_takes_its_name_second_and_its_levels_third():
    net = tl.layers.SignLayer(previous("SignLayer"), "spikes")
    assert net.name == "spikes"
    assert tl.layers.SignLayer(net, "more", "published").outputs.op.name.startswith("more/")
    with pytest.raises(ValueError, match="activation should be one of binary, published, not 'sign'"):
        tl.layers.SignLayer(net, activation="sign")


@pytest.mark.parametrize("name", ["TernaryDenseLayer", "BinaryDenseLayer"])
def test_dense_layers_want_rank_2(name):
    with pytest.raises(Exception, match="must be rank 2"):
        getattr(tl.layers, name)(previous("Conv"))


@pytest.mark.parametrize("name", ["TernaryConv2d", "BinaryConv2d", "DorefaConv2d"])
def test_strides_are_two(name):
    with pytest.raises(ValueError, match=r"len\(strides\) should be 2"):
        getattr(tl.layers, name)(previous(name), strides=(1, 1, 1))


@pytest.mark.parametrize("shape", [None, [None, None, None, None]])
@pytest.mark.parametrize("name", ["TernaryConv2d", "BinaryConv2d", "DorefaConv2d"])
def test_unknown_channels_are_taken_to_be_one(name, shape):
    x = tf.placeholder(tf.float32, shape)
    net = getattr(tl.layers, name)(tl.layers.InputLayer(x), n_filter=3)
    assert tf.trainable_variables()[0].shape == (3, 3, 1, 3)
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        assert session.run(net.outputs, {x: np.ones((2, 5, 5, 1))}).shape == (2, 5, 5, 3)


def test_unknown_features_are_refused():
    with pytest.raises(ValueError, match="The number of input features must be known"):
        tl.layers.TernaryDenseLayer(tl.layers.InputLayer(tf.placeholder(tf.float32, [None, None])))


@pytest.mark.parametrize("bias, shape", [(0.5, ()), ([0.5], (1,)), (np.full(4, 0.5, np.float32), (4,)), (B, (4,)),
                                         (lambda: tf.fill([4], 0.5), (4,))])
def test_constant_biases_of_a_dense_layer(bias, shape):
    """A constant has a shape of its own; TensorLayer 1.8.4 added whatever could be added."""
    net = tl.layers.TernaryDenseLayer(previous("Dense"), 4, b_init=bias)
    assert net.all_params[1].shape == shape
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        outputs, x, weights = session.run([net.outputs, net.inputs, net.all_params[0]])
    np.testing.assert_allclose(outputs, x @ weights + 0.5, rtol=1e-5)


@pytest.mark.parametrize("name, none", [("TernaryConv2d", None), ("TernaryConv2d", False), ("TernaryDenseLayer", None)])
def test_layers_without_a_bias(name, none):
    assert len(getattr(tl.layers, name)(previous(name), b_init=none).all_params) == 1


def small_network(x):
    """Every layer that quantises by sign, in one network."""
    net = tl.layers.TernaryConv2d(tl.layers.InputLayer(x), 4, (3, 3), name="ternary_conv")
    net = tl.layers.SignLayer(net, "binary")
    net = tl.layers.BinaryConv2d(net, 4, (3, 3), name="binary_conv")
    net = tl.layers.SignLayer(net, "published", "published")
    return tl.layers.TernaryDenseLayer(tl.layers.FlattenLayer(net), 3, name="ternary_dense").outputs


def run_elsewhere(code, *arguments):
    """Python code in a process of its own, where nothing is registered that this one has."""
    return subprocess.check_output([sys.executable, "-W", "ignore", "-c", code, *map(str, arguments)])


def test_gradients_through_an_imported_meta_graph(tmp_path):
    """They are those of the graph that was exported, to the bit."""
    outputs = small_network(tf.constant(np.random.RandomState(0).randn(2, 5, 5, 3), tf.float32))
    with tf.Session(config=tf.ConfigProto(intra_op_parallelism_threads=1)) as session:
        session.run(tf.global_variables_initializer())
        tf.train.Saver().save(session, str(tmp_path / "net"))  # net.meta is the meta graph
        expected = session.run(tf.gradients(outputs ** 2, tf.trainable_variables()))
    run_elsewhere("""
import sys
import numpy as np
import tensorflow as tf
import tensorlayer
saver = tf.train.import_meta_graph(sys.argv[1] + ".meta")
outputs = tf.get_default_graph().get_tensor_by_name(sys.argv[2])
with tf.Session(config=tf.ConfigProto(intra_op_parallelism_threads=1)) as session:
    saver.restore(session, sys.argv[1])
    np.savez(sys.argv[1], *session.run(tf.gradients(outputs ** 2, tf.trainable_variables())))
""", tmp_path / "net", outputs.name)
    with np.load(tmp_path / "net.npz") as found:
        assert len(found.files) == len(expected) == 6
        for i, gradient in enumerate(expected):
            assert np.any(gradient)
            np.testing.assert_array_equal(found[f"arr_{i}"], gradient)


def test_a_ternary_meta_graph_needs_no_tensorlayer(tmp_path):
    """The gradient's name in the graph is TensorFlow's own."""
    tl.layers.TernaryDenseLayer(previous("Dense"), 3, b_init=None)
    tf.train.export_meta_graph(str(tmp_path / "net.meta"))
    run_elsewhere("""
import sys
import tensorflow as tf
tf.train.import_meta_graph(sys.argv[1])
weights, = tf.trainable_variables()
assert tf.gradients(tf.get_default_graph().get_tensor_by_name("ternary_dense/MatMul:0"), weights)[0].shape == (6, 3)
assert "tensorlayer" not in sys.modules
""", tmp_path / "net.meta")


def float_network():
    net = tl.layers.DenseLayer(previous("Dense"), 3, name="dense")
    session = tf.Session()
    session.run(tf.global_variables_initializer())
    return net, session


def test_load_npz_reads_what_save_npz_writes_if_the_user_trusts_it(tmp_path):
    file = str(tmp_path / "model.npz")
    net, session = float_network()
    with session:
        tl.files.save_npz(net.all_params, file, session)
        for load in (lambda: tl.files.load_npz(str(tmp_path), "model.npz"), lambda: tl.files.load_npz(name=file),
                     lambda: tl.files.load_and_assign_npz(session, file, net)):
            with pytest.raises(ValueError, match=re.escape(file) + r" holds pickles.* allow_pickle=True"):
                load()
        saved = session.run(net.all_params)
        session.run([variable.assign(variable + 1) for variable in net.all_params])
        tl.files.assign_params(session, tl.files.load_npz(name=file, allow_pickle=True), net)
        for value, expected in zip(session.run(net.all_params), saved):
            np.testing.assert_array_equal(value, expected)


def test_save_npz_dict_keeps_a_quantised_network(tmp_path):
    """What docs/own_network.md says to do instead: latent weights, no pickle; a square layer, too."""
    tl.layers.TernaryDenseLayer(previous("Dense"), 6)
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        saved = session.run(tf.global_variables())
        tl.files.save_npz_dict(tf.global_variables(), str(tmp_path / "net.npz"), session)
        session.run(tf.global_variables_initializer())
        tl.files.load_and_assign_npz_dict(str(tmp_path / "net.npz"), session)
        for value, expected in zip(session.run(tf.global_variables()), saved):
            np.testing.assert_array_equal(value, expected)


def test_load_npz_reads_plain_arrays_as_before(tmp_path):
    np.savez(tmp_path / "plain.npz", params=np.arange(6).reshape(2, 3))
    np.testing.assert_array_equal(tl.files.load_npz(str(tmp_path), "plain.npz"), [[0, 1, 2], [3, 4, 5]])
    with pytest.raises(FileNotFoundError):
        tl.files.load_npz(name=str(tmp_path / "missing.npz"))


PAGE = (REPOSITORY / "docs" / "own_network.md").read_text()
EXAMPLE = re.search("```python\n(import tensorflow.*?)```", PAGE, re.DOTALL).group(1)


def assert_trained_and_restored(output, folder, loss):
    """loss: about 3 before the training."""
    trained, restored = [float(word) for word in output.split()]
    assert trained < loss
    assert restored == pytest.approx(trained, rel=0.02)
    assert (folder / "net.ckpt.index").exists()


@pytest.mark.slow
def test_example_in_the_docs(tmp_path):
    """The code block of docs/own_network.md, as it stands: trains, saves, restores."""
    process = start_process("-c", EXAMPLE, cwd=tmp_path)
    output, error = process.communicate()
    assert process.returncode == 0, error
    assert_trained_and_restored(output, tmp_path, loss=0.3)


def test_a_few_steps_of_the_example_in_the_docs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    tf.set_random_seed(0)
    assert "range(30)" in EXAMPLE
    exec(EXAMPLE.replace("range(30)", "range(6)"), {})
    assert_trained_and_restored(capsys.readouterr().out, tmp_path, loss=2)
