"""The exported network as a spiking network of one time step, in NumPy: the reference for chips and simulators.

A hidden neuron adds up the weights of its inputs that spike, compares the sum with its threshold and fires, or not:
integers throughout. Only what the paper computes off chip is float: the two convolutions that turn an image into
spikes, and the classifier. No framework is imported here.
"""
from collections import OrderedDict

import numpy as np

from twba_nets import architecture as arch


def run(arrays, spikes):
    """One time step: input spikes bool [N, 24, 24, 64] -> the eight later maps, name -> bool [N, H, W, C].

    Raises ValueError for another shape, or values other than 0 and 1; the functions below do likewise.
    """
    maps, spikes = OrderedDict(), check_spikes(spikes, arch.SPIKE_STAGE.bn)
    for stage in arch.HIDDEN_STAGES:
        spikes = fire(integrate(spikes, arrays[stage.conv + "/weights"], stage), arrays[stage.conv + "/thresholds"])
        maps[stage.conv] = spikes
    return maps


def fire(potentials, thresholds):
    """Which neurons fire. potentials: integers [..., C]. thresholds: int16 [C]."""
    if thresholds.shape != potentials.shape[-1:]:
        raise ValueError("thresholds %s do not fit potentials %s" % (thresholds.shape, potentials.shape))
    return potentials >= thresholds


def integrate_events(spikes, weights, stage):
    """The potentials of a stage's neurons after each spike of one image has arrived, one at a time.

    spikes: bool [H, W, C]. weights: int8 [k, k, C / groups, filters]. Returns int32 [H', W', filters].
    This is what a chip does; integrate() is the same for many images at once.
    """
    _check_kernel(spikes.shape, weights, stage)
    size, margin = arch.output_size(len(spikes), stage), arch.padding(len(spikes), stage)
    potentials = np.zeros((size, size, weights.shape[3]), np.int32)
    for row, column, channel in np.argwhere(spikes):
        synapse, group = divmod(channel, stage.groups)
        neurons = slice(group * stage.filters, (group + 1) * stage.filters)
        for y in range(stage.kernel):
            for x in range(stage.kernel):
                # the neuron at (top, left) sees this spike through the synapse (y, x) of its kernel
                top, skipped_rows = divmod(row + margin - y, stage.stride)
                left, skipped_columns = divmod(column + margin - x, stage.stride)
                if not skipped_rows and not skipped_columns and 0 <= top < size and 0 <= left < size:
                    potentials[top, left, neurons] += weights[y, x, synapse, neurons]
    return potentials


def integrate(spikes, weights, stage):
    """The potentials of a stage's neurons. spikes: bool [N, H, W, C]. Returns float32 [N, H', W', filters].

    All spikes that arrive through the same synapse position are added by one matrix product. Float32 holds the
    integers, of at most 1,024, exactly.
    """
    _check_kernel(spikes.shape[1:], weights, stage)
    size, margin = arch.output_size(spikes.shape[1], stage), arch.padding(spikes.shape[1], stage)
    x = np.pad(spikes.astype(np.float32), ((0, 0), (margin, margin), (margin, margin), (0, 0)), mode="constant")
    weights = weights.astype(np.float32)
    potentials = np.zeros((len(spikes), size, size, weights.shape[3]), np.float32)
    for group in range(stage.groups):
        neurons = slice(group * stage.filters, (group + 1) * stage.filters)
        for row, column, patch in _patches(np.ascontiguousarray(x[..., group::stage.groups]), size, stage):
            sums = patch.reshape(-1, patch.shape[3]) @ weights[row, column, :, neurons]
            potentials[..., neurons] += sums.reshape(patch.shape[:3] + (-1,))
    return potentials


def _patches(x, size, stage):
    """(row, column, what each output position sees there: [N, size, size, C]) for each position in the kernel."""
    reach = (size - 1) * stage.stride + 1
    for row in range(stage.kernel):
        for column in range(stage.kernel):
            yield row, column, x[:, row:row + reach:stage.stride, column:column + reach:stage.stride]


