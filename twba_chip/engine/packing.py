"""An exported network's weights and spikes as the engine's C reads them: bits, words, planes, lists of synapses.

The bits of a map's position are sorted by the reader's groups, so that the channels of a group are adjacent; then by the
stage's own groups; then by filter.
"""
from typing import Tuple

import numpy as np

from twba_chip.spiking.order import by_reader
from twba_nets.network.architecture import Stage

# the points of Winograd's F(4x4, 3x3) for the second float stage (floats.c), without the point at infinity
WINOGRAD_POINTS = (0, 3 / 4, -3 / 4, 3 / 2, -3 / 2)
PLANE_BYTES = 32  # in planes.c: a bit for each of 256 images


def bit_order(stage: Stage) -> np.ndarray:
    """A group's filters in the order of their bits: int [filters]."""
    return by_reader(stage.filters, stage.reader.groups)


def channel_places(stage: Stage) -> np.ndarray:
    """The bit of a position that holds a group's first, second, ... filter in bit_order: int [groups, filters]."""
    share = stage.filters // stage.reader.groups  # a group's bits for each of the reader's groups
    bits = np.arange(stage.filters)
    return bits // share * stage.groups * share + np.arange(stage.groups)[:, None] * share + bits % share


def channel_order(stage: Stage) -> np.ndarray:
    """The channel of each bit of a position: int [C]."""
    return by_reader(stage.output_channels, stage.reader.groups)


def winograd(kernel: np.ndarray) -> np.ndarray:
    """Transform kernels: [3, 3, channels, filters] -> [36 points, channels, filters] (Lavin and Gray, 2016)."""
    rows = [np.power(point, range(3)) / np.prod([point - other for other in WINOGRAD_POINTS if other != point])
            for point in WINOGRAD_POINTS]
    transform = np.array(rows + [[0, 0, 1]])
    return np.einsum("pr,qc,rcio->pqio", transform, transform, kernel).reshape(36, *kernel.shape[2:])


def _blocks(bits: np.ndarray) -> np.ndarray:
    """bool [taps, channels, groups, filters] -> words uint32 [blocks, 32 filters, words]."""
    words = pack(bits.transpose(2, 3, 0, 1))
    return words.reshape(-1, 32, words[0, 0].size)


def bit_planes(bits: np.ndarray) -> np.ndarray:
    """Weights for a population count: bool [taps, channels, groups, filters] -> uint32 [blocks, words, 32 filters]."""
    return _blocks(bits).transpose(0, 2, 1)


def sets_of_four(bits: np.ndarray) -> np.ndarray:
    """Weights for look-ups: bool [taps, channels, groups, filters] -> uint8 [blocks, bytes, 2, 2, 16].

    A byte of eight weights is two numbers from 0 to 15. A block's 32 filters are two vectors. A vector holds the lower numbers
    of 16 filters, then the upper ones.
    """
    octets = _blocks(bits).view(np.uint8)
    halves = np.stack([octets & 15, octets >> 4], axis=-1)
    return halves.reshape(len(octets), 2, 16, -1, 2).transpose(0, 3, 1, 4, 2)


def neurons(weights: np.ndarray, thresholds: np.ndarray, places: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """For planes.c: network.h's neurons, int32 [groups * filters, 5], and their lists of synapses, uint16.

    weights: int8 [taps, channels, groups, filters]. thresholds, places: [groups, filters]. A synapse is the byte offset of its
    plane in the neuron's patch. The first list has all synapses. Then each neuron has two: those of weight 1, those of weight -1.
    The synapse after the last, which never spikes, pads each of these to a multiple of eight. If no weight is 0, planes.c
    needs no lists of -1, and they are empty.
    """
    taps, channels, groups, filters = weights.shape
    never = taps * channels
    binary = weights.all()
    by_neuron = weights.reshape(-1, groups * filters).T
    lists, found, end = [np.arange(never)], [], never
    for neuron, threshold, place in zip(by_neuron, thresholds.flat, places.flat):
        plus = _filled(np.flatnonzero(neuron == 1), never)
        minus = _filled(np.flatnonzero((neuron == -1) & (not binary)), never)
        found.append((end, len(plus), len(minus), threshold, place))
        end += len(plus) + len(minus)
        lists += [plus, minus]
    return np.array(found, np.int32), (np.concatenate(lists) * PLANE_BYTES).astype(np.uint16)


def _filled(synapses: np.ndarray, never: int) -> np.ndarray:
    return np.append(synapses, [never] * (-len(synapses) % 8)).astype(int)


def pack(bits: np.ndarray) -> np.ndarray:
    """bool [..., 32 n] -> uint32 [..., n], the lowest bit first."""
    octets = bits.reshape(bits.shape[:-1] + (-1, 8))[..., ::-1]
    return np.packbits(octets.reshape(bits.shape), axis=-1).view("<u4")


def unpack(stage: Stage, words: np.ndarray) -> np.ndarray:
    """A stage's output map: uint32 [N, H, W, n] -> bool [N, H, W, C] in TensorFlow's channel order."""
    octets = np.ascontiguousarray(words).view(np.uint8)
    bits = np.unpackbits(octets[..., None], axis=-1)[..., ::-1]
    shape = words.shape[:3]
    by_reader = bits.reshape(shape + (stage.reader.groups, stage.groups, -1))
    return np.moveaxis(by_reader, 3, 5).reshape(shape + (-1,)).view(bool)
