"""Accuracy and spike counts of a network, both from the same pass over the same images."""
from typing import Dict, NamedTuple

import numpy as np
import tensorflow as tf

from twba_nets.system import progress
from twba_nets.system.interrupts import exiting_at_once
from twba_nets.runs.about import About
from twba_nets.runs.spike_statistics import Result
from twba_tensorflow import checkpoint
from twba_tensorflow.graphs import GRAPHS
from twba_tensorflow.pipeline import evaluation_batches


class ImageFigures(NamedTuple):
    """Figures of each image of a batch, as tensors or arrays: loss [batch], correct bool [batch], spikes [batch, maps]."""
    loss: tf.Tensor
    correct: tf.Tensor
    spikes: tf.Tensor  # the paper's maps have at most 73,728 neurons, so each image's sum is exact in float32


class Evaluator:
    """An evaluation graph over a set of images; evaluate() sees each image exactly once."""

    @exiting_at_once()
    def __init__(self, x: np.ndarray, y: np.ndarray, batch_size: int, about: About, reuse: bool = False, graph: str = "fast"):
        """x: uint8 [N, S, S, C], y: int32 [N]. about: the network's. reuse: share the variables of one built before.
        graph: a name of graphs.GRAPHS."""
        self.images = len(x)
        self.batches = evaluation_batches(x, y, batch_size, about.architecture.image_size)
        self.net = GRAPHS[graph].build(self.batches.images, about.variant, about.architecture, about.activation, reuse=reuse)
        self.fetches = ImageFigures(cross_entropy(self.net.logits, self.batches.labels),
                                    correct(self.net.logits, self.batches.labels), self.net.spikes)

    def start(self, session: tf.Session) -> None:
        """Start a pass over the images with the variables' current values."""
        session.run(self.net.refresh)
        self.batches.start(session)

    def evaluate(self, session: tf.Session) -> Result:
        """Evaluate all images."""
        self.start(session)
        batches = []
        with progress.bar(self.images, "evaluation") as bar:
            while True:
                try:
                    batches.append(session.run(self.fetches))
                except tf.errors.OutOfRangeError:
                    break
                bar.update(len(batches[-1].loss))
        whole = ImageFigures(*map(np.concatenate, zip(*batches)))
        return Result(float(whole.loss.mean(dtype=np.float64)), float(whole.correct.mean()), whole.spikes.astype(np.float64))


def evaluate(values: Dict[str, np.ndarray], about: About, x: np.ndarray, y: np.ndarray, batch_size: int, threads: int = 0,
             graph: str = "fast") -> Result:
    """Evaluate a model's variables (name -> array) on images. See Evaluator. threads: CPU cores, 0 for all."""
    with tf.Graph().as_default(), tf.Session(config=GRAPHS[graph].session_config(threads)) as session:
        evaluator = Evaluator(x, y, batch_size, about, graph=graph)
        checkpoint.assign(session, values)
        return evaluator.evaluate(session)


def cross_entropy(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Softmax cross entropy of each image: logits [batch, classes], labels [batch] -> [batch]."""
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)


def correct(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Whether each image is classified correctly: logits [batch, classes], labels [batch] -> bool [batch]."""
    return tf.equal(tf.argmax(logits, 1, output_type=labels.dtype), labels)
