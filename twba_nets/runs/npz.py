"""The project's two npz files, which every framework reads.

model.npz: the model for evaluation, the original's `all_params`: quantised weights as int8, batch norm and float
layers as float32, one plain array per variable (270 in the paper's network). training.npz: all variables of a training run
(latent weights, batch norm, Adam's; 596 in the paper's network) and `epoch`, the number of finished epochs.
"""
import contextlib
from pathlib import Path
from typing import Dict, Iterator, Tuple

import numpy as np

from twba_nets.network import architecture as arch, quantisers
from twba_nets.network.architecture import Architecture, Shape, is_quantised
from twba_nets.system.arrays import Npz, check_affine, check_finite, open_npz, read_npz
from twba_nets.system.errors import UserError, reads
from twba_nets.system.files import Source, path_of, sha256, write_npz

REMEDY = "use a copy of it"


def save_model(path: Path, values: Dict[str, np.ndarray], architecture: Architecture) -> str:
    """Write the evaluated variables, name -> array; quantised weights become int8. Returns the file's sha256.

    Raises UserError if the file cannot be written.
    """
    return sha256(write_npz(path, {name: values[name].astype(np.int8) if is_quantised(name) else values[name]
                                   for name in architecture.variable_shapes}))


@reads
def read_model(source: Source, architecture: Architecture, allow_pickle: bool = False) -> Dict[str, np.ndarray]:
    """The model's variables, name -> array, of a model.npz, a training.npz or the original's pickled model.npz.

    Floating values are float32. allow_pickle: also read the original's; loading a pickle can run any code.
    Raises UserError if the file is damaged, of another network or holds invalid values (check_numbers).
    """
    path = path_of(source)
    with opened(source) as archive:
        if archive.names == ["params"]:
            values = _read_original(path, archive, architecture, allow_pickle)
        else:
            values = _read(path, archive, architecture.variable_shapes)
    check_values(path, values, architecture)
    return {name: value.astype(np.float32) if value.dtype.kind == "f" else value for name, value in values.items()}


def save_training(path: Path, values: Dict[str, np.ndarray], epoch: int) -> None:
    """Write all variables of a training run, name -> array, and the number of finished epochs. Raises UserError."""
    write_npz(path, dict(values, epoch=np.array(epoch, np.int64)), np.savez)


@reads
def read_training(source: Source, architecture: Architecture) -> Dict[str, np.ndarray]:
    """All variables, name -> array, of a training.npz. Raises UserError if it is not one, or as read_model."""
    path, source = path_of(source), read_npz(source, REMEDY)
    read_epoch(source)  # a model.npz has none
    with opened(source) as archive:
        values = _read(path, archive, architecture.training_variable_shapes)
    check_values(path, values, architecture)
    return values


@reads
def read_latent(path: Path, architecture: Architecture) -> Tuple[Dict[str, np.ndarray], str]:
    """The model's variables to start training from, name -> float array, and the file's sha256.

    They are a training.npz's latent variables. A model.npz has none: its quantised weights take their place (quantisers.latent).
    Raises UserError as read_training and read_model do.
    """
    content = read_npz(path, REMEDY)
    with opened(content) as archive:
        read = read_training if "epoch" in archive.names else read_model
    values = {name: value.astype(np.result_type(value, np.float32))  # int8 to float; float64 stays
              for name, value in read(content, architecture).items() if name in architecture.variable_shapes}
    return {name: quantisers.latent(value) if is_quantised(name) else value for name, value in values.items()}, sha256(content)


@reads
def read_epoch(source: Source) -> int:
    """The number of finished epochs in a training.npz. Raises UserError if it is not one, or damaged."""
    path = path_of(source)
    with opened(source) as archive:
        if "epoch" not in archive.names:
            raise UserError(f"{path}: holds quantised weights only, for evaluation: to continue training, name a "
                            "checkpoint of a training run")
        dtype, shape = archive.type("epoch")
        if dtype.kind not in "iu" or shape != ():
            raise ValueError("epoch is not a whole number")
        epoch = int(archive.read("epoch"))
    if epoch < 0:
        raise UserError(f"{path}: its epoch is {epoch}: {REMEDY}")
    return epoch


def check_types(source: Path, found: Dict[str, Tuple[np.dtype, Shape]], shapes: Dict[str, Shape]) -> None:
    """Raise UserError unless there are variables of these shapes (name -> shape) with numeric dtypes.

    found: name -> (dtype, shape). Dtypes are floating; quantised weights may also be integers.
    """
    for name, shape in shapes.items():
        if name not in found:
            raise UserError(f"{source}: lacks {name} (and holds {len(found)} arrays): it is not a checkpoint of this network, "
                            "or not one for training: name another")
        dtype, found_shape = found[name]
        if tuple(found_shape) != tuple(shape):
            raise UserError(f"{source}: {name} has shape {tuple(found_shape)}, not {tuple(shape)}: it is a checkpoint of "
                            "another network: name another")
        if dtype.kind not in ("fi" if is_quantised(name) else "f") or dtype.itemsize > 8 or not dtype.isnative:
            raise UserError(f"{source}: {name} has type {dtype}, not float32: it is not a checkpoint of this network: name "
                            "another")


