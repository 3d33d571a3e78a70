"""Opening a trained model: its path, description and variables."""
import dataclasses
from pathlib import Path
from typing import Callable, Dict, NamedTuple, Optional, Union

import numpy as np

from twba_nets.runs import card, npz, recipe as recipes, run_folder
from twba_nets.network import quantisers
from twba_nets.network.architecture import PAPER
from twba_nets.runs.about import About
from twba_nets.system.arrays import read_npz
from twba_nets.system.errors import UserError, reads
from twba_nets.system.files import Content, Source, path_of


class Model(NamedTuple):
    """An opened checkpoint.

    path: of the checkpoint. about: from the card or recipe beside it; without these, the paper's network of the requested
    variant and activation. values: the model's variables, name -> array. card: the card beside it, or None.
    """
    path: Path
    about: About
    values: Dict[str, np.ndarray]
    card: Optional[dict] = None


@reads
def open_model(source: Union[str, Source], variant: Optional[str] = None, activation: Optional[str] = None,
               allow_pickle: bool = False, read: Callable[..., Dict[str, np.ndarray]] = npz.read_model) -> Model:
    """Open the model that `source` names (run_folder.locate), or an npz already read. An npz is read once.

    variant, activation: what it must be; required if there is neither card nor recipe beside it. The architecture is then
    the paper's. allow_pickle: also read the original's pickled model.npz; loading a pickle can run any code.
    read(source, architecture, allow_pickle): returns the variables, name -> array. npz.read_model reads an npz,
    twba_tensorflow.checkpoint.read also a TensorFlow checkpoint.
    Raises UserError if the model is missing, damaged or not as requested.
    """
    activation = quantisers.canonical(activation)
    source = source if isinstance(source, Content) else run_folder.locate(source)
    path = path_of(source)
    if path.suffix == ".npz":
        source = read_npz(source, npz.REMEDY)
    recorded = card.read(source)
    about = card.about_beside(path, recorded)
    if about:
        require_same(about, path, variant=variant, activation=activation)
        variant = about.variant
    elif not variant:
        raise UserError(f"{path}: no card or recipe beside it says what it is: add --variant twba or bwba, and "
                        "--activation")
    values = read(source, about.architecture if about else PAPER, allow_pickle)
    npz.check_variant(values, variant, path, bool(about))
    if not about:
        about = dataclasses.replace(recipes.paper(variant), activation=require_activation(path, activation)).about
    return Model(path, about, values, recorded)


def require_same(recorded: Union[recipes.Recipe, About], path: Path, **asked) -> None:
    """Raise UserError if a requested value (field=value, None for any) differs from the one recorded beside a checkpoint."""
    for name, value in asked.items():
        found = getattr(recorded, name)
        if value is None or value == found:
            continue
        if name == "architecture":
            raise UserError(f"{path}: belongs to another network, with {found.difference(value)}: name its table with --network, "
                            "or another file or folder")
        raise UserError(f"{path}: its {name} is {found}, not {value}: ask for no other, or name another file or folder")


def require_activation(path: Path, activation: Optional[str]) -> str:
    """The requested activation. Raises UserError if it is None, as a checkpoint without card or recipe needs it."""
    if activation is None:
        raise UserError(f"{path}: no card or recipe beside it says with which activations it was trained: add "
                        "--activation binary ({0, 1}) or --activation three-level ({0, 0.5, 1}, as in the published "
                        "code)")
    return activation
