"""The network and recipe of twba_nets in PyTorch, for any current GPU (or CPU).

    import twba_torch
    net = twba_torch.load("twba")

standard_network  what load gives: standard modules        layers       building blocks for a network of your own
network           the trainer's, in exact integers         quantisers   of weights and activations, with gradients
train, training   the trainer                              convolution, adam, pipeline, variables, device: its parts
evaluation        of networks with three levels

Imports no TensorFlow. What needs no framework (network table, recipe, data, log, npz files) is twba_nets'.
"""
from __future__ import annotations

TYPE_CHECKING = False  # typing's own takes 30 ms to import, in which Ctrl-C on a command would be a traceback
if TYPE_CHECKING:
    from pathlib import Path
    from typing import Union

    from twba_torch.standard_network import StandardNetwork


def load(model: Union[str, Path] = "twba", variant: str = None, activation: str = None,
         allow_pickle: bool = False) -> "StandardNetwork":
    """A trained network as a torch.nn.Module in eval mode: images [N, 3, 32, 32] in [0, 1] -> logits [N, 10].

    model: "twba", "bwba", "twba-published" or "bwba-published", the released ones; a run's folder; or an npz.
    variant ("twba", "bwba"), activation ("binary", "published"): needed of an npz that has no card or recipe beside it.
    allow_pickle: read the original's pickled model.npz, too. Loading a pickle can run any code.
    net(images, return_spikes=True) also returns the maps of spikes. It can be trained further.
    Raises UserError if there is no such model, or if its file is damaged or an exported one.
    """
    from twba_nets import card, npz, places, run_folder
    from twba_nets.architecture import ACTIVATIONS, VARIANTS
    from twba_nets.errors import UserError
    from twba_nets.model import open_model
    path = run_folder.locate_npz(places.model(model))
    if not (variant and activation or card.load_recipe(path)):
        npz.read_model(path, allow_pickle)  # which says so where it is no model at all
        raise UserError(f"{path}: neither card nor recipe beside it says what it is: pass variant, one of "
                        f"{', '.join(VARIANTS)}, and activation, one of {', '.join(ACTIVATIONS)}")
    from twba_torch.standard_network import from_model  # only now: PyTorch takes seconds to import
    return from_model(open_model(path, variant, activation, allow_pickle))
