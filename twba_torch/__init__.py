"""The network and recipe of twba_nets in PyTorch, for any current GPU or CPU.

    import twba_torch
    net = twba_torch.load("twba")

standard_network  load's network: standard modules         layers       building blocks for your own network
sequential        from_sequential: your own network        saving       save: a network for every command
network           the trainer's, in exact integers         quantisers   of weights and activations, with gradients
train, training   the trainer                              evaluation   of networks with three levels
to_safetensors    export for model hubs                    convolution, grouped, adam, pipeline, variables, device: its parts

The parts without a framework (network table, recipe, data, log, npz files) are in twba_nets.
"""
from __future__ import annotations

TYPE_CHECKING = False  # importing typing's takes 30 ms, in which Ctrl-C would give a traceback
if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import Optional, Union

    from torch import nn

    from twba_torch.standard_network import StandardNetwork


def load(model: Union[str, Path] = "twba", variant: Optional[str] = None, activation: Optional[str] = None,
         allow_pickle: bool = False) -> "StandardNetwork":
    """A trained network as a torch.nn.Module in eval mode: images in [0, 1], [N, C, S, S] -> logits [N, classes].

    The paper's network takes [N, 3, 32, 32]. net(images, return_spikes=True) also returns the maps of spikes. The network can
    be trained further and saved (save).

    model: a released one ("twba", "bwba", "twba-paper", "twba-published" or "bwba-published"), a run's folder or an npz.
    variant ("twba", "bwba"), activation ("binary", "three-level"): required for an npz without card or recipe beside it.
    allow_pickle: also read the original's pickled model.npz; loading a pickle can run any code.
    Raises UserError if there is no such model, or if its file is damaged or an exported network.
    """
    from twba_nets.network.architecture import PAPER
    from twba_nets.network.quantisers import ACTIVATIONS, WEIGHTS
    from twba_nets.runs import card, npz, run_folder
    from twba_nets.runs.model import open_model
    from twba_nets.system import places
    from twba_nets.system.errors import UserError
    path = run_folder.locate_npz(places.model(model))
    if not (variant and activation or card.about_beside(path, card.read(path))):
        npz.read_model(path, PAPER, allow_pickle)  # raises a better error if it is not a model at all
        raise UserError(f"{path}: no card or recipe beside it says what it is: pass variant, one of "
                        f"{', '.join(WEIGHTS)}, and activation, one of {', '.join(ACTIVATIONS)}")
    from twba_torch.standard_network import from_model  # here, because PyTorch takes seconds to import
    return from_model(open_model(path, variant, activation, allow_pickle))


def from_sequential(sequential: "nn.Sequential", class_names: Sequence[str] = ()) -> "StandardNetwork":
    """Your own network, of the layers in twba_torch.layers, as a StandardNetwork. Raises ValueError: see sequential.py."""
    from twba_torch import sequential as sequentials
    return sequentials.from_sequential(sequential, class_names)


def save(network: "StandardNetwork", folder: Union[str, Path], data: Union[str, Path] = "") -> None:
    """Save a network from load or from_sequential for use by every command. Raises UserError: see saving.py."""
    from twba_torch import saving
    saving.save(network, folder, data)
