"""The network and recipe of twba_nets in PyTorch, for any current GPU (or CPU).

    import twba_torch
    net = twba_torch.load("twba")

standard_network  what load gives: standard modules        layers       building blocks for a network of your own
sequential        from_sequential: a network of your own   saving       save: a network for every command
network           the trainer's, in exact integers         quantisers   of weights and activations, with gradients
train, training   the trainer                              convolution, adam, pipeline, variables, device: its parts
evaluation        of networks with three levels

Imports no TensorFlow. What needs no framework (network table, recipe, data, log, npz files) is twba_nets'.
"""
from __future__ import annotations

TYPE_CHECKING = False  # typing's own takes 30 ms to import, in which Ctrl-C on a command would be a traceback
if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import Optional, Union

    from torch import nn

    from twba_torch.standard_network import StandardNetwork


def load(model: Union[str, Path] = "twba", variant: Optional[str] = None, activation: Optional[str] = None,
         allow_pickle: bool = False) -> "StandardNetwork":
    """A trained network as a torch.nn.Module in eval mode: images in [0, 1], of the paper's network [N, 3, 32, 32], -> logits.

    model: "twba", "bwba", "twba-published" or "bwba-published", the released ones; a run's folder; or an npz.
    variant ("twba", "bwba"), activation ("binary", "three-level"): needed of an npz that has no card or recipe beside it.
    allow_pickle: read the original's pickled model.npz, too. Loading a pickle can run any code.
    net(images, return_spikes=True) also returns the maps of spikes. It can be trained further, and saved (save).
    Raises UserError if there is no such model, or if its file is damaged or an exported one.
    """
    from twba_nets.network.architecture import PAPER
    from twba_nets.network.quantisers import ACTIVATIONS, WEIGHTS
    from twba_nets.runs import card, npz, run_folder
    from twba_nets.runs.model import open_model
    from twba_nets.system import places
    from twba_nets.system.errors import UserError
    path = run_folder.locate_npz(places.model(model))
    if not (variant and activation or card.about_beside(path, card.read(path))):
        npz.read_model(path, PAPER, allow_pickle)  # which says so where it is no model at all
        raise UserError(f"{path}: neither card nor recipe beside it says what it is: pass variant, one of "
                        f"{', '.join(WEIGHTS)}, and activation, one of {', '.join(ACTIVATIONS)}")
    from twba_torch.standard_network import from_model  # only now: PyTorch takes seconds to import
    return from_model(open_model(path, variant, activation, allow_pickle))


def from_sequential(sequential: "nn.Sequential", class_names: Sequence[str] = ()) -> "StandardNetwork":
    """A network of your own, of the layers in twba_torch.layers, with its Architecture: twba_torch/sequential.py."""
    from twba_torch import sequential as sequentials
    return sequentials.from_sequential(sequential, class_names)


def save(network: "StandardNetwork", folder: Union[str, Path], data: str = "") -> None:
    """Write what load or from_sequential gave, trained further or not, for every command: twba_torch/saving.py."""
    from twba_torch import saving
    saving.save(network, folder, data)
