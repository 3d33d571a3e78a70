"""The synapses of an exported network: the synaptic operations of a spike, and the operations of a dense layer.

A synaptic operation (SOP) is one spike at one synapse with a nonzero weight: one addition or subtraction.
"""
from typing import Tuple

import numpy as np

from twba_nets.network.architecture import Stage


def fan_out(weights: np.ndarray, stage: Stage, copies: np.ndarray = None) -> np.ndarray:
    """How many nonzero synapses a spike of each of the stage's input neurons drives: int64 [size, size, channels].

    weights: int8 [k, k, channels / groups, groups * filters]. copies: int [output_size, output_size], copies of a neuron at
    each output position; None: one each. Exact at borders, where fewer kernels cover a neuron. An image's SOPs are the sum of
    this over the neurons that spike.
    """
    held = np.ones(stage.map_shape[:2], int) if copies is None else copies
    by_channel = (weights != 0).reshape(weights.shape[:3] + (stage.groups, stage.filters)).sum(4)
    by_channel = by_channel.reshape(stage.kernel, stage.kernel, -1)  # group i reads the channels i, i + groups, ...
    padded, reach = stage.size + 2 * stage.margin, (stage.output_size - 1) * stage.stride + 1
    driven = np.zeros((padded, padded, stage.channels), np.int64)
    for row in range(stage.kernel):
        for column in range(stage.kernel):
            reached = driven[row:row + reach:stage.stride, column:column + reach:stage.stride]
            reached += held[..., np.newaxis] * by_channel[row, column]
    inner = slice(stage.margin, stage.margin + stage.size)
    return driven[inner, inner]


def fan_in(weights: np.ndarray) -> int:
    """Synapses per neuron of the stage, including those with weight zero and those on padding."""
    return int(np.prod(weights.shape[:3]))


def multiply_accumulates(weights: np.ndarray, stage: Stage) -> int:
    """Dense MACs of the stage for one image, by the usual formula: H' W' k k C / groups * groups * filters.

    As in a dense layer, products with SAME's padding and with zero weights count too.
    """
    return stage.output_size ** 2 * weights.size


def reachable_sums(weights: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """The lowest and the highest sum that each filter can receive. weights: int8 [k, k, channels, filters]."""
    return -(weights < 0).sum((0, 1, 2)), (weights > 0).sum((0, 1, 2))
