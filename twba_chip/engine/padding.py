"""Pad a network for the engine's C: dummies, which never fire, round its filters up.

A group's dummies follow its filters. So filter f keeps its reader, group f % groups of the next stage. That group has weights
for the dummies too, which never count.
"""
import dataclasses
from typing import Dict, Tuple

import numpy as np

from twba_chip.spiking.file import SpikingNetwork
from twba_chip.spiking.synapses import reachable_sums
from twba_nets.network import architecture as arch
from twba_nets.network.architecture import MOST_SYNAPSES, Architecture, Stage
from twba_nets.system.arrays import Arrays
from twba_nets.system.errors import UserError

BLOCK = 32  # filters that the C computes at a time, and channels per word
ELSE = "the engine does not support that: run the network in NumPy, by twba_chip.spiking.reference"


def pad(network: SpikingNetwork) -> SpikingNetwork:
    """The network with as few dummies as the C needs; the paper's network needs none.

    Thresholds are clipped to the sums that a neuron can receive, or one above. That changes no decision, and the C's numbers
    hold no others. Raises UserError, which names the stage, for more synapses or filters than the C supports.
    """
    padded, arrays, groups = _rounded_up(network.architecture), dict(network.arrays), 1
    for stage, to in zip(network.architecture.stages, padded.stages):
        for name, (array, dummy) in _layer(network.arrays, stage).items():
            if array.ndim == 4:  # a kernel; its channels are the filters of the previous stage's groups
                array = widen(array, 2, groups, to.kernel_shape[2] // groups, dummy)
            arrays[name] = widen(array, array.ndim - 1, stage.groups, to.filters, dummy)
        groups = stage.groups
    kernel = f"{arch.OUTPUT}/kernel"
    arrays[kernel] = widen(arrays[kernel], 0, stage.output_size ** 2 * groups, to.filters, 0)
    return SpikingNetwork(padded, arrays, network.meta)


def widen(array: np.ndarray, axis: int, groups: int, size: int, dummy: int = 0) -> np.ndarray:
    """Pad each group's entries along an axis to this size. The axis holds `groups` groups of entries."""
    before, after = array.shape[:axis], array.shape[axis + 1:]
    more = size - array.shape[axis] // groups
    if not more:
        return array
    widths = [(0, 0)] * (axis + 1) + [(0, more)] + [(0, 0)] * len(after)
    array = np.pad(array.reshape(before + (groups, size - more) + after), widths, mode="constant", constant_values=dummy)
    return array.reshape(before + (groups * size,) + after)


def trim(spikes: np.ndarray, stage: Stage) -> np.ndarray:
    """Remove the dummies from a map [N, H, W, padded C] of this stage -> [N, H, W, C]."""
    shape, filters = spikes.shape[:3], spikes.shape[3] // stage.groups
    return spikes.reshape(shape + (stage.groups, filters))[..., :stage.filters].reshape(shape + (stage.output_channels,))


def _layer(arrays: Arrays, stage: Stage) -> Dict[str, Tuple[np.ndarray, int]]:
    """A stage's arrays, each with its value for dummies."""
    if not stage.quantised:
        dummies = {"kernel": 0, "scale": 0, "offset": -1 if stage.fires else 0}
        return {f"{stage.conv}/{part}": (arrays[f"{stage.conv}/{part}"], dummy) for part, dummy in dummies.items()}
    weights, thresholds = (arrays[f"{stage.conv}/{part}"] for part in ("weights", "thresholds"))
    lowest, highest = reachable_sums(weights)
    thresholds = np.clip(thresholds, lowest, highest + 1).astype(np.int16)
    binary = int(weights.all())  # the C is faster if no weight is 0, so a dummy's is not 0 either
    return {f"{stage.conv}/weights": (weights, binary), f"{stage.conv}/thresholds": (thresholds, stage.fan_in + 1)}


def _rounded_up(architecture: Architecture) -> Architecture:
    for stage in architecture.hidden:
        if stage.fan_in > MOST_SYNAPSES:
            raise UserError(f"{stage.conv}: a neuron has {stage.fan_in:,} synapses, more than {MOST_SYNAPSES:,}: {ELSE}")
    rows = [dataclasses.replace(row, filters=_filters(stage)) for row, stage in zip(architecture.rows, architecture.stages)]
    return dataclasses.replace(architecture, rows=tuple(rows))


def _filters(stage: Stage) -> int:
    """The smallest number of filters for a group that the C supports."""
    first = -(-stage.filters // BLOCK) * BLOCK
    for filters in range(first, arch.LARGEST + 1, BLOCK):
        if not stage.fires or _fits(stage, filters):
            return filters
    raise UserError(f"{stage.conv}: {stage.filters} filters for {stage.reader.groups} groups of the next stage would be padded "
                    f"to more than {arch.LARGEST:,}: {ELSE}")


def _fits(stage: Stage, filters: int) -> bool:
    """Whether a group of a stage that fires may have this number of filters, a multiple of BLOCK.

    Each group of the reader must get a multiple of 8 of them and read a multiple of 32 channels. The map with its margin must be
    a multiple of 64 bits.
    """
    share, rest = divmod(filters, stage.reader.groups)
    bits = (stage.output_size + 2 * stage.reader.margin) ** 2 * stage.groups * filters
    return not rest and share % 8 == 0 and stage.groups * share % BLOCK == 0 and bits % 64 == 0
