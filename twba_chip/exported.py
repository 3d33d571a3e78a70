"""An exported network, from whatever names one: a file that was exported, a model, a run, a released model's name.

No framework is imported here.
"""
from pathlib import Path
from types import ModuleType
from typing import NamedTuple, Tuple, Union

from twba_chip import folding, spiking_file
from twba_nets import card, places, run_folder
from twba_nets.arrays import Arrays, read_npz
from twba_nets.errors import UserError, reads
from twba_nets.model import Model, open_model


class Exported(NamedTuple):
    """arrays, meta: as spiking_file.load gives them."""
    arrays: Arrays
    meta: dict


@reads
def open_network(source: Union[str, Path]) -> Exported:
    """The network that `source` names: an exported file, else what model.open_model takes, with batch norm folded.

    Raises UserError if there is none, if it is damaged, or if its activations are not binary.
    """
    return fold(open_any(source))


def open_any(source: Union[str, Path]) -> Union[Exported, Model]:
    """The network of an exported file, else the model that `source` names, whatever its activations.

    Raises UserError if there is none, or if it is damaged.
    """
    path = run_folder.locate_npz(places.model(source))
    content = read_npz(path, "so it is no network: name another, use a copy of it, or make it anew")
    if spiking_file.is_exported(content):
        return Exported(*spiking_file.load(content))
    if not card.load_recipe(content):
        raise UserError(f"{path}: is no exported network, and neither card nor recipe beside it says what model it is: export "
                        "it (twba-nets export --variant ... --activation ...)")
    return open_model(content)


def fold(model: Union[Exported, Model]) -> Exported:
    """The exported network of what open_any gives. Raises UserError if its activations are not binary."""
    if isinstance(model, Exported):
        return model
    require_binary(model)
    arrays = folding.fold(model.values, model.recipe.variant)
    return Exported(arrays, describe(model, arrays))


def describe(model: Model, arrays: Arrays) -> dict:
    """The meta of the network that a model's arrays make. Raises UserError if their values are no network's."""
    spiking_file.check_network(model.path, arrays, model.recipe.variant)
    # without the digests of a release's files: this one cannot hold its own
    recorded = model.card and {key: value for key, value in model.card.items() if key != "files"}
    source = {"checkpoint": model.path.name, "dataset": model.recipe.dataset, "card": recorded, "commit": card.commit()}
    return spiking_file.describe(arrays, model.recipe.variant, source)


def require_binary(model: Model) -> None:
    """Raise UserError for a model of published activations."""
    if model.recipe.activation != "binary":
        raise UserError(f"{model.path}: its activations are {model.recipe.activation}, {{0, 0.5, 1}}, not binary: no spiking "
                        "network with one threshold a neuron computes them: name a binary one, as twba or bwba")


def about(network: Union[Exported, Model]) -> Tuple[str, str, str]:
    """(variant, activation, data set) of what open_any gives."""
    if isinstance(network, Exported):
        return network.meta["variant"], "binary", trained_on(network.meta)
    return network.recipe.variant, network.recipe.activation, network.recipe.dataset


def pytorch(model: Model) -> ModuleType:
    """twba_torch.evaluation, which runs models of published activations. Raises UserError where PyTorch is not installed."""
    try:
        from twba_torch import evaluation  # only now: PyTorch takes seconds to import, and most networks do without
    except ModuleNotFoundError as error:
        raise UserError(f"{model.path}: its activations are {model.recipe.activation}, {{0, 0.5, 1}}: PyTorch computes them, and "
                        f"{error.name} is not installed: {places.install('torch')}")
    return evaluation


def trained_on(meta: dict) -> str:
    """The data set that a network was trained on. Files of before name it in their card; without one they are CIFAR-10's."""
    source = meta["source"]
    recipe = (source.get("card") or {}).get("recipe", {})
    return source.get("dataset") or recipe.get("dataset", "cifar10")
