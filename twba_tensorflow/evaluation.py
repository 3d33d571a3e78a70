"""Accuracy and spike counts of a network, both from the same run over the same images."""
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from twba_nets.interrupts import exiting_at_once
from twba_nets.spike_statistics import Result
from twba_tensorflow import checkpoint
from twba_tensorflow.graphs import GRAPHS
from twba_tensorflow.pipeline import evaluation_batches


class Evaluator:
    """An evaluation graph over a set of images; run() sees each image exactly once."""

    @exiting_at_once()
    def __init__(self, x, y, batch_size, variant, activation, reuse=False, graph="fast"):
        """x: uint8 [N, 32, 32, 3], y: int32 [N]. reuse: share the variables of a network built before. graph: a name of
        graphs.GRAPHS."""
        self.images = len(x)
        self.batches = evaluation_batches(x, y, batch_size)
        net = GRAPHS[graph].build(self.batches.images, variant, activation, is_train=False, reuse=reuse)
        self.prepare = net.refresh
        self.fetches = (cross_entropy(net.logits, self.batches.labels), correct(net.logits, self.batches.labels),
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


def evaluate(values, recipe, x, y, batch_size, threads=0, graph="fast"):
    """Evaluate a model's variables (name -> array), built as the recipe says, on images. Returns a Result."""
    with tf.Graph().as_default(), tf.Session(config=GRAPHS[graph].session_config(threads)) as session:
        evaluator = Evaluator(x, y, batch_size, recipe.variant, recipe.activation, graph=graph)
        checkpoint.assign(session, values)
        return evaluator.run(session)


def cross_entropy(logits, labels):
    """Softmax cross entropy of each image: logits [batch, 10], labels [batch] -> [batch]."""
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)


def correct(logits, labels):
    """Which images are classified rightly: [batch] of bool."""
    return tf.equal(tf.argmax(logits, 1, output_type=labels.dtype), labels)
