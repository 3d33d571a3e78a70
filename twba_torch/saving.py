"""A network for every command: twba_torch.save writes model.npz and its card, as a finished run has them."""
from pathlib import Path

import numpy as np

from twba_nets.network.architecture import is_quantised
from twba_nets.network.quantisers import WEIGHTS
from twba_nets.runs import card, npz, run_folder
from twba_nets.runs.about import About
from twba_nets.system import files
from twba_nets.system.errors import UserError
from twba_torch.standard_network import StandardNetwork


def save(network: StandardNetwork, folder: str | Path, data: str = "") -> None:
    """Write model.npz, with the weights as they are evaluated, and its card, model.json, into a folder of their own.

    data: a data set's name, or the path of your own (--data): what commands take where none is named; by default the network's.
    twba_torch.load gives the same network again, every bit of it but for the latent weights, which are quantised now.
    Raises UserError where the folder holds a model or a run already, where the network's values are not finite, and where its
    class_names are not as many as its classes.
    """
    folder = Path(folder)
    if run_folder.newest(folder) or (folder / run_folder.MODEL_NAME).exists():
        raise UserError(f"{folder}: holds a model or a run already: name another folder")
    path, architecture = folder / run_folder.MODEL_NAME, network.architecture
    values = network.variables()
    npz.check_values(path, values, architecture)
    for name in filter(is_quantised, values):
        if not np.isin(values[name], WEIGHTS[network.variant].levels).all():
            raise UserError(f"{path}: {name} holds a weight of 0, from a latent one of exactly 0, and binary ones are -1 and 1: "
                            "train a step further")
    npz.check_variant(values, network.variant, path)
    names = tuple(map(str, network.class_names)) or tuple(map(str, range(architecture.classes)))
    if len(names) != architecture.classes:
        raise UserError(f"{path}: the network has {architecture.classes} classes and {len(names)} names of them: set its "
                        "class_names")
    about = About(network.variant, network.activation, architecture, str(data or network.data), names)
    files.make_folder(folder)
    with files.claimed(folder):
        card.write_saved(path, about, npz.save_model(path, values, architecture))
