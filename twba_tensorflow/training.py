"""The training loop: Adam on the softmax cross entropy, with a test and a checkpoint after every epoch."""
import time
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional

import numpy as np
import tensorflow as tf

from twba_nets.runs import card, npz, provenance
from twba_nets.system import progress
from twba_nets.network.architecture import is_quantised
from twba_nets.datasets.dataset import Dataset
from twba_nets.system.interrupts import exiting_at_once
from twba_nets.runs.journal import Journal, Tested, Trained, make_row, require_finite, require_trained
from twba_nets.runs.recipe import Recipe
from twba_nets.runs.run_folder import MODEL_NAME
from twba_nets.runs.summaries import Summaries
from twba_tensorflow import checkpoint, quantisers
from twba_tensorflow.evaluation import Evaluator, correct, cross_entropy
from twba_tensorflow.graphs import GRAPHS
from twba_tensorflow.pipeline import Batches, training_batches


class StepFigures(NamedTuple):
    """A training step's figures, as tensors or numbers: mean loss, images classified correctly, images; and the update."""
    loss: Any
    correct: Any
    images: Any
    update: Any


class Step(NamedTuple):
    """A training step as a graph. images: per epoch. all_params: the tensors of the evaluated model."""
    images: int
    batches: Batches
    learning_rate: tf.Tensor
    fetches: StepFigures
    all_params: List[tf.Tensor]


def train(recipe: Recipe, dataset: Dataset, folder: Path, start: Optional[Path] = None, first_epoch: int = 0,
          threads: int = 0, initial: Optional[Dict[str, np.ndarray]] = None, graph: str = "fast") -> None:
    """Train into `folder` from epoch `first_epoch` (counted from 0) to recipe.epochs.

    start: a checkpoint to continue from, or None. initial: initial values of the model's variables, name -> array, or
    None for fresh ones. threads: CPU cores, 0 for all. graph: a name of graphs.GRAPHS. Order, augmentation and fresh
    weights depend only on recipe.seed and the epoch, so a resumed run equals an uninterrupted one. Raises UserError if
    training diverges or a file cannot be written.
    """
    with tf.Graph().as_default():
        with exiting_at_once():
            tf.set_random_seed(recipe.seed)
            step = build_step(recipe, dataset, graph)
            saver, initialise = tf.train.Saver(tf.global_variables()), tf.global_variables_initializer()
        evaluator = None
        with tf.Session(config=GRAPHS[graph].session_config(threads)) as session:
            session.run(initialise)
            if start:
                checkpoint.restore(session, saver, start, recipe.architecture)
            elif initial:
                checkpoint.assign(session, initial)
            journal = Journal(folder, recipe, first_epoch, facts(session, graph))
            variables = {variable.op.name: variable for variable in tf.global_variables()}

            def save(epochs_done: int) -> str:
                require_trained(session.run(variables), recipe.architecture, epochs_done)
                return checkpoint.save(session, saver, folder, epochs_done, step.all_params, recipe.architecture)

            with TensorFlowSummaries(folder, first_epoch) as summaries:
                for epoch in range(first_epoch, recipe.epochs):
                    trained = train_epoch(session, step, recipe, epoch)
                    started = time.monotonic()
                    # built here, so that the first step does not wait for it
                    evaluator = evaluator or Evaluator(dataset.x_test, dataset.y_test, recipe.batch_size, recipe, True, graph)
                    result = evaluator.evaluate(session)
                    spikes = result.spikes.sum() / len(result.spikes)
                    tested = Tested(result.loss, result.accuracy, spikes, time.monotonic() - started)
                    row = make_row(recipe, epoch, step.images, trained, tested)
                    sha256 = journal.finish_epoch(row, lambda: save(epoch + 1), summaries.update)
                    journal.tell(row)  # only after it is saved
    journal.finish(sha256)


def build_step(recipe: Recipe, dataset: Dataset, graph: str = "fast") -> Step:
    """One training step as a graph, with the model's and Adam's variables."""
    batches = training_batches(dataset.x_train, dataset.y_train, recipe.batch_size, recipe.seed, dataset.flip,
                               recipe.architecture.image_size)
    net = GRAPHS[graph].build(batches.images, recipe.variant, recipe.architecture, recipe.activation, is_train=True)
    loss = tf.reduce_mean(cross_entropy(net.logits, batches.labels))
    learning_rate = tf.placeholder(tf.float32, [], name="learning_rate")
    update = tf.train.AdamOptimizer(learning_rate).minimize(loss)
    right = tf.reduce_sum(tf.cast(correct(net.logits, batches.labels), tf.int32))
    fetches = StepFigures(loss, right, tf.size(batches.labels), update)
    return Step(len(dataset.x_train), batches, learning_rate, fetches, net.all_params)


def train_epoch(session: tf.Session, step: Step, recipe: Recipe, epoch: int) -> Trained:
    """Train on every image once. epoch: counted from 0. Raises UserError if the loss is not finite."""
    started = time.monotonic()
    step.batches.start(session, epoch)
    rate = {step.learning_rate: recipe.learning_rate(epoch)}
    loss_sum = correct_sum = seen = 0
    with progress.bar(step.images, f"epoch {epoch + 1}/{recipe.epochs}") as bar:
        while seen < step.images:
            figures = session.run(step.fetches, rate)
            require_finite("loss", figures.loss, epoch + 1)
            loss_sum += figures.loss * figures.images
            correct_sum += figures.correct
            seen += figures.images
            bar.set_postfix(loss=f"{loss_sum / seen:.3f}", accuracy=f"{correct_sum / seen:.3f}")
            bar.update(figures.images)
    return Trained(loss_sum / seen, correct_sum / seen, time.monotonic() - started)


class TensorFlowSummaries(Summaries):
    """Summaries written with TensorFlow's writer."""

    def open(self, epoch):
        writer = tf.summary.FileWriter(str(self.folder))
        writer.add_session_log(tf.SessionLog(status=tf.SessionLog.START), global_step=epoch)
        return writer

    def add(self, epoch, seconds, scalars):
        values = [tf.Summary.Value(tag=name, simple_value=figure) for name, figure in scalars.items()]
        self.writer.add_event(tf.Event(wall_time=seconds, step=epoch, summary=tf.Summary(value=values)))


def complete(recipe: Recipe, folder: Path, start: Path) -> None:
    """Finish the last save of a run that was killed after it wrote the checkpoint `start`."""
    journal = Journal(folder, recipe, recipe.epochs)
    values = quantised(checkpoint.read(start, recipe.architecture), recipe.variant)
    sha256 = npz.save_model(folder / MODEL_NAME, values, recipe.architecture)
    checkpoint.clear(folder, recipe.epochs)
    journal.draw()
    with TensorFlowSummaries(folder, recipe.epochs):  # from the log
        pass
    journal.finish(sha256)


@exiting_at_once()
def quantised(values: Dict[str, np.ndarray], variant: str) -> Dict[str, np.ndarray]:
    """The model's variables for evaluation, name -> array, from those with latent weights."""
    quantise = quantisers.WEIGHTS[variant]
    with tf.Graph().as_default(), tf.Session() as session:
        return dict(values, **session.run({name: quantise(tf.constant(value)) for name, value in values.items()
                                           if is_quantised(name)}))


def facts(session: tf.Session, graph: str) -> Dict[str, object]:
    """The record of the epochs trained by this process (provenance.of_this_process)."""
    has_gpu = any(device.device_type == "GPU" for device in session.list_devices())
    name = card.gpu_name() if has_gpu else card.cpu_name()
    return provenance.of_this_process(name, {"tensorflow": tf.__version__, "graph": graph})
