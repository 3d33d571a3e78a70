"""The network against the published code: its variables, its arithmetic, and what it computed."""
import collections
import hashlib

import numpy as np
import pytest
import tensorflow as tf
import tensorlayer
from tensorlayer.layers import binary

from helpers import RANDOM, SEEDS, random_architecture, random_variables
from networks import evaluate
from twba_nets.network import architecture as arch, quantisers
from twba_nets.network.architecture import PAPER, Architecture, Row
from twba_nets.runs.recipe import Recipe
from twba_nets.system.errors import UserError
from twba_tensorflow import checkpoint, fast_network, published_network
from twba_tensorflow.evaluation import Evaluator, cross_entropy
from twba_tensorflow.session import session_config
from twba_tensorflow.training import build_step


def model_variables(architecture=PAPER):
    """The default graph's model variables, name -> variable; Adam's slots are not among them."""
    variables = {variable.op.name: variable for variable in tf.global_variables()}
    return {name: variables[name] for name in architecture.variable_shapes}


def same_padding(size, stage):
    """TensorFlow's SAME padding in one dimension: (before, after)."""
    total = max((-(-size // stage.stride) - 1) * stage.stride + stage.kernel - size, 0)
    return total // 2, total - total // 2


def reference_convolution(x, weights, stage):
    """A convolution as its definition reads. x: [n, h, w, c]."""
    if stage.padding == "SAME":
        pad = same_padding(x.shape[1], stage)
        x = np.pad(x, ((0, 0), pad, pad, (0, 0)), mode="constant")
    size = (x.shape[1] - stage.kernel) // stage.stride + 1
    y = np.zeros((len(x), size, size, weights.shape[-1]))
    for row in range(size):
        for column in range(size):
            top, left = row * stage.stride, column * stage.stride
            patch = x[:, top:top + stage.kernel, left:left + stage.kernel]
            y[:, row, column] = np.tensordot(patch, weights, 3)
    return y


def reference_network(values, x, variant, activation, architecture):
    """The network in NumPy and float64, written from the table alone."""
    def weights(name, quantised):
        w = values[name]
        if not quantised:
            return w
        t = 0.7 * np.abs(w).mean() if variant == "twba" else 0
        return np.where(w > t, 1.0, np.where(w < -t, -1.0, 0.0))

    def batch_norm(y, name):
        beta, gamma, mean, variance = (values[f"{name}/{part}"]
                                       for part in ("beta", "gamma", "moving_mean", "moving_variance"))
        return gamma * (y - mean) / np.sqrt(variance + 1e-5) + beta

    def fire(y):
        y = np.clip(y, -1, 1)
        if activation == "binary":
            return (y >= 0).astype(float)
        return np.where(y >= 0.4, 1.0, np.where(y <= -0.4, 0.0, 0.5))

    maps = []
    for stage in architecture.stages:
        groups = [
            batch_norm(reference_convolution(x[..., i::stage.groups], weights(kernel, stage.quantised), stage), bn)
            for i, (kernel, bn) in enumerate(stage.variable_names)]
        x = np.concatenate(groups, axis=3)
        if stage.fires:
            x = fire(x)
            maps.append(x)
        else:
            x = np.maximum(x, 0)
    return batch_norm(x.reshape(len(x), -1) @ values["model/output/W"], "model/bn8"), maps


def random_images(images, architecture):
    """Standardised ones, as the first stage reads them."""
    size = (images, architecture.image_size, architecture.image_size, architecture.channels)
    return np.random.RandomState(1).normal(size=size)


@pytest.mark.parametrize("variant, activation, seed", [
    (variant, activation, None) for variant in quantisers.WEIGHTS for activation in quantisers.ACTIVATIONS] + [
    (*random, seed) for random, seed in zip(RANDOM, SEEDS)])
def test_forward_pass_is_the_tables(variant, activation, seed):
    """The paper's, and those of random networks."""
    architecture = PAPER if seed is None else random_architecture(seed)
    values, x = random_variables(architecture=architecture), random_images(3, architecture)
    expected_logits, expected_maps = reference_network(values, x, variant, activation, architecture)
    logits, maps = evaluate(values, x, variant, activation, np.float64, architecture)
    levels = [0, 1] if activation == "binary" else [0, 0.5, 1]
    for (name, shape), spikes, expected in zip(architecture.map_shapes.items(), maps, expected_maps):
        assert spikes.shape == (3,) + shape, name
        np.testing.assert_array_equal(spikes, expected, name)
        np.testing.assert_array_equal(np.unique(spikes), levels)
    np.testing.assert_allclose(logits, expected_logits, rtol=0, atol=1e-9)
    assert tensorlayer.layers.LayersConfig.tf_dtype == tf.float32  # a global of TensorLayer's: left as it was


def one_step(build, variant, activation, dtype, architecture):
    """Everything that a step of this graph computes, from the same variables, images and labels."""
    values, x = random_variables(architecture=architecture), random_images(7, architecture)
    labels = np.random.RandomState(2).randint(0, architecture.classes, 7)
    with tf.Graph().as_default(), tf.Session(config=session_config(0)) as session:
        net = build(tf.constant(x, dtype), variant, architecture, activation, is_train=True)
        evaluated = build(tf.constant(x, dtype), variant, architecture, activation, reuse=True)
        loss = tf.reduce_mean(cross_entropy(net.logits, tf.constant(labels, tf.int32)))
        gradients = dict(zip([v.op.name for v in tf.trainable_variables()],
                             tf.gradients(loss, tf.trainable_variables())))
        session.run(tf.global_variables_initializer())
        checkpoint.assign(session, values)
        session.run(evaluated.refresh)
        evaluation = session.run([evaluated.logits, list(evaluated.maps.values()), evaluated.spikes])
        training = session.run([net.logits, list(net.maps.values()), net.spikes])
        checkpoint.assign(session, values)
        gradients = session.run(gradients)  # a run of its own, and the only one to move the averages
        return evaluation, training, gradients, session.run(model_variables(architecture)), session.run(net.all_params)


@pytest.mark.slow
@pytest.mark.parametrize("variant", quantisers.WEIGHTS)
@pytest.mark.parametrize("activation", quantisers.ACTIVATIONS)
def test_every_number_is_the_published_graphs(variant, activation):
    assert_same_numbers(variant, activation, PAPER)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("variant, activation", [("twba", "binary"), ("bwba", "three-level")])
def test_every_number_of_random_networks(variant, activation, seed):
    assert_same_numbers(variant, activation, random_architecture(seed))


def assert_same_numbers(variant, activation, architecture):
    """Forward pass, gradient of every variable, batch norm's averages: in float64, where no spike flips."""
    expected = one_step(published_network.build, variant, activation, tf.float64, architecture)
    found = one_step(fast_network.build, variant, activation, tf.float64, architecture)
    for (logits, maps, spikes), (other_logits, other_maps, other_spikes) in zip(expected[:2], found[:2]):
        np.testing.assert_allclose(other_logits, logits, rtol=0, atol=1e-9)
        np.testing.assert_array_equal(other_spikes, spikes)
        for a, b in zip(maps, other_maps):
            np.testing.assert_array_equal(b, a)
    assert expected[2].keys() == found[2].keys()
    for name, gradient in expected[2].items():
        np.testing.assert_allclose(found[2][name], gradient, rtol=0, atol=1e-10 * np.abs(gradient).max(), err_msg=name)
    for name, value in expected[3].items():
        np.testing.assert_allclose(found[3][name], value, rtol=1e-12, atol=1e-12, err_msg=name)
    for a, b in zip(expected[4], found[4]):
        np.testing.assert_allclose(b, a, rtol=1e-12, atol=1e-12)


def test_a_stride_that_only_the_published_graph_takes():
    rows = Row("cnn0", "bn0", 1, 8, 3, 1, "SAME"), Row("cnn1", "bn1", 1, 4, 3, 2, "VALID")
    network = "twba", Architecture(rows, 9, 9, 3, 2, 1)
    with tf.Graph().as_default():
        with pytest.raises(UserError, match="^cnn1: .*--graph published"):
            fast_network.build(tf.zeros([1, 9, 9, 3]), *network)
    with tf.Graph().as_default():
        assert published_network.build(tf.zeros([1, 9, 9, 3]), *network).maps["cnn1"].shape == (1, 4, 4, 4)


def variables_on_the_threshold(activation, architecture):
    """random_variables, but in every hidden neuron a sum of 3 gives a potential on a threshold of the activation, or as far
    beside it as float32 rounds."""
    values, random = random_variables(architecture=architecture), np.random.RandomState(2)
    thresholds = [0] if activation == "binary" else [-quantisers.PUBLISHED_OFFSET, quantisers.PUBLISHED_OFFSET]
    for stage in architecture.hidden:
        for _, bn in stage.variable_names:
            gamma, mean, variance = (values[f"{bn}/{part}"] for part in ("gamma", "moving_mean", "moving_variance"))
            scale = gamma / np.sqrt(variance + arch.BN_EPSILON)
            values[f"{bn}/beta"] = random.choice(thresholds, len(gamma)) - (3 - mean) * scale
    return values


def evaluation(build, variant, activation, architecture):
    """(logits, maps) of a graph's evaluation in float32."""
    with tf.Graph().as_default(), tf.Session(config=session_config(0)) as session:
        net = build(tf.constant(random_images(7, architecture), tf.float32), variant, architecture, activation)
        checkpoint.assign(session, variables_on_the_threshold(activation, architecture))
        session.run(net.refresh)
        return session.run([net.logits, list(net.maps.values())])


# float stages with and without a stride, and neurons of 512 synapses, the most whose sums are computed in pairs
WIDE = Architecture((Row("cnn00", "bn00", 1, 8, 3, 1, "SAME"), Row("cnn0", "bn0", 1, 32, 2, 2, "SAME"),
                     Row("cnn1", "bn1", 1, 64, 4, 2, "SAME"), Row("cnn2", "bn2", 2, 8, 4, 1, "VALID")), 16, 16, 3, 10, 2)
ARCHITECTURES = [pytest.param(PAPER, marks=pytest.mark.slow), WIDE]


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=["paper", "wide"])
@pytest.mark.parametrize("variant", quantisers.WEIGHTS)
@pytest.mark.parametrize("activation", quantisers.ACTIVATIONS)
def test_evaluation_is_the_published_graphs_to_the_bit(variant, activation, architecture):
    """In float32 too: given the same variables every spike and every logit is the same."""
    logits, maps = evaluation(published_network.build, variant, activation, architecture)
    found_logits, found_maps = evaluation(fast_network.build, variant, activation, architecture)
    for a, b in zip(maps, found_maps):
        np.testing.assert_array_equal(b, a)
    np.testing.assert_array_equal(found_logits, logits)


def test_an_evaluation_sees_the_variables_as_they_are(few_digits, short_recipe):
    """It keeps quantised weights only during its own pass."""
    with tf.Graph().as_default(), tf.Session() as session:
        evaluator = Evaluator(few_digits.x_test[:20], few_digits.y_test[:20], 10, short_recipe)
        values, losses = random_variables(), []
        for sign in (1, -1, 1):
            checkpoint.assign(session, {name: sign * value if arch.is_quantised(name) else value
                                        for name, value in values.items()})
            losses.append(evaluator.evaluate(session).loss)
    assert losses[0] == pytest.approx(losses[2]) and losses[0] != pytest.approx(losses[1])


@pytest.fixture(scope="module")
def training_graph(few_digits, short_recipe):
    with tf.Graph().as_default() as graph:
        tf.set_random_seed(0)
        step = build_step(short_recipe, few_digits)
        yield graph, step


def test_a_step_is_of_the_recipes_network(few_digits, monkeypatch):
    asked = []

    def build(images, *network, is_train):
        asked.append((images.shape.as_list()[1:], *network, is_train))
        raise StopIteration

    monkeypatch.setattr(fast_network, "build", build)
    with tf.Graph().as_default(), pytest.raises(StopIteration):
        build_step(Recipe("bwba", activation="three-level", architecture=WIDE), few_digits)
    assert asked == [([16, 16, 3], "bwba", WIDE, "three-level", True)]


def test_a_seed_stands_for_the_weights_that_it_stood_for(training_graph, few_digits, short_recipe):
    """A run with the same seed starts as before. A variable's own seed is the number of operations before it."""
    with tf.Graph().as_default() as published:
        tf.set_random_seed(0)
        build_step(short_recipe, few_digits, "published")
    for graph, expected in ((training_graph[0], "421478358cb524f6e8af8f55a45ffbf8"),
                            (published, "99a6775b84dbfdfb6a89aa221ca544e2")):
        seeds = [(operation.name, operation.get_attr("seed2")) for operation in graph.get_operations()
                 if operation.type in ("TruncatedNormal", "RandomStandardNormal")]
        assert len(seeds) == 108 and hashlib.md5(repr(seeds).encode()).hexdigest() == expected


def test_variables_are_the_originals(training_graph):
    graph, step = training_graph
    shapes = {v.op.name: tuple(v.shape.as_list()) for v in graph.get_collection(tf.GraphKeys.GLOBAL_VARIABLES)}
    assert len(shapes) == 596
    model = PAPER.variable_shapes
    assert len(model) == 270 and len(step.all_params) == 270
    trained = [name for name in model if "moving_" not in name]
    slots = {f"{name}/{slot}": model[name] for name in trained for slot in ("Adam", "Adam_1")}
    assert shapes == dict(model, beta1_power=(), beta2_power=(), **slots)
    assert shapes["model/cnn6_16/W_conv2d"] == (3, 3, 32, 128)
    assert shapes["model/cnn11_1/W_conv2d"] == (1, 1, 1024, 512)
    assert sum(int(np.prod(p.shape)) for p in step.all_params) == 3280136


@pytest.mark.slow
def test_multiply_accumulates():
    """Those of every convolution and product in the published graph, for one image: positions x fan-in x filters, by the paper's
    table. 81.6 M per image, 70.5 M of them between quantised weights and binary activations.
    """
    by_hand = {"cnn00": 576 * 27 * 32, "cnn0": 576 * 288 * 64, "cnn1": 144 * 512 * 256, "cnn2": 144 * 288 * 512,
               "cnn4": 36 * 512 * 512, "cnn6": 16 * 288 * 2048, "cnn7": 16 * 512 * 1024, "cnn8": 4 * 512 * 1024,
               "cnn10": 512 * 1024, "cnn11": 1024 * 512, "output": 512 * 10}
    with tf.Graph().as_default() as graph:
        published_network.build(tf.zeros([1, 24, 24, 3]), "twba", PAPER)
        found = collections.Counter()
        for operation in graph.get_operations():
            if operation.type in ("Conv2D", "MatMul"):
                stage = operation.name.split("/")[1].split("_")[0]
                positions = operation.outputs[0].shape[:-1].num_elements()
                found[stage] += positions * operation.inputs[1].shape.num_elements()
    assert found == by_hand
    hidden = sum(by_hand.values()) - by_hand["cnn00"] - by_hand["cnn0"] - by_hand["output"]
    assert (sum(by_hand.values()), hidden) == (81636352, 70516736)


def test_initialisers(training_graph):
    graph, _ = training_graph
    with graph.as_default(), tf.Session() as session:
        session.run(tf.global_variables_initializer())
        values = session.run(model_variables())
    for name, value in values.items():
        if name.endswith(("beta", "moving_mean")):
            assert (value == 0).all()
        elif name.endswith("moving_variance"):
            assert (value == 1).all()
        elif name.endswith("gamma"):
            assert abs(value - 1).max() < 0.012  # six deviations of 0.002
        else:
            stddev = 0.1 if name == "model/output/W" else 0.02
            assert abs(value).max() <= 2 * stddev  # truncated at two deviations, which leaves a deviation of 0.88
            assert abs(value.std() / stddev - 0.88) < 0.1
    gammas = np.concatenate([value for name, value in values.items() if name.endswith("gamma")])
    assert abs(gammas.mean() - 1) < 0.0002 and abs(gammas.std() / 0.002 - 1) < 0.1


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=["paper", "wide"])
def test_batch_norm_update_and_one_adam_step(architecture):
    """Moving averages with decay 0.9 and the biased variance; TF 1's Adam; gradients through the quantisers."""
    x = random_images(8, architecture)
    labels = np.arange(8) % 10
    values = random_variables(architecture=architecture)
    with tf.Graph().as_default(), tf.Session() as session:
        net = fast_network.build(tf.constant(x), "twba", architecture, is_train=True)
        loss = tf.reduce_mean(cross_entropy(net.logits, tf.constant(labels, tf.int32)))
        optimizer = tf.train.AdamOptimizer(0.01)
        gradients = optimizer.compute_gradients(loss)
        # the optimizer's own: another's backward pass would meet gammas that Adam has moved already, by chance
        (gradient,) = [each for each, variable in gradients if variable.op.name == "model/output/W"]
        train_op = optimizer.apply_gradients(gradients)
        session.run(tf.global_variables_initializer())
        checkpoint.assign(session, values)
        before, _ = session.run([gradient, train_op])  # in one run: each run updates the moving averages
        after = session.run(model_variables(architecture))
    y = reference_convolution(x, values["model/cnn00/kernel"], architecture.stages[0])
    share = np.float64(np.float32(0.1))  # TensorFlow rounds 1 - decay to float32, whatever the variables' type
    for name, statistic in (("moving_mean", y.mean((0, 1, 2))), ("moving_variance", y.var((0, 1, 2)))):
        old = values["model/bn00/" + name]
        np.testing.assert_allclose(after["model/bn00/" + name], old + share * (statistic - old), rtol=1e-10)
    # first step of Adam: m = 0.1 g, v = 0.001 g^2, lr_1 = lr sqrt(1 - 0.999) / (1 - 0.9)
    rate = 0.01 * np.sqrt(0.001) / 0.1
    step = rate * 0.1 * before / (np.sqrt(0.001) * np.abs(before) + 1e-8)
    np.testing.assert_allclose(after["model/output/W"], values["model/output/W"] - step, rtol=1e-6, atol=1e-9)
    # every latent weight tensor learns
    for name in architecture.variable_shapes:
        if arch.is_quantised(name):
            assert (after[name] != values[name]).mean() > 0.5, name


@pytest.mark.parametrize("variant, activation", [("twba", "binary"), ("bwba", "binary"), ("twba", "three-level")])
def test_gradient_by_hand_in_float64(variant, activation):
    """dL/dW of cnn11, worked out from the paper: from the logits back through batch norm, the classifier, (x + 1) / 2,
    sign, htanh, batch norm again and the quantiser. Batch norms take the batch's mean and biased variance.
    """
    random, values = np.random.RandomState(3), random_variables()
    values["model/bn11_1/gamma"] *= 4  # potentials beyond htanh's ends, too
    x, d_logits = random.normal(size=(12, 24, 24, 3)), 50 * random.normal(size=(12, 10))
    with tf.Graph().as_default(), tf.Session() as session:
        net = fast_network.build(tf.constant(x), variant, PAPER, activation, is_train=True)
        variable = model_variables()["model/cnn11_1/W_conv2d"]
        gradient = tf.gradients(net.logits, variable, tf.constant(d_logits))[0]
        checkpoint.assign(session, values)
        spikes, outputs, found = session.run([net.maps["cnn10"], net.maps["cnn11"], gradient])
    spikes, outputs = spikes.reshape(12, 1024), outputs.reshape(12, 512)
    latent, classifier = values["model/cnn11_1/W_conv2d"].reshape(1024, 512), values["model/output/W"]

    def normalise(y):
        deviation = np.sqrt(y.var(0) + 1e-5)
        return (y - y.mean(0)) / deviation, deviation

    def normalise_back(d_z, z, deviation):
        return (d_z - d_z.mean(0) - z * (d_z * z).mean(0)) / deviation

    d_sums = normalise_back(d_logits * values["model/bn8/gamma"], *normalise(outputs @ classifier))
    d_outputs = d_sums @ classifier.T
    weights = np.sign(latent) * (np.abs(latent) > (0.7 * np.abs(latent).mean() if variant == "twba" else 0))
    z, deviation = normalise(spikes @ weights)
    potential = values["model/bn11_1/gamma"] * z + values["model/bn11_1/beta"]
    d_potential = np.clip(d_outputs / 2, -1, 1) * (np.abs(potential) <= 1) * (2 if activation == "three-level" else 1)
    assert (np.abs(d_outputs) > 2).mean() > 0.05 and (np.abs(potential) > 1).mean() > 0.05  # both are met
    d_weights = spikes.T @ normalise_back(d_potential * values["model/bn11_1/gamma"], z, deviation)
    if variant == "bwba":
        assert (np.abs(d_weights) > 1).any()
    expected = 2 * d_weights if variant == "twba" else np.clip(d_weights, -1, 1)
    np.testing.assert_allclose(found.reshape(1024, 512), expected, rtol=1e-9, atol=1e-9)


@pytest.fixture(scope="module")
def oracle(oracle_dir):
    """What the published code computed, its variables, and our float32 logits and maps for them."""
    with np.load(oracle_dir / "twba_binary.npz") as file:
        arrays = dict(file)
    values = {key[len("var:"):-len(":0")].replace("|", "/"): value
              for key, value in arrays.items() if key.startswith("var:")}
    return arrays, values, evaluate(values, arrays["x"], "twba")


def test_the_published_codes_own_figures(oracle):
    """Its variables give its predictions, its logits and its activation sums."""
    expected, _, (logits, maps) = oracle
    assert (logits.argmax(1) == expected["logits"].argmax(1)).all()
    assert (np.abs(logits - expected["logits"]).max(1) < 1e-4).sum() >= 198
    sums = [spikes.sum(dtype=np.float64) for spikes in maps[1:-1]]
    np.testing.assert_allclose(sums, expected["spikes"], rtol=1e-4)


@pytest.mark.slow
def test_what_differs_from_the_published_code_is_last_bit_flips(oracle, monkeypatch):
    """In float64 all 200 images agree. Where float32 takes another decision, the pre-activation lies on the threshold.

    Stage by stage: for an image, only the first map that differs is looked at, so its stage had the same input.
    """
    expected, values, (_, rounded) = oracle
    seen, sign = [], binary.ACTIVATIONS["binary"]  # what the neurons compare with their threshold, group by group
    monkeypatch.setitem(binary.ACTIVATIONS, "binary", lambda potential: seen.append(potential) or sign(potential))
    with tf.Graph().as_default(), tf.Session() as session:
        net = published_network.build(tf.constant(expected["x"], tf.float64), "twba", PAPER)
        checkpoint.assign(session, values)
        logits, exact, potentials = session.run([net.logits, list(net.maps.values()), seen])
    np.testing.assert_allclose(logits, expected["logits"], rtol=0, atol=1e-5)

    groups = iter(potentials)
    agreeing = np.ones(len(expected["x"]), bool)
    for stage, a, b in zip(PAPER.stages[1:], exact, rounded):
        potential = np.concatenate([next(groups) for _ in range(stage.groups)], axis=3)
        flipped = (a != b) & agreeing[:, None, None, None]
        assert (np.abs(potential[flipped]) < 1e-5).all(), stage.conv
        agreeing &= ~flipped.any((1, 2, 3))
    assert agreeing.sum() >= 198
