"""The network and recipe of twba_nets in PyTorch, for any current GPU (or CPU).

    import twba_torch
    net = twba_torch.load("twba")

standard_network  what load gives: standard modules        layers       building blocks for a network of your own
network           the trainer's, in exact integers         quantisers   of weights and activations, with gradients
train, training   the trainer                              convolution, adam, pipeline, variables, device: its parts

Imports no TensorFlow. What needs no framework (network table, recipe, data, log, npz files) is twba_nets'.
"""
from __future__ import annotations

TYPE_CHECKING = False  # typing's own takes 30 ms to import, in which Ctrl-C on a command would be a traceback
if TYPE_CHECKING:
    from pathlib import Path
    from typing import Union

    from twba_torch.standard_network import StandardNetwork


def load(model: Union[str, Path] = "twba", variant: str = None, activation: str = None) -> "StandardNetwork":
    """A trained network as a torch.nn.Module in eval mode: images [N, 3, 32, 32] in [0, 1] -> logits [N, 10].

    model: "twba", "bwba", "twba-published" or "bwba-published", the released ones; a run's folder; or an npz.
    variant ("twba", "bwba"), activation ("binary", "published"): needed of an npz that has no card or recipe beside it.
    net(images, return_spikes=True) also returns the maps of spikes. It can be trained further.
    Raises UserError if there is no such model, or if its file is damaged.
    """
    from twba_nets import places, run_folder
    from twba_nets.model import open_model
    from twba_torch.standard_network import StandardNetwork  # only now: PyTorch takes seconds to import
    opened = open_model(run_folder.locate_npz(places.model(model)), variant, activation)
    net = StandardNetwork(opened.recipe.variant, opened.recipe.activation)
    net.load_variables(opened.values)
    return net.eval()
