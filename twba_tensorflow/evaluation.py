"""Accuracy and spike counts of a network, both from the same run over the same images."""
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from twba_nets.spike_statistics import Result
from twba_tensorflow import checkpoint, fast_network
from twba_tensorflow.pipeline import evaluation_batches
from twba_tensorflow.session import session_config


class Evaluator:
    """An evaluation graph over a set of images; run() sees each image exactly once."""

    def __init__(self, x, y, batch_size, variant, activation, reuse=False):
        """x: uint8 [N, 32, 32, 3], y: int32 [N]. reuse: share the variables of a network built before."""
        self.images = len(x)
        self.batches = evaluation_batches(x, y, batch_size)
        net = fast_network.build(self.batches.images, variant, activation, is_train=False, reuse=reuse)
        self.prepare = net.prepare
        self.fetches = (fast_network.cross_entropy(net.logits, self.batches.labels),
                        fast_network.correct(net.logits, self.batches.labels),
                        net.spikes)  # a map has at most 73,728 neurons: each image's sum is exact in float32

    def start(self, session):
        """Begin a pass over the images, with the variables as they are now."""
        session.run(self.prepare)
        self.batches.start(session)

    def run(self, session):
        """Evaluate all images. Returns a Result."""
        self.start(session)
        parts = []
        with tqdm(total=self.images, unit=" images", desc="evaluation", leave=False, disable=None) as bar:
            while True:
                try:
                    parts.append(session.run(self.fetches))
                except tf.errors.OutOfRangeError:
                    break
                bar.update(len(parts[-1][0]))
        losses, correct, spikes = (np.concatenate(arrays) for arrays in zip(*parts))
        return Result(float(losses.mean(dtype=np.float64)), float(correct.mean()), spikes.astype(np.float64))


def evaluate(values, recipe, x, y, batch_size, threads=0):
    """Evaluate a model's variables (name -> array), built as the recipe says, on images. Returns a Result."""
    with tf.Graph().as_default(), tf.Session(config=session_config(threads)) as session:
        evaluator = Evaluator(x, y, batch_size, recipe.variant, recipe.activation)
        checkpoint.assign(session, values)
        return evaluator.run(session)
