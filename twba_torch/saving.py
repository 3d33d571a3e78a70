"""twba_torch.save: writes a network as model.npz and its card, like a finished run, for every command."""
import os
from pathlib import Path

import numpy as np

from twba_nets import datasets
from twba_nets.network.architecture import is_quantised
from twba_nets.network.quantisers import WEIGHTS
from twba_nets.runs import card, npz, run_folder
from twba_nets.runs.about import About
from twba_nets.system import files
from twba_nets.system.arrays import Arrays
from twba_nets.system.errors import UserError
from twba_torch.standard_network import StandardNetwork, check_modules, check_own


def save(network: StandardNetwork, folder: str | Path, data: str | Path = "") -> None:
    """Write model.npz, with quantised weights, and its card, model.json, into a folder without another model.

    data: the default data of commands, a data set's name or a path (--data); by default the network's.
    twba_torch.load returns the same network, bit for bit, except that its latent weights are quantised.
    Raises UserError if the folder already holds a model or a run, if values are invalid (npz.check_numbers), if a module was
    changed (check_modules, check_own), if a value needs float64, if a binary weight is 0, or if class_names are not
    one for each class, all different.
    """
    folder = Path(folder)
    if type(network) is not StandardNetwork:  # a subclass may compute something else
        raise UserError(f"{folder}: a {type(network).__name__} cannot be saved: save what load or from_sequential gave")
    _require_empty(folder)
    path, architecture = folder / run_folder.MODEL_NAME, network.architecture
    values = _checked_variables(path, network)
    given = [network.class_names] if isinstance(network.class_names, str) else network.class_names
    names = tuple(map(str, given)) or tuple(map(str, range(architecture.classes)))
    _check_names(path, names, architecture.classes)
    source = network.data if not data else data if data in datasets.NAMES else os.path.abspath(data)
    about = About(network.variant, network.activation, architecture, str(source), names)
    card.warn_of_many_synapses(architecture)
    files.make_folder(folder)
    with files.claimed(folder):
        _require_empty(folder)
        card.write_saved(path, about, npz.save_model(path, values, architecture))


def _checked_variables(path: Path, network: StandardNetwork) -> Arrays:
    """The network's variables. Raises UserError, naming the file-to-be, if they or its modules are invalid."""
    try:
        check_modules(network)
        for name, module in network.named_modules():  # quantised weights hide what is wrong with the latent ones
            check_own(name, module)
        values = network.variables()
    except (ValueError, AttributeError) as error:
        raise UserError(f"{path}: {error}")
    npz.check_values(path, values, network.architecture)
    for name in filter(is_quantised, values):
        if not np.isin(values[name], WEIGHTS[network.variant].levels).all():
            raise UserError(f"{path}: {name} holds a weight of 0, from a latent weight of exactly 0, but binary weights are -1 "
                            "and 1: train one more step")
    return values


def _require_empty(folder: Path) -> None:
    """Raise UserError if the folder holds a model or a run."""
    if run_folder.newest(folder) or (folder / run_folder.MODEL_NAME).exists():
        raise UserError(f"{folder}: already holds a model or a run: name another folder")


def _check_names(path: Path, names: tuple[str, ...], classes: int) -> None:
    if len(names) != classes or len(set(names)) < classes:
        raise UserError(f"{path}: the network has {classes} classes and {len(set(names))} different class names: set its "
                        "class_names, one for each class")
