"""The synapses of an exported network: what a spike drives, and what a dense layer would compute instead.

A synaptic operation (SOP) is one spike at one synapse whose weight is not zero: one addition or subtraction. No
framework is imported here.
"""
import numpy as np

from twba_nets import architecture as arch


def fan_out(weights, stage, size):
    """How many nonzero synapses a spike of each of the stage's input neurons drives: int64 [size, size, C].

    weights: int8 [k, k, C / groups, groups * filters]. size: height (= width) of the input map. Exact at borders, where
    a neuron is seen by fewer kernels. An image's SOPs are the sum of this over the neurons that spike.
    """
    by_channel = (weights != 0).reshape(weights.shape[:3] + (stage.groups, stage.filters)).sum(4)
    by_channel = by_channel.reshape(stage.kernel, stage.kernel, -1)  # group i reads the channels i, i + groups, ...
    margin = arch.padding(size, stage)
    reach = (arch.output_size(size, stage) - 1) * stage.stride + 1
    driven = np.zeros((size + 2 * margin, size + 2 * margin, by_channel.shape[2]), np.int64)
    for row in range(stage.kernel):
        for column in range(stage.kernel):
            driven[row:row + reach:stage.stride, column:column + reach:stage.stride] += by_channel[row, column]
    return driven[margin:margin + size, margin:margin + size]


def fan_in(weights):
    """How many synapses a neuron of the stage has, those of weight zero and those that see padding included."""
    return int(np.prod(weights.shape[:3]))


def multiply_accumulates(weights, stage, size):
    """Dense MACs of the stage for one image, by the usual formula: H' W' k k C / groups * groups * filters.

    It counts the products with SAME's padding too, as a dense layer computes them, and all weights, zeros included.
    """
    return arch.output_size(size, stage) ** 2 * weights.size
