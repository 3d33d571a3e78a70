"""The training loop: Adam on the softmax cross entropy, test after every epoch, checkpoint after every epoch."""
import contextlib
import time
from collections import namedtuple

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from twba_nets import card, npz
from twba_nets.architecture import is_quantised
from twba_nets.interrupts import exiting_at_once
from twba_nets.journal import FIELDS, Journal, diverged, require_trained
from twba_tensorflow import checkpoint, quantisers
from twba_tensorflow.evaluation import Evaluator, correct, cross_entropy
from twba_tensorflow.graphs import GRAPHS
from twba_tensorflow.pipeline import training_batches

Step = namedtuple("Step", "images batches learning_rate fetches all_params")


def train(recipe, dataset, folder, start=None, first_epoch=0, threads=0, initial=None,
          graph="fast"):
    """Train into `folder` from epoch `first_epoch` to recipe.epochs.

    start: a checkpoint's prefix to go on from, or None to begin. initial: the model's variables to begin with, name ->
    array, or None for fresh ones. graph: a name of graphs.GRAPHS. Order, augmentation and fresh weights follow from
    recipe.seed and the epoch, so a resumed run sees what an uninterrupted one sees.
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
                checkpoint.restore(session, saver, start)
            elif initial:
                checkpoint.assign(session, initial)
            journal = Journal(folder, first_epoch, recipe.epochs)
            variables = {variable.op.name: variable for variable in tf.global_variables()}
            with contextlib.closing(tf.summary.FileWriter(str(folder))) as summaries:
                summaries.add_session_log(tf.SessionLog(status=tf.SessionLog.START), global_step=first_epoch + 1)
                for epoch in range(first_epoch, recipe.epochs):
                    started = time.time()
                    trained = train_epoch(session, step, recipe, epoch)
                    seconds = time.time() - started
                    # built only now: the first step need not wait for it
                    evaluator = evaluator or Evaluator(dataset.x_test, dataset.y_test, recipe.batch_size, recipe.variant,
                                                       recipe.activation, True, graph)
                    tested = evaluator.run(session)
                    row = log_row(recipe, epoch, trained, tested, seconds, time.time() - started)
                    journal.record(row)
                    require_trained(session.run(variables), epoch + 1)
                    checkpoint.save(session, saver, folder, epoch + 1, step.all_params)
                    journal.tell(row)  # only what is saved
                    journal.draw()
                    summarise(summaries, row)
    finish(journal, recipe, graph)


def complete(recipe, folder, start, graph):
    """Make up for what a kill during the last save, that of the checkpoint `start`, left undone."""
    journal = Journal(folder, recipe.epochs, recipe.epochs)
    npz.save_model(folder / npz.MODEL_NAME, quantised(checkpoint.read(start), recipe.variant))
    checkpoint.clear(folder, recipe.epochs)
    journal.draw()
    finish(journal, recipe, graph)


@exiting_at_once()
def quantised(values, variant):
    """The 270 variables as they are evaluated, name -> array, from those with latent weights."""
    quantise = quantisers.WEIGHTS[variant]
    with tf.Graph().as_default(), tf.Session() as session:
        return dict(values, **session.run({name: quantise(tf.constant(value)) for name, value in values.items()
                                           if is_quantised(name)}))


def finish(journal, recipe, graph):
    """Write the card of a run whose last epoch is saved and drawn."""
    journal.finish(recipe, {"tensorflow": tf.__version__, "graph": graph}, card.cpu_name())


def summarise(summaries, row):
    """Show an epoch's figures in TensorBoard."""
    values = [tf.Summary.Value(tag=key, simple_value=row[key]) for key in FIELDS[2:-1]]
    summaries.add_summary(tf.Summary(value=values), row["epoch"])
    summaries.flush()


def build_step(recipe, dataset, graph="fast"):
    """One training step as a graph: 596 variables, the model's and Adam's."""
    batches = training_batches(dataset.x_train, dataset.y_train, recipe.batch_size, recipe.seed, dataset.flip)
    net = GRAPHS[graph].build(batches.images, recipe.variant, recipe.activation, is_train=True)
    loss = tf.reduce_mean(cross_entropy(net.logits, batches.labels))
    learning_rate = tf.placeholder(tf.float32, [], name="learning_rate")
    train_op = tf.train.AdamOptimizer(learning_rate).minimize(loss)
    right = tf.reduce_sum(tf.cast(correct(net.logits, batches.labels), tf.int32))
    fetches = (loss, right, tf.size(batches.labels), train_op)
    return Step(len(dataset.x_train), batches, learning_rate, fetches, net.all_params)


def log_row(recipe, epoch, trained, tested, training_seconds, seconds):
    """The log's row of an epoch, counted from 0. trained: what train_epoch returned. tested: the Evaluator's Result."""
    loss, accuracy, images, steps = trained
    return {
        "epoch": epoch + 1,
        "step": (epoch + 1) * steps,
        "learning_rate": recipe.learning_rate(epoch),
        "train_loss": loss,
        "train_accuracy": accuracy,
        "test_loss": tested.loss,
        "test_accuracy": tested.accuracy,
        "spikes_per_image": tested.spikes.sum() / len(tested.spikes),
        "images_per_second": images / training_seconds,
        "seconds": seconds,
    }


def train_epoch(session, step, recipe, epoch):
    """Train on every image once. Returns (mean loss, accuracy, images, steps)."""
    step.batches.start(session, epoch)
    rate = {step.learning_rate: recipe.learning_rate(epoch)}
    loss_sum = correct_sum = seen = steps = 0
    with tqdm(total=step.images, unit=" images", desc="epoch %d/%d" % (epoch + 1, recipe.epochs), leave=False,
              disable=None) as bar:
        while seen < step.images:
            loss, right, size, _ = session.run(step.fetches, rate)
            if not np.isfinite(loss):
                raise diverged("the loss is %s" % loss, epoch + 1)
            loss_sum, correct_sum, seen, steps = loss_sum + loss * size, correct_sum + right, seen + size, steps + 1
            bar.update(size)
            bar.set_postfix(loss="%.3f" % (loss_sum / seen), accuracy="%.3f" % (correct_sum / seen))
    return loss_sum / seen, correct_sum / seen, seen, steps
