"""Input batches from tf.data, fully determined by a seed."""
from typing import Callable, Dict, NamedTuple

import numpy as np
import tensorflow as tf

from twba_nets.runs.recipe import CONTRAST, MAX_BRIGHTNESS, epoch_order


class Batches(NamedTuple):
    """Batches as tensors of a graph: images float32 [batch, size, size, C] and labels int32 [batch].

    start(session, ...) starts a pass; after its last batch, which may be smaller, the tensors raise OutOfRangeError.
    """
    images: tf.Tensor
    labels: tf.Tensor
    start: Callable


def augment(image: tf.Tensor, uniforms: tf.Tensor, flip: bool, size: int) -> tf.Tensor:
    """Distort a training image: random crop, mirroring, brightness and contrast; then standardise.

    image: uint8 [S, S, C]. uniforms: float32 [5] in [0, 1). flip: whether it may be mirrored. Returns float32
    [size, size, C]. Source: the published code's operations (twba_torch/pipeline.py is PyTorch's counterpart).
    """
    top, left, side, brightness, contrast = tf.unstack(uniforms)
    offsets = tf.cast(tf.stack([top, left, 0.0]) * float(int(image.shape[0]) - size + 1), tf.int32)
    image = tf.cast(tf.slice(image, offsets, [size, size, int(image.shape[2])]), tf.float32)
    if flip:
        image = tf.cond(side < 0.5, lambda: tf.image.flip_left_right(image), lambda: image)
    image = tf.image.adjust_brightness(image, (2 * brightness - 1) * MAX_BRIGHTNESS)
    image = tf.image.adjust_contrast(image, CONTRAST[0] + contrast * (CONTRAST[1] - CONTRAST[0]))
    return tf.image.per_image_standardization(image)


def augment_by_key(image: tf.Tensor, key: tf.Tensor, flip: bool, size: int) -> tf.Tensor:
    """Augment a training image with five uniform random numbers that depend only on `key`, int64 [2]."""
    return augment(image, tf.random.stateless_uniform([5], seed=key), flip, size)


def central_crop(image: tf.Tensor, size: int) -> tf.Tensor:
    """An image for evaluation: its standardised centre. uint8 [S, S, C] -> float32 [size, size, C]."""
    margin = (int(image.shape[0]) - size) // 2
    image = tf.slice(image, [margin, margin, 0], [size, size, int(image.shape[2])])
    return tf.image.per_image_standardization(tf.cast(image, tf.float32))


def training_batches(x: np.ndarray, y: np.ndarray, batch_size: int, seed: int, flip: bool, size: int) -> Batches:
    """Every image once per epoch, shuffled and augmented to `size`. x: uint8 [N, S, S, C], y: int32 [N].

    start(session, epoch): order and augmentation depend only on the seed, the epoch and the image, not on the number of
    threads or on earlier epochs in the same process.
    """
    order = tf.placeholder(tf.int64, [None])
    epoch = tf.placeholder(tf.int64, [])

    def augment_batch(images, indices):
        keys = tf.stack([tf.fill(tf.shape(indices), tf.constant(seed, tf.int64)), epoch * len(x) + indices], axis=1)
        return tf.map_fn(lambda pair: augment_by_key(*pair, flip, size), (images, keys), tf.float32)

    return _batches(x, y, order, augment_batch, batch_size,
                    lambda number: {order: epoch_order(len(x), seed, number), epoch: number})


def evaluation_batches(x: np.ndarray, y: np.ndarray, batch_size: int, size: int) -> Batches:
    """Every image's centre of `size` exactly once, in order. x: uint8 [N, S, S, C], y: int32 [N]. start(session)."""
    def crop_batch(images, _):
        return tf.map_fn(lambda image: central_crop(image, size), images, tf.float32)

    return _batches(x, y, tf.range(len(x), dtype=tf.int64), crop_batch, batch_size, lambda: {})


def _batches(x: np.ndarray, y: np.ndarray, order: tf.Tensor, crop: Callable, batch_size: int,
             feed: Callable[..., Dict]) -> Batches:
    """Batches of these images and labels in this order.

    crop(images uint8 [batch, S, S, C], indices [batch]): a batch's float32 images. It computes them one by one, so that the
    order of summation, and so the rounding, stays the same; in one function, because calls cost more than their work.

    feed(...): what a pass needs besides images and labels; its arguments are those of start after the session.
    """
    # fed at the start of a pass: as constants the 150 MB would be copied into every saved graph
    images = tf.placeholder(tf.uint8, (None,) + x.shape[1:])
    labels = tf.placeholder(tf.int32, [None])

    def batch(indices):
        return crop(tf.gather(images, indices), indices), tf.gather(labels, indices)

    # autograph is slow and has nothing to convert here
    dataset = tf.data.Dataset.from_tensor_slices(order).batch(batch_size).map(
        tf.autograph.experimental.do_not_convert(batch))
    options = tf.data.Options()  # tf.data's optimisation has nothing to fuse here, but copies the images
    options.experimental_optimization.apply_default_optimizations = False
    iterator = dataset.prefetch(2).with_options(options).make_initializable_iterator()

    def start(session: tf.Session, *number: int) -> None:
        session.run(iterator.initializer, {images: x, labels: y, **feed(*number)})

    return Batches(*iterator.get_next(), start)
