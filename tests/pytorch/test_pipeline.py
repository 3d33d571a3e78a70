"""The order and random numbers of an epoch. (test_proof.py compares the images' operations with TensorFlow's.)"""
import json

import numpy as np
import torch

from conftest import in_tensorflow
from twba_torch import pipeline
from twba_torch.training import Trainer

# the labels of TensorFlow's batches in an epoch, where each image's label is its number
TENSORFLOWS_ORDER = """
import json, sys
import numpy as np
import tensorflow as tf
from twba_tensorflow import pipeline

images, size, seed, epoch = map(int, sys.argv[1:])
x, y = np.zeros((images, 32, 32, 3), np.uint8), np.arange(images, dtype=np.int32)
with tf.Graph().as_default(), tf.Session() as session:
    batches = pipeline.training_batches(x, y, size, seed, False, 24)
    batches.start(session, epoch)
    print(json.dumps([session.run(batches.labels).tolist() for _ in range(-(-images // size))]))
"""


def test_an_epoch_has_tensorflows_batches(few_digits, short_recipe, monkeypatch):
    """What the trainers of both frameworks train on, batch by batch."""
    numbers = np.arange(len(few_digits.x_train), dtype=np.int32)
    trainer, batches = Trainer(short_recipe, few_digits._replace(y_train=numbers), torch.device("cpu"), compiled=False), []
    monkeypatch.setattr(trainer, "train_batch", lambda batch, uniforms, rate: batches.append(
        trainer.training.y[batch].tolist()) or torch.zeros(2, dtype=torch.float64))
    for epoch in (0, 7):
        batches.clear()
        trainer.train_epoch(epoch)
        assert batches == json.loads(in_tensorflow("-c", TENSORFLOWS_ORDER, len(numbers), short_recipe.batch_size,
                                                   short_recipe.seed, epoch))


def test_order_and_numbers_follow_from_seed_and_epoch():
    order, uniforms = pipeline.epoch_numbers(1000, seed=3, epoch=7)
    again = pipeline.epoch_numbers(1000, seed=3, epoch=7)
    assert torch.equal(order, again[0]) and torch.equal(uniforms, again[1])
    assert sorted(order.tolist()) == list(range(1000))
    assert uniforms.shape == (1000, 5) and uniforms.dtype == torch.float32
    for other in (pipeline.epoch_numbers(1000, 4, 7), pipeline.epoch_numbers(1000, 3, 8)):
        assert not torch.equal(order, other[0]) and not torch.equal(uniforms, other[1])


def test_a_number_next_to_1_stays_below_it(monkeypatch):
    """Rounded to 1, it would crop beyond the image's edge. That happens among an epoch's 250,000 numbers."""
    class Random(np.random.RandomState):
        def random_sample(self, size):
            return np.full(size, np.nextafter(1, 0))

    monkeypatch.setattr(np.random, "RandomState", Random)
    _, uniforms = pipeline.epoch_numbers(4, 0, 0)
    assert uniforms.max() < 1
    images = torch.randint(0, 256, (4, 32, 32, 3), dtype=torch.uint8)
    cropped = pipeline.crop(images, uniforms[:, 0], uniforms[:, 1], uniforms[:, 2] < 0.5, 24)
    assert torch.equal(cropped, images[:, 8:, 8:].float())