def prepare(images):
    """Images as they are evaluated: the central 24x24, standardised. uint8 [N, 32, 32, 3] -> float32 [N, 24, 24, 3].

    Source: tf.image.per_image_standardization, whose variance is E[x^2] - E[x]^2 in float32.
    """
    images = check_images(images)
    margin = (images.shape[1] - arch.IMAGE_SIZE) // 2
    x = images[:, margin:margin + arch.IMAGE_SIZE, margin:margin + arch.IMAGE_SIZE].astype(np.float32)
    pixels = x[0].size
    mean = x.mean((1, 2, 3), keepdims=True)
    variance = np.maximum(np.square(x).mean((1, 2, 3), keepdims=True) - np.square(mean), 0)
    return (x - mean) / np.maximum(np.sqrt(variance), np.float32(pixels ** -0.5))


def encode(arrays, x):
    """Off chip: prepared images float32 [N, 24, 24, 3] -> input spikes bool [N, 24, 24, 64]."""
    return input_potentials(arrays, x) >= 0


def input_potentials(arrays, x):
    """What decides over the input spikes: float32 [N, 24, 24, 64]."""
    x, shape = np.asarray(x), (arch.IMAGE_SIZE, arch.IMAGE_SIZE, arch.CHANNELS)
    if x.shape[1:] != shape or x.dtype.kind != "f" or not np.isfinite(x).all():
        raise ValueError("prepared images are finite float32 [N, 24, 24, 3], not %s %s" % (x.dtype, list(x.shape)))
    x = np.maximum(_float_convolution(arrays, x, arch.RELU_STAGE), 0)
    return _float_convolution(arrays, x, arch.SPIKE_STAGE)


def classify(arrays, spikes):
    """Off chip: cnn11's spikes, bool [N, 1, 1, 512] -> logits float32 [N, 10]."""
    spikes = check_spikes(spikes, arch.HIDDEN_STAGES[-1].conv)
    sums = spikes.reshape(len(spikes), -1).astype(np.float32) @ arrays[arch.OUTPUT + "/kernel"]
    return _batch_norm(arrays, sums, arch.OUTPUT)


def check_images(images):
    """Images as uint8 [N, 32, 32, 3]. Raises ValueError for another shape, or where they are no integers that fit."""
    images = np.asarray(images)
    if images.shape[1:] != (32, 32, arch.CHANNELS):
        raise ValueError("images are [N, 32, 32, 3], not %s" % list(images.shape))
    if images.dtype == np.uint8:
        return images
    if images.dtype.kind not in "iu" or images.size and not 0 <= images.min() <= images.max() <= 255:
        raise ValueError("images are uint8, or integers from 0 to 255; these are %s" % images.dtype)
    return images.astype(np.uint8)


def check_spikes(spikes, name):
    """A map's spikes as bool [N, H, W, C]. Raises ValueError where the shape is another's, or a value is not 0 or 1."""
    spikes, shape = np.asarray(spikes), arch.map_shapes()[name]
    if spikes.ndim != 4 or spikes.shape[1:] != tuple(shape):
        raise ValueError("spikes of %s are [N, %d, %d, %d], not %s" % ((name,) + tuple(shape) + (list(spikes.shape),)))
    if spikes.dtype == bool:
        return spikes
    if spikes.dtype.kind not in "iuf" or not ((spikes == 0) | (spikes == 1)).all():
        raise ValueError("spikes of %s are bool, or 0 and 1; these are %s" % (name, spikes.dtype))
    return spikes.astype(bool)


def _check_kernel(shape, weights, stage):
    """A map [H, W, C] and the kernel that reads it."""
    expected = (stage.kernel, stage.kernel, shape[-1] // stage.groups, stage.groups * stage.filters)
    if len(shape) != 3 or shape[0] != shape[1] or shape[2] % stage.groups or weights.shape != expected:
        raise ValueError("%s: a map %s and weights %s do not fit" % (stage.conv, list(shape), list(weights.shape)))


def _float_convolution(arrays, x, stage):
    return _batch_norm(arrays, integrate(x, arrays[stage.conv + "/kernel"], stage), stage.conv)


def _batch_norm(arrays, x, name):
    return x * arrays[name + "/scale"] + arrays[name + "/offset"]