def check_values(source: Path, values: Dict[str, np.ndarray], architecture: Architecture) -> None:
    """Raise UserError if a variable (name -> array) holds invalid values (check_numbers)."""
    try:
        check_numbers(values, architecture)
    except ValueError as error:
        raise UserError(f"{source}: {error}: it is damaged, or its training diverged: use another checkpoint")


def check_numbers(values: Dict[str, np.ndarray], architecture: Architecture) -> None:
    """Raise ValueError if a variable (name -> array) holds values that no training gives.

    These are values that are not finite in float32, negative variances and second moments, powers of Adam's betas outside
    [0, 1), and values so large that a sum overflows.
    """
    for name, value in values.items():
        check_finite(name, value)
        if name.endswith(("/moving_variance", "/" + arch.ADAM_SLOTS[1])) and (value < 0).any():
            raise ValueError(f"{name} holds negative values, but is a mean of squares")
        if name.endswith("_power") and not 0 <= value < 1:
            raise ValueError(f"{name} is {float(value):g}, not between 0 and 1")
    _check_sums(values, architecture)


def _check_sums(values: Dict[str, np.ndarray], architecture: Architecture) -> None:
    inputs = architecture.largest_inputs
    for stage in architecture.stages:
        for (conv, _), (kernel, bn) in zip(stage.group_names, stage.variable_names):
            if stage.quantised:
                # quantised weights are at most 1; the ternary threshold comes from the sum over all filters
                weights = np.maximum(np.abs(values[kernel].astype(np.float64)), 1)
                _check_layer(values, conv, weights, bn, np.full(weights.shape[2], stage.filters))
            else:
                inputs = _check_layer(values, conv, values[kernel], bn, inputs)
    dense = values[f"model/{arch.OUTPUT}/W"]
    _check_layer(values, arch.OUTPUT, dense, f"model/{arch.OUTPUT_BN}", np.ones(len(dense)))


def _check_layer(values: Dict[str, np.ndarray], name: str, kernel: np.ndarray, bn: str, inputs: np.ndarray) -> np.ndarray:
    """Bounds on the absolute outputs of a layer with its batch norm (bn: the scope), from the inputs' (arrays.check_affine)."""
    beta, gamma, mean, variance = (values[f"{bn}/{part}"].astype(np.float64)
                                   for part in ("beta", "gamma", "moving_mean", "moving_variance"))
    scale = gamma / np.sqrt(variance + arch.BN_EPSILON)
    return check_affine(name, kernel, scale, np.abs(beta) + np.abs(mean * scale), inputs)


def check_variant(values: Dict[str, np.ndarray], variant: str, source: Path, recorded: bool = False) -> None:
    """Raise UserError if quantised weights belong to the other variant, or to none. Latent weights fit both.

    recorded: whether a card or recipe says the variant. Then ternary weights may lack a 0, as in a very small network.
    """
    weights = {name: value for name, value in values.items() if is_quantised(name)}
    quantised = [np.isin(value, (-1, 0, 1)) for value in weights.values()]
    latent = all(value.dtype.kind == "f" for value in weights.values())
    if latent and sum(allowed.sum() for allowed in quantised) < sum(allowed.size for allowed in quantised) / 2:
        return
    for name, allowed in zip(weights, quantised):
        if not allowed.all():
            raise UserError(f"{source}: {name} holds weights other than -1, 0 and 1: it is damaged: {REMEDY}")
    zeros = [name for name, value in weights.items() if (value == 0).any()]
    found, kind = ("twba", f"ternary ({zeros[0]} holds 0)") if zeros else ("bwba", "binary")
    if found != variant and not (recorded and not zeros):
        raise UserError(f"{source}: its weights are {kind}, so it is a {found} checkpoint, not {variant}: name that "
                        "variant, or another file")


@contextlib.contextmanager
def opened(source: Source) -> Iterator[Npz]:
    """An npz of a checkpoint or model. Raises UserError for an exported network, which has neither."""
    with open_npz(source, REMEDY) as archive:
        if "meta" in archive.names:  # twba_chip/spiking/file.py writes it
            raise UserError(f"{path_of(source)}: is an exported network, for twba_chip.load and twba-nets; its batch norm is "
                            "folded into thresholds: name the model that it was made of")
        yield archive


def _read(path: Path, archive: Npz, shapes: Dict[str, Shape]) -> Dict[str, np.ndarray]:
    check_types(path, {name: archive.type(name) for name in archive.names}, shapes)
    return {name: archive.read(name) for name in shapes}


def _read_original(path: Path, archive: Npz, architecture: Architecture, allow_pickle: bool) -> Dict[str, np.ndarray]:
    """The original's model.npz: one array of arrays, in graph order."""
    if archive.type("params")[0].hasobject and not allow_pickle:
        raise UserError(f"{path}: is pickled, like the original's model.npz; loading a pickle can run any code: if you "
                        "trust it, allow it (--allow-pickle, allow_pickle=True)")
    params, shapes = archive.read("params", allow_pickle), architecture.variable_shapes
    if len(params) != len(shapes):
        raise UserError(f"{path}: holds {len(params)} arrays, not {len(shapes)}: it is a checkpoint of another network: name "
                        "another")
    values = {name: np.asarray(value) for name, value in zip(shapes, params)}
    check_types(path, {name: (value.dtype, value.shape) for name, value in values.items()}, shapes)
    return values
