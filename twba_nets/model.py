"""Opening a trained model: where it is, what it is, its variables. No framework is imported here."""
import dataclasses
from pathlib import Path
from typing import Callable, Dict, NamedTuple, Optional, Union

import numpy as np

from twba_nets import card, npz, recipe as recipes, run_folder
from twba_nets.arrays import read_npz
from twba_nets.errors import UserError, reads
from twba_nets.files import Content, Source, path_of


class Model(NamedTuple):
    """A checkpoint that is open.

    path: of the checkpoint. recipe: how it was trained; where nothing beside the checkpoint says so, the paper's recipe
    with the variant and activation that were asked for. values: the 270 model variables, name -> array. card: the one beside
    it, which has its digest, or None.
    """
    path: Path
    recipe: recipes.Recipe
    values: Dict[str, np.ndarray]
    card: Optional[dict] = None


@reads
def open_model(source: Union[str, Source], variant: Optional[str] = None, activation: Optional[str] = None,
               allow_pickle: bool = False, read: Callable[..., Dict[str, np.ndarray]] = npz.read_model) -> Model:
    """Open the model that `source` names (run_folder.locate), or an npz whose content was read. An npz is read once.

    variant, activation: what it must be; needed where neither card nor recipe beside it says what it is.
    allow_pickle: also read the original's pickled model.npz. Loading a pickle can run any code.
    read: gives the variables of a (source, allow_pickle): npz.read_model of an npz, twba_tensorflow's checkpoint.read also
    of a TensorFlow checkpoint.
    Raises UserError if the model is missing, damaged or something else than asked for.
    """
    source = source if isinstance(source, Content) else run_folder.locate(source)
    path = path_of(source)
    if path.suffix == ".npz":
        source = read_npz(source, npz.REMEDY)
    recorded = card.read(source)
    recipe = card.recipe_beside(path, recorded)
    if recipe:
        require_same(recipe, path, variant=variant, activation=activation)
    elif not variant:
        raise UserError(f"{path}: neither card nor recipe beside it says what it is: add --variant twba or bwba, and "
                        "--activation")
    values = read(source, allow_pickle)
    npz.check_variant(values, variant or recipe.variant, path)
    if not recipe:
        require_activation(path, activation)
        recipe = dataclasses.replace(recipes.paper(variant), activation=activation)
    return Model(path, recipe, values, recorded)


def require_same(recipe: recipes.Recipe, path: Path, **asked) -> None:
    """Raise UserError if something else than None is asked for (field=value) that a checkpoint's recipe contradicts."""
    for name, value in asked.items():
        found = getattr(recipe, name)
        if value is not None and value != found:
            raise UserError(f"{path}: its {name} is {found}, not {value}: ask for {found}, or name another file or "
                            "folder")


def require_activation(path: Path, activation: Optional[str]) -> None:
    """Raise UserError unless the command line says what nothing beside a checkpoint does."""
    if activation is None:
        raise UserError(f"{path}: neither card nor recipe beside it says with which activations it was trained: add "
                        "--activation binary ({0, 1}) or --activation published ({0, 0.5, 1}, which the published code "
                        "computes)")
