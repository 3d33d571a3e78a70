"""The exported network as a spiking network of one time step, in NumPy: the reference for chips and simulators.

A hidden neuron adds up the weights of its inputs that spike, compares the sum with its threshold and fires, or not:
integers throughout. Only what the paper computes off chip is float: the two convolutions that turn an image into
spikes, and the classifier. No framework is imported here.
"""
from collections import OrderedDict

import numpy as np

from twba_nets import architecture as arch


def run(arrays, spikes):
    """One time step: input spikes bool [N, 24, 24, 64] -> the eight later maps, name -> bool [N, H, W, C]."""
    maps = OrderedDict()
    for stage in arch.HIDDEN_STAGES:
        spikes = fire(integrate(spikes, arrays[stage.conv + "/weights"], stage), arrays[stage.conv + "/thresholds"])
        maps[stage.conv] = spikes
    return maps


def fire(potentials, thresholds):
    """Which neurons fire. potentials: integers [..., C]. thresholds: int16 [C]."""
    return potentials >= thresholds


def integrate_events(spikes, weights, stage):
    """The potentials of a stage's neurons after each spike of one image has arrived, one at a time.

    spikes: bool [H, W, C]. weights: int8 [k, k, C / groups, filters]. Returns int32 [H', W', filters].
    This is what a chip does; integrate() is the same for many images at once.
    """
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
    x = np.maximum(_float_convolution(arrays, x, arch.RELU_STAGE), 0)
    return _float_convolution(arrays, x, arch.SPIKE_STAGE)


def classify(arrays, spikes):
    """Off chip: cnn11's spikes, bool [N, 1, 1, 512] -> logits float32 [N, 10]."""
    sums = spikes.reshape(len(spikes), -1).astype(np.float32) @ arrays[arch.OUTPUT + "/kernel"]
    return _batch_norm(arrays, sums, arch.OUTPUT)


def _float_convolution(arrays, x, stage):
    return _batch_norm(arrays, integrate(x, arrays[stage.conv + "/kernel"], stage), stage.conv)


def _batch_norm(arrays, x, name):
    return x * arrays[name + "/scale"] + arrays[name + "/offset"]
