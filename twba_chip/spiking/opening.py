"""Open a network by an exported file, a model, a run's folder or a released model's name."""
from pathlib import Path
from types import ModuleType
from typing import Union

from twba_chip.spiking import folding, file as spiking_file
from twba_chip.spiking.file import SpikingNetwork
from twba_nets import datasets
from twba_nets.network import quantisers
from twba_nets.runs import card, run_folder
from twba_nets.runs.about import About
from twba_nets.system import places
from twba_nets.system.arrays import Arrays, read_npz
from twba_nets.system.errors import UserError, named, reads
from twba_nets.runs.model import Model, open_model


@reads
def open_network(source: Union[str, Path]) -> SpikingNetwork:
    """The network that `source` names: an exported file, or a model for open_model, whose batch norm is folded.

    Raises UserError if it is missing or damaged, or if its activations are not binary.
    """
    return fold(open_any(source))


def open_any(source: Union[str, Path]) -> Union[SpikingNetwork, Model]:
    """The network in an exported file, or the model that `source` names, whatever its activations.

    Raises UserError if it is missing or damaged.
    """
    path = run_folder.locate_npz(places.model(source))
    content = read_npz(path, "so it is not a network: name another, use a copy of it, or make it again")
    if spiking_file.is_exported(content):
        return spiking_file.load(content)
    if not card.about_beside(path, card.read(content)):
        raise UserError(f"{path}: is not an exported network, and no card or recipe beside it says what model it is: export "
                        "it (twba-nets export --variant ... --activation ...)")
    return open_model(content)


def fold(model: Union[SpikingNetwork, Model]) -> SpikingNetwork:
    """The exported network of open_any's result. Raises UserError if its activations are not binary."""
    if isinstance(model, SpikingNetwork):
        return model
    require_binary(model)
    with named(model.path):
        arrays = folding.fold(model.values, model.about.variant, model.about.architecture)
    return describe(model, arrays)


def describe(model: Model, arrays: Arrays) -> SpikingNetwork:
    """A model's exported network. arrays: as in file.array_types(). Raises UserError if their values are invalid."""
    # without the digests of a release's files, because this file cannot contain its own
    recorded = model.card and {key: value for key, value in model.card.items() if key != "files"}
    about = model.about
    source = {"checkpoint": model.path.name, "dataset": about.data, "class_names": list(about.class_names), "card": recorded,
              "commit": card.commit()}
    network = spiking_file.describe(about.architecture, arrays, about.variant, source)
    spiking_file.check_network(model.path, network, "train on, or name another checkpoint")
    return network


def require_binary(model: Model) -> None:
    """Raise UserError for a model whose activations are not spikes."""
    if not quantisers.is_binary(model.about.activation):
        raise UserError(f"{model.path}: its activations are {model.about.activation}, {{0, 0.5, 1}}, not binary: a spiking "
                        "network with one threshold per neuron cannot compute them: name a binary one, such as twba or bwba")


def about(network: Union[SpikingNetwork, Model]) -> About:
    """The About of open_any's result. The first exports name the data set only in their card; without a card it is CIFAR-10."""
    if isinstance(network, Model):
        return network.about
    source, classes = network.meta["source"], network.architecture.classes
    if "dataset" in source:
        data = source["dataset"]
    else:
        data = source["card"]["recipe"]["dataset"] if source.get("card") else "cifar10"
    names = source.get("class_names") or datasets.NAMES.get(data) or ()
    return About(network.variant, "binary", network.architecture, data,
                 tuple(names) if len(names) == classes else tuple(map(str, range(classes))))


def pytorch(model: Model) -> ModuleType:
    """twba_torch.evaluation, which runs models with three-level activations. Raises UserError if PyTorch is not installed."""
    try:
        from twba_torch import evaluation  # here, because PyTorch takes seconds to import and most networks do not need it
    except ModuleNotFoundError as error:
        raise UserError(f"{model.path}: its activations are {model.about.activation}, {{0, 0.5, 1}}: PyTorch computes them, but "
                        f"{error.name} is not installed: {places.install('torch')}")
    return evaluation
