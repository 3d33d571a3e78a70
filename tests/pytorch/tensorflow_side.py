"""Write what TensorFlow computes, for PyTorch to be compared with: python tests/pytorch/tensorflow_side.py FOLDER.

Runs in TensorFlow's environment. Inputs and results of a few training steps go to FOLDER/VARIANT-ACTIVATION-TYPE.npz,
of small random networks to FOLDER/randomSEED-VARIANT-ACTIVATION-TYPE.npz,
those of the augmentation's operations to FOLDER/augmentation.npz.
"""
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).resolve().parents[1])]

import numpy as np
import tensorflow as tf

from helpers import RANDOM, SEEDS, random_architecture
from twba_nets.network import architecture as arch, quantisers
from twba_nets.network.architecture import PAPER
from twba_tensorflow import fast_network, pipeline
from twba_tensorflow.checkpoint import assign
from twba_tensorflow.evaluation import cross_entropy

IMAGES, STEPS, RATE = 16, 20, 0.01


def write(folder):
    combinations = [(variant, activation, "float64") for variant in quantisers.WEIGHTS for activation in quantisers.ACTIVATIONS]
    for combination in combinations + [("twba", "binary", "float32")]:
        np.savez(folder / ("%s-%s-%s.npz" % combination), **training_steps(*combination))
    for seed, (variant, activation) in zip(SEEDS, RANDOM):
        record = training_steps(variant, activation, "float64", random_architecture(seed))
        np.savez(folder / f"random{seed}-{variant}-{activation}-float64.npz", **record)
    np.savez(folder / "augmentation.npz", **augmentation())


def initial_variables(random, dtype, architecture):
    """Values like a trained network's: kernels of its scale, batch norm away from 0 and 1, negative gammas too."""
    values = {}
    for name, shape in architecture.variable_shapes.items():
        if name.endswith(("gamma", "moving_variance")):
            value = random.uniform(0.5, 1.5, shape) * (random.choice([-1, 1], shape) if name.endswith("gamma") else 1)
        else:
            value = random.normal(0, 0.1, shape)
        values[name] = value.astype(np.float32).astype(dtype)  # the same numbers in both types
    return values


def training_steps(variant, activation, dtype, architecture=PAPER):
    """Variables, batches, and what the first step and all STEPS steps make of them."""
    random = np.random.RandomState(0)
    values, size = initial_variables(random, dtype, architecture), architecture.image_size
    x = random.normal(size=(STEPS, IMAGES, size, size, architecture.channels)).astype(np.float32)
    y = random.randint(0, architecture.classes, (STEPS, IMAGES)).astype(np.int32)
    record = {"x": x, "y": y}
    with tf.Graph().as_default(), tf.Session(config=without_optimiser()) as session:
        images, labels = tf.placeholder(dtype, x.shape[1:]), tf.placeholder(tf.int32, y.shape[1:])
        net = fast_network.build(images, variant, architecture, activation, is_train=True)
        loss = tf.reduce_mean(cross_entropy(net.logits, labels))
        optimizer = tf.train.AdamOptimizer(tf.constant(RATE, tf.float32))
        gradients = optimizer.compute_gradients(loss)
        train = optimizer.apply_gradients(gradients)
        named = {variable.op.name: gradient for gradient, variable in gradients}
        # the gradients before the step, which TensorFlow would else be free to compute after it
        with tf.control_dependencies([*named.values(), net.logits]):
            fetched = {name: tf.identity(gradient) for name, gradient in named.items()}
        evaluated = fast_network.build(images, variant, architecture, activation, reuse=True)
        session.run(tf.global_variables_initializer())
        assign(session, values)
        record.update({"before/" + name: value for name, value in values.items()})
        feed = [{images: x[step], labels: y[step]} for step in range(STEPS)]
        session.run(evaluated.refresh)
        record["evaluation_logits"] = session.run(evaluated.logits, feed[0])
        logits, first_loss, gradients = session.run([net.logits, loss, fetched], feed[0])
        record.update(logits=logits, **{"gradient/" + name: value for name, value in gradients.items()})
        assign(session, values)  # the run above moved batch norm's averages
        everything = {variable.op.name: variable for variable in tf.global_variables()}
        losses = []
        for step in range(STEPS):
            losses.append(session.run([loss, train], feed[step])[0])
            if step == 0:
                record.update({"first/" + name: value for name, value in session.run(everything).items()})
        record.update({"last/" + name: value for name, value in session.run(everything).items()})
        assert losses[0] == first_loss
        record["losses"] = losses
        record.update({"precise/" + name: value for name, value in precise_statistics(session, net, values, feed).items()})
    return record


def precise_statistics(session, net, values, feed):
    """The means of the batches' statistics, weights fixed: what batch norm's moving ones, from 0, take of each batch."""
    zero = dict(values, **{name: np.zeros_like(value) for name, value in values.items() if "/moving_" in name})
    moving = {variable.op.name: variable for variable in tf.global_variables() if "/moving_" in variable.op.name}
    found = []
    for batch in feed:
        assign(session, zero)
        session.run(net.logits, batch)
        found.append(session.run(moving))
    return {name: np.mean([moved[name] for moved in found], 0) / np.float32(1 - arch.BN_DECAY) for name in moving}


def without_optimiser():
    """TensorFlow's graph optimiser takes longer than these few steps; what it computes is the same."""
    config = tf.ConfigProto()
    config.graph_options.rewrite_options.disable_meta_optimizer = True
    return config


def augmentation():
    """Each operation of TensorFlow's pipeline on its own, and all together, on given random numbers."""
    random = np.random.RandomState(0)
    x = random.randint(0, 256, (64, 32, 32, 3)).astype(np.uint8)
    x[0] = 7  # without any contrast
    uniforms = random.random_sample((64, 5)).astype(np.float32)
    operations = {
        "standardised": tf.image.per_image_standardization,
        "brighter": lambda image: tf.image.adjust_brightness(image, 12.5),
        "contrast": lambda image: tf.image.adjust_contrast(image, 1.7),
        "cropped": lambda image: tf.slice(image, [3, 5, 0], [PAPER.image_size, PAPER.image_size, 3]),
    }
    with tf.Graph().as_default(), tf.Session() as session:
        image, numbers = tf.placeholder(tf.uint8, [32, 32, 3]), tf.placeholder(tf.float32, [5])
        outputs = {name: operation(tf.cast(image, tf.float32)) for name, operation in operations.items()}
        outputs["evaluated"] = pipeline.central_crop(image, PAPER.image_size)
        outputs["augmented"] = pipeline.augment(image, numbers, True, PAPER.image_size)
        outputs["augmented_unmirrored"] = pipeline.augment(image, numbers, False, PAPER.image_size)
        results = [session.run(outputs, {image: one, numbers: five}) for one, five in zip(x, uniforms)]
    return dict({name: np.stack([result[name] for result in results]) for name in outputs}, x=x, uniforms=uniforms)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
