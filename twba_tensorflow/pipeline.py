"""Input batches by tf.data, fully determined by a seed."""
from collections import namedtuple

import numpy as np
import tensorflow as tf

from twba_nets.architecture import IMAGE_SIZE
from twba_nets.recipe import CONTRAST, MAX_BRIGHTNESS

Batches = namedtuple("Batches", "images labels start")
Batches.__doc__ = """Batches as tensors of a graph: images float32 [batch, 24, 24, 3] and labels int32 [batch].

start(session, ...) begins a pass; after its last batch, which may be smaller, the tensors raise OutOfRangeError.
"""


def augment(image, key, flip):
    """Distort a training image by random numbers that depend on `key`, int64 [2], alone; see distort."""
    return distort(image, tf.random.stateless_uniform([5], seed=key), flip)


def distort(image, uniforms, flip):
    """Distort a training image: random crop, mirroring, brightness and contrast; then standardise.

    image: uint8 [32, 32, 3]. uniforms: float32 [5] in [0, 1). Returns float32 [24, 24, 3].
    Source: the published code's operations.
    """
    top, left, mirror, brightness, contrast = tf.unstack(uniforms)
    offsets = tf.cast(tf.stack([top, left, 0.0]) * float(int(image.shape[0]) - IMAGE_SIZE + 1), tf.int32)
    image = tf.cast(tf.slice(image, offsets, [IMAGE_SIZE, IMAGE_SIZE, 3]), tf.float32)
    if flip:
        image = tf.cond(mirror < 0.5, lambda: tf.image.flip_left_right(image), lambda: image)
    image = tf.image.adjust_brightness(image, (2 * brightness - 1) * MAX_BRIGHTNESS)
    image = tf.image.adjust_contrast(image, CONTRAST[0] + contrast * (CONTRAST[1] - CONTRAST[0]))
    return tf.image.per_image_standardization(image)


def central_crop(image):
    """Prepare an image for evaluation: its central 24x24, standardised. uint8 [32, 32, 3] -> float32 [24, 24, 3]."""
    margin = (int(image.shape[0]) - IMAGE_SIZE) // 2
    image = tf.slice(image, [margin, margin, 0], [IMAGE_SIZE, IMAGE_SIZE, 3])
    return tf.image.per_image_standardization(tf.cast(image, tf.float32))


def training_batches(x, y, batch_size, seed, flip):
    """Every image once an epoch, shuffled and augmented.

    start(session, epoch): order and augmentation depend on the seed, the epoch and the image alone, not on
    the number of threads, nor on whether the epochs before were run by the same process.
    """
    order = tf.placeholder(tf.int64, [None])
    epoch = tf.placeholder(tf.int64, [])

    def prepare(images, indices):
        keys = tf.stack([tf.fill(tf.shape(indices), tf.constant(seed, tf.int64)), epoch * len(x) + indices], axis=1)
        return tf.map_fn(lambda pair: augment(*pair, flip), (images, keys), tf.float32)

    batches, initialise = _batches(x, y, order, prepare, batch_size)

    def start(session, number):
        shuffled = np.random.RandomState([seed, number]).permutation(len(x))
        initialise(session, {order: shuffled, epoch: number})

    return batches._replace(start=start)


def evaluation_batches(x, y, batch_size):
    """Every image exactly once, in order. start(session)."""
    def prepare(images, _):
        return tf.map_fn(central_crop, images, tf.float32)

    batches, initialise = _batches(x, y, tf.range(len(x), dtype=tf.int64), prepare, batch_size)
    return batches._replace(start=lambda session: initialise(session, {}))


def _batches(x, y, order, prepare, batch_size):
    """prepare(images uint8 [batch, 32, 32, 3], indices [batch]): a batch's float32 images. One by one, so that no other
    order of summation rounds otherwise; within one function, as calls cost more than what they do."""
    # fed at a pass's start: as constants the 150 MB would be copied into every saved graph
    images = tf.placeholder(tf.uint8, (None,) + x.shape[1:])
    labels = tf.placeholder(tf.int32, [None])

    def batch(indices):
        return prepare(tf.gather(images, indices), indices), tf.gather(labels, indices)

    # autograph has nothing to convert there, and takes its time
    dataset = tf.data.Dataset.from_tensor_slices(order).batch(batch_size).map(
        tf.autograph.experimental.do_not_convert(batch))
    options = tf.data.Options()  # its rewriting finds nothing to fuse here, and copies the images for that
    options.experimental_optimization.apply_default_optimizations = False
    iterator = dataset.prefetch(2).with_options(options).make_initializable_iterator()

    def initialise(session, feed):
        session.run(iterator.initializer, {images: x, labels: y, **feed})

    return Batches(*iterator.get_next(), start=None), initialise
