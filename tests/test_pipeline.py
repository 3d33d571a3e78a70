"""The input pipeline: every image once, determined by the seed alone, the published code's operations."""
import numpy as np
import pytest
import tensorflow as tf

from twba_tensorflow import pipeline
from twba_tensorflow.session import session_config

RANDOM = np.random.RandomState(0)
IMAGES = RANDOM.randint(0, 256, (23, 32, 32, 3)).astype(np.uint8)
LABELS = np.arange(23, dtype=np.int32)


def read_pass(batches, session, *start):
    """All batches of one pass: lists of images and labels."""
    batches.start(session, *start)
    images, labels = [], []
    while True:
        try:
            x, y = session.run([batches.images, batches.labels])
        except tf.errors.OutOfRangeError:
            return images, labels
        images.append(x)
        labels.append(y)


def training_pass(epoch, seed=1, threads=0, flip=True):
    with tf.Graph().as_default(), tf.Session(config=session_config(threads)) as session:
        batches = pipeline.training_batches(IMAGES, LABELS, 5, seed, flip, 24)
        images, labels = read_pass(batches, session, epoch)
    return np.concatenate(images), np.concatenate(labels)


def test_an_epoch_has_every_image_once_in_another_order():
    images, labels = training_pass(epoch=0)
    assert images.shape == (23, 24, 24, 3) and images.dtype == np.float32
    assert sorted(labels) == list(LABELS)
    assert list(labels) != list(LABELS)
    assert list(training_pass(epoch=1)[1]) != list(labels)
    assert list(training_pass(epoch=0, seed=2)[1]) != list(labels)


def test_seed_and_epoch_decide_whatever_the_threads():
    images, labels = training_pass(epoch=3, threads=1)
    again, labels_again = training_pass(epoch=3, threads=4)
    np.testing.assert_array_equal(labels, labels_again)
    np.testing.assert_array_equal(images, again)
    # an image is distorted anew in each epoch and by each seed
    for other, other_labels in (training_pass(epoch=4), training_pass(epoch=3, seed=2)):
        assert (np.abs(images[np.argsort(labels)] - other[np.argsort(other_labels)]).max((1, 2, 3)) > 0.1).all()


def standardise(image):
    return (image - image.mean()) / max(image.std(), 1 / np.sqrt(image.size))


def test_evaluation_sees_each_image_once_in_order():
    with tf.Graph().as_default(), tf.Session() as session:
        batches = pipeline.evaluation_batches(IMAGES, LABELS, 5, 24)
        images, labels = read_pass(batches, session)
        second, _ = read_pass(batches, session)
    assert [len(batch) for batch in images] == [5, 5, 5, 5, 3]
    np.testing.assert_array_equal(np.concatenate(labels), LABELS)
    np.testing.assert_array_equal(np.concatenate(images), np.concatenate(second))
    expected = [standardise(image[4:28, 4:28].astype(float)) for image in IMAGES]
    np.testing.assert_allclose(np.concatenate(images), expected, atol=1e-5)


@pytest.mark.parametrize("flip", [True, False])
def test_augmentation_by_its_own_random_numbers(flip):
    """Crop, mirroring, brightness, contrast, standardisation in NumPy, from the numbers that TensorFlow drew."""
    mirrored, corners = set(), set()
    with tf.Graph().as_default(), tf.Session() as session:
        key, index = tf.placeholder(tf.int64, [2]), tf.placeholder(tf.int64, [])
        output = pipeline.augment_by_key(tf.gather(tf.constant(IMAGES), index), key, flip, 24)
        numbers = tf.random.stateless_uniform([5], seed=key)
        for i in range(60):
            image, (top, left, mirror, brightness, contrast) = session.run(
                [output, numbers], {key: [7, i], index: i % len(IMAGES)})
            top, left = int(top * 9), int(left * 9)
            expected = IMAGES[i % len(IMAGES), top:top + 24, left:left + 24].astype(float)
            if flip and mirror < 0.5:
                expected = expected[:, ::-1]
            mirrored.add(mirror < 0.5)
            corners.update([top, left])
            expected = expected + (2 * brightness - 1) * 63
            mean = expected.mean((0, 1))
            expected = (expected - mean) * (0.2 + 1.6 * contrast) + mean
            np.testing.assert_allclose(image, standardise(expected), atol=1e-4)
    assert mirrored == {True, False} and corners == set(range(9))
