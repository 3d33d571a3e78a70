"""Fold a hidden neuron's batch norm, htanh and sign into one integer threshold, in NumPy.

A hidden neuron receives an integer sum s and fires if gamma (s - mean) / sqrt(variance + epsilon) + beta >= 0: from a certain
sum on if gamma is positive, up to a certain sum if gamma is negative.
"""
from typing import Dict, Sequence, Tuple

import numpy as np

from twba_chip.spiking.file import SpikingNetwork
from twba_chip.spiking.synapses import reachable_sums
from twba_nets.network import architecture as arch
from twba_nets.network.architecture import MOST_SYNAPSES, Architecture, Stage
from twba_nets.system.arrays import Arrays
from twba_nets.system.errors import UserError, named
from twba_nets.network.quantisers import WEIGHTS


def fold(values: Arrays, variant: str, architecture: Architecture) -> Arrays:
    """The arrays of file.array_types() from the model's variables, name -> array.

    Decisions are computed in float64; twba_tensorflow.export takes TensorFlow's in float32. Raises UserError if a neuron has too
    many synapses.
    """
    arrays, quantise = {}, WEIGHTS[variant].quantise
    for stage in architecture.stages:
        if stage.quantised:
            require_few_synapses(stage)  # before their decisions take gigabytes
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
    """A batch norm as x * scale + offset: (scale, offset), float64 [filters] each."""
    gamma, beta, mean, variance = (values[f"{bn}/{part}"].astype(np.float64)
                                   for part in ("gamma", "beta", "moving_mean", "moving_variance"))
    scale = gamma / np.sqrt(variance + arch.BN_EPSILON)
    return scale, beta - mean * scale


def float_layer(name: str, kernel: np.ndarray, scale: np.ndarray, offset: np.ndarray) -> Arrays:
    """The arrays, float32, of a layer that stays float, off chip. scale, offset: [filters]."""
    layer = {"kernel": kernel, "scale": scale, "offset": offset}
    return {f"{name}/{part}": array.astype(np.float32) for part, array in layer.items()}


def decisions(scale: np.ndarray, offset: np.ndarray, fan_in: int) -> np.ndarray:
    """Whether neurons fire at the sums -fan_in ... fan_in: bool [2 * fan_in + 1, filters]. scale, offset: [filters]."""
    sums = np.arange(-fan_in, fan_in + 1)[:, np.newaxis]
    return sums * scale >= -offset


def require_few_synapses(stage: Stage) -> None:
    """Raise UserError if a threshold cannot hold the sums of a stage's neurons."""
    if stage.fan_in > MOST_SYNAPSES:
        raise UserError(f"{stage.conv}: a neuron has {stage.fan_in:,} synapses, but a threshold holds only {MOST_SYNAPSES:,}: "
                        "use more groups, or fewer channels in its input")


def stage_arrays(stage: Stage, groups: Sequence[Tuple[np.ndarray, np.ndarray]]) -> Arrays:
    """A hidden stage's arrays. groups: (decisions, quantised weights) of each."""
    with named(stage.conv):
        weights, thresholds = zip(*(threshold(*group) for group in groups))
    return {f"{stage.conv}/weights": np.concatenate(weights, axis=3), f"{stage.conv}/thresholds": np.concatenate(thresholds)}


def threshold(fires: np.ndarray, weights: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """Weights and thresholds of neurons with these decisions.

    fires: bool [2 * fan_in + 1, filters], whether a neuron fires at the sums -fan_in ... fan_in.
    weights: int8 [k, k, channels, filters]. Returns (weights, int16 [filters]: the lowest sum at which each fires).
    A filter with negative gamma fires at *low* sums: the signs of its weights are flipped.
    Raises UserError if no threshold gives the decisions.
    """
    falling = fires[0] & ~fires[-1]
    fires = np.where(falling, fires[::-1], fires)
    weights = np.where(falling, -weights, weights)
    if (np.diff(fires.astype(np.int8), axis=0) < 0).any():
        raise UserError("a neuron's decisions rise and fall with its sum, so no threshold gives them: train on, or start again "
                        "from an earlier checkpoint")
    lowest, highest = reachable_sums(weights)
    # a neuron fires from one sum on, so the number of sums at which it does not fire is the index of the first at which it
    # does; index 0 is the sum -fan_in
    fan_in = len(fires) // 2
    first = (~fires).sum(0) - fan_in
    return weights, np.clip(first, lowest, highest + 1).astype(np.int16)


def constant_filters(network: SpikingNetwork) -> Dict[str, int]:
    """How many hidden filters' neurons "always" or "never" fire, whatever their input."""
    always = never = 0
    for stage in network.architecture.hidden:
        thresholds = network.arrays[f"{stage.conv}/thresholds"]
        lowest, highest = reachable_sums(network.arrays[f"{stage.conv}/weights"])
        always += int((thresholds <= lowest).sum())
        never += int((thresholds > highest).sum())
    return {"always": always, "never": never}
