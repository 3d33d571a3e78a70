"""twba_torch.save: writes a network as model.npz and its card, like a finished run, for every command."""
from pathlib import Path

import numpy as np

from twba_nets.network.architecture import is_quantised
from twba_nets.network.quantisers import WEIGHTS
from twba_nets.runs import card, npz, run_folder
from twba_nets.runs.about import About
from twba_nets.system import files
from twba_nets.system.errors import UserError
from twba_torch.standard_network import StandardNetwork, check_tensors


def save(network: StandardNetwork, folder: str | Path, data: str = "") -> None:
    """Write model.npz, with quantised weights, and its card, model.json, into a folder without another model.

    data: the default data of commands, a data set's name or a path (--data); by default the network's.
    twba_torch.load returns the same network, bit for bit, except that its latent weights are quantised.
    Raises UserError if the folder already holds a model or a run, if values are invalid (npz.check_numbers, check_tensors), if
    a binary weight is 0, or if the number of class_names differs from the classes.
    """
    folder = Path(folder)
    if run_folder.newest(folder) or (folder / run_folder.MODEL_NAME).exists():
        raise UserError(f"{folder}: already holds a model or a run: name another folder")
    path, architecture = folder / run_folder.MODEL_NAME, network.architecture
    values = network.variables()
    npz.check_values(path, values, architecture)
    try:  # quantised weights hide what is wrong with the latent ones
        for name, module in network.named_modules():
            check_tensors(name, module)
    except ValueError as error:
        raise UserError(f"{path}: {error}")
    for name in filter(is_quantised, values):
        if not np.isin(values[name], WEIGHTS[network.variant].levels).all():
            raise UserError(f"{path}: {name} holds a weight of 0, from a latent weight of exactly 0, but binary weights are -1 "
                            "and 1: train one more step")
    npz.check_variant(values, network.variant, path)
    names = tuple(map(str, network.class_names)) or tuple(map(str, range(architecture.classes)))
    if len(names) != architecture.classes:
        raise UserError(f"{path}: the network has {architecture.classes} classes but {len(names)} class names: set its "
                        "class_names")
    about = About(network.variant, network.activation, architecture, str(data or network.data), names)
    files.make_folder(folder)
    with files.claimed(folder):
        card.write_saved(path, about, npz.save_model(path, values, architecture))
