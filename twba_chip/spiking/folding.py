"""Batch norm, htanh and sign of a hidden neuron folded into one integer threshold, in NumPy.

A hidden neuron receives an integer sum s and fires where gamma (s - mean) / sqrt(variance + epsilon) + beta >= 0: from one
sum on where gamma is positive, up to one where it is negative.
"""
from typing import Dict, Sequence, Tuple

import numpy as np

from twba_chip.spiking.file import SpikingNetwork
from twba_chip.spiking.synapses import reachable_sums
from twba_nets.network import architecture as arch
from twba_nets.network.architecture import Architecture, Stage
from twba_nets.system.arrays import Arrays
from twba_nets.system.errors import UserError
from twba_nets.network.quantisers import WEIGHTS


MOST_SYNAPSES = 2 ** 15 - 2  # of a neuron, whose threshold is an int16


def fold(values: Arrays, variant: str, architecture: Architecture) -> Arrays:
    """The arrays of file.array_types() from the model's variables, name -> array.

    Decisions are computed in float64; twba_tensorflow.export asks TensorFlow for its own in float32. Raises UserError where a
    neuron has too many synapses.
    """
    arrays, quantise = {}, WEIGHTS[variant].quantise
    for stage in architecture.stages:
        if stage.quantised:
            groups = []
            for kernel, bn in stage.variable_names:
                weights = quantise(values[kernel])
                groups.append((decisions(*batch_norm(values, bn), fan_in=weights[..., 0].size), weights))
            arrays.update(stage_arrays(stage, groups))
        else:
            (kernel, bn), = stage.variable_names
            arrays.update(float_layer(stage.conv, values[kernel], *batch_norm(values, bn)))
    arrays.update(float_layer(arch.OUTPUT, values[f"model/{arch.OUTPUT}/W"], *batch_norm(values, f"model/{arch.OUTPUT_BN}")))
    return arrays


def batch_norm(values: Arrays, bn: str) -> Tuple[np.ndarray, np.ndarray]:
    """(scale, offset) of a batch norm as x * scale + offset: float64 [filters]."""
    gamma, beta, mean, variance = (values[f"{bn}/{part}"].astype(np.float64)
                                   for part in ("gamma", "beta", "moving_mean", "moving_variance"))
    scale = gamma / np.sqrt(variance + arch.BN_EPSILON)
    return scale, beta - mean * scale


def float_layer(name: str, kernel: np.ndarray, scale: np.ndarray, offset: np.ndarray) -> Arrays:
    """The arrays of a layer that stays float, off chip."""
    layer = {"kernel": kernel, "scale": scale, "offset": offset}
    return {f"{name}/{part}": array.astype(np.float32) for part, array in layer.items()}


def decisions(scale: np.ndarray, offset: np.ndarray, fan_in: int) -> np.ndarray:
    """Whether neurons fire at the sums -fan_in ... fan_in: bool [2 * fan_in + 1, filters]. scale, offset: [filters]."""
    sums = np.arange(-fan_in, fan_in + 1)[:, np.newaxis]
    return sums * scale >= -offset


def stage_arrays(stage: Stage, groups: Sequence[Tuple[np.ndarray, np.ndarray]]) -> Arrays:
    """A hidden stage's arrays from its groups' (decisions, quantised weights)."""
    if stage.fan_in > MOST_SYNAPSES:
        raise UserError(f"{stage.conv}: a neuron has {stage.fan_in:,} synapses, and a threshold holds {MOST_SYNAPSES:,}: give it "
                        "more groups, or its input fewer channels")
    weights, thresholds = zip(*(threshold(*group) for group in groups))
    return {f"{stage.conv}/weights": np.concatenate(weights, axis=3), f"{stage.conv}/thresholds": np.concatenate(thresholds)}


def threshold(fires: np.ndarray, weights: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """Weights and thresholds of the neurons that decide like this.

    fires: bool [2 * fan_in + 1, filters], whether a neuron does at the sums -fan_in ... fan_in.
    weights: int8 [k, k, channels, filters]. Returns (weights, int16 [filters]: the lowest sum at which each fires).
    A filter with negative gamma fires at *low* sums: the signs of its weights are turned.
    """
    falling = fires[0] & ~fires[-1]
    fires = np.where(falling, fires[::-1], fires)
    weights = np.where(falling, -weights, weights)
    if (np.diff(fires.astype(np.int8), axis=0) < 0).any():
        raise UserError("a neuron's decisions rise and fall with its sum: no threshold gives them, and the checkpoint "
                        "cannot be exported")
    lowest, highest = reachable_sums(weights)
    # with a rising sum a neuron begins to fire once, so the number of sums that do not fire is the index of the first that does;
    # index 0 is the sum -fan_in
    fan_in = len(fires) // 2
    first = (~fires).sum(0) - fan_in
    return weights, np.clip(first, lowest, highest + 1).astype(np.int16)


def constant_filters(network: SpikingNetwork) -> Dict[str, int]:
    """How many hidden filters' neurons "always" fire, whatever they receive, and how many "never" do."""
    always = never = 0
    for stage in network.architecture.hidden:
        thresholds = network.arrays[f"{stage.conv}/thresholds"]
        lowest, highest = reachable_sums(network.arrays[f"{stage.conv}/weights"])
        always += int((thresholds <= lowest).sum())
        never += int((thresholds > highest).sum())
    return {"always": always, "never": never}
