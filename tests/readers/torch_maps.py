"""A PyTorch module's maps for a network's input spikes."""
import json
from typing import Dict

import nir
import numpy as np
import torch

from conftest import HIDDEN


def in_network_order(maps: Dict[str, np.ndarray], graph: nir.NIRGraph) -> Dict[str, np.ndarray]:
    """Maps [N, C, H, W] of a graph with groups, in the network's channel order."""
    channels = json.loads(graph.metadata["channels"])
    return {name: spikes[:, np.argsort(channels[name])] if name in channels else spikes for name, spikes in maps.items()}


def simulate(module: torch.nn.Module, spikes: np.ndarray) -> Dict[str, np.ndarray]:
    """One time step: input spikes float32 [N, 64, 24, 24] -> the outputs of cnn1_spikes, ...: map's name -> [N, C, H, W]."""
    maps, names = {}, {module.get_submodule(f"{name}_spikes"): name for name in HIDDEN}

    def record(neurons, inputs, outputs):
        maps[names[neurons]] = (outputs[0] if isinstance(outputs, tuple) else outputs).numpy()

    for neurons in names:
        neurons.register_forward_hook(record)
    with torch.no_grad():
        module(torch.from_numpy(spikes))
    return maps
