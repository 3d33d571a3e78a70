"""The order and random numbers of an epoch. (test_proof.py compares the images' operations with TensorFlow's.)"""
import numpy as np
import torch

from twba_torch import pipeline


def test_order_and_numbers_follow_from_seed_and_epoch():
    order, uniforms = pipeline.epoch_order(1000, seed=3, epoch=7)
    again = pipeline.epoch_order(1000, seed=3, epoch=7)
    assert torch.equal(order, again[0]) and torch.equal(uniforms, again[1])
    assert sorted(order.tolist()) == list(range(1000))
    np.testing.assert_array_equal(order, np.random.RandomState([3, 7]).permutation(1000))  # TensorFlow's pipeline's
    assert uniforms.shape == (1000, 5) and uniforms.dtype == torch.float32
    for other in (pipeline.epoch_order(1000, 4, 7), pipeline.epoch_order(1000, 3, 8)):
        assert not torch.equal(order, other[0]) and not torch.equal(uniforms, other[1])


def test_a_number_next_to_1_stays_below_it(monkeypatch):
    """Rounded to 1 it would crop beyond the image's edge; among 250,000 numbers an epoch that happens."""
    class Random(np.random.RandomState):
        def random_sample(self, size):
            return np.full(size, np.nextafter(1, 0))

    monkeypatch.setattr(np.random, "RandomState", Random)
    _, uniforms = pipeline.epoch_order(4, 0, 0)
    assert uniforms.max() < 1
    images = torch.randint(0, 256, (4, 32, 32, 3), dtype=torch.uint8)
    cropped = pipeline.crop(images, uniforms[:, 0], uniforms[:, 1], uniforms[:, 2] < 0.5)
    assert torch.equal(cropped, images[:, 8:, 8:].float())
