"""Channels in their reader's order: those that a group of the next stage reads are adjacent."""
from typing import Dict, Tuple

import numpy as np

from twba_chip.spiking.file import SpikingNetwork


def by_reader(channels: int, readers: int) -> np.ndarray:
    """The order of a map's channels that makes those of each of its reader's groups adjacent: int [channels].

    It is 0, readers, 2 readers, ..., then 1, readers + 1, ... Its np.argsort is the inverse. readers: number of groups.
    """
    return np.arange(channels).reshape(-1, readers).T.ravel()


def in_readers_order(network: SpikingNetwork) -> Tuple[SpikingNetwork, Dict[str, np.ndarray]]:
    """A network whose maps are all in their reader's order, and the order of each map (by_reader).

    Place p of a map holds the exported network's channel order[p]. Group i of the next stage reads the i-th block of places.
    Only the last axes of a stage's arrays change, because a kernel keeps the order of its group's channels. The last map is
    unchanged. The filter at place p belongs to group order[p] // stage.filters, so a group's own filters are no longer
    adjacent. The arrays no longer match meta's digest.
    """
    arrays, orders = dict(network.arrays), {}
    for stage in network.architecture.stages:
        if stage.fires:
            orders[stage.map] = order = by_reader(stage.output_channels, stage.reader.groups)
            parts = ("weights", "thresholds") if stage.quantised else ("kernel", "scale", "offset")
            arrays.update({f"{stage.conv}/{part}": arrays[f"{stage.conv}/{part}"][..., order] for part in parts})
    return network._replace(arrays=arrays), orders
