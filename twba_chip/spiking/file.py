"""The file of an exported spiking network: an npz of plain arrays.

Version 1 holds, with NHWC maps and HWIO kernels:

    meta              JSON text: format, version, variant, architecture, sha256 of the arrays, source (checkpoint, its data
                      set and card, the exporting commit), meta_sha256 of all these. Earlier files have no architecture, which
                      means the paper's. The first ones have no meta_sha256
    CONV/kernel       float32 [k, k, channels, filters], of a float stage, off chip: x -> relu(conv(x) * scale + offset). The last
                      float stage spikes if conv(x) * scale + offset >= 0
    CONV/weights      int8 [k, k, channels / groups, groups * filters] in {-1, 0, 1}, or {-1, 1} for bwba, of a hidden stage
    CONV/thresholds   int16 [groups * filters]: a neuron spikes if the sum of its spiking inputs' weights is at least its
                      threshold
    output/kernel     float32 [features, classes], off chip: logits = spikes @ kernel * scale + offset; features are in the order
                      [row, column, channel]
    float, output     also /scale and /offset, float32 [filters]: batch norm

CONV is a convolution's name: in the paper's network cnn00 and cnn0 are float, the others hidden. Group i (from 0) of a stage
owns the filters i * filters ... (i + 1) * filters - 1 and reads the input channels i, i + groups, i + 2 groups, ... A neuron
whose threshold is above all reachable sums never fires. One whose threshold is the lowest reachable sum always fires. No
threshold is lower, or more than one above the highest reachable sum.
"""
import hashlib
import json
from pathlib import Path
from typing import Dict, NamedTuple, Tuple

import numpy as np

from twba_chip.spiking.synapses import reachable_sums
from twba_nets.datasets import NAMES
from twba_nets.network import architecture as arch
from twba_nets.network.architecture import PAPER, Architecture
from twba_nets.network.quantisers import WEIGHTS
from twba_nets.system.arrays import Arrays, Npz, check_affine, check_finite, open_npz
from twba_nets.system.errors import UserError, reads
from twba_nets.system.files import Source, path_of, write_npz

FORMAT, VERSION = "twba-spiking-network", 1
MAKE_ANEW = "export it again with python -m twba_chip.export"
LONGEST_META = 1 << 20  # characters; a real one is hundreds of times shorter


class SpikingNetwork(NamedTuple):
    """An exported network. arrays: name -> array, as in array_types(). meta: the file's JSON."""
    architecture: Architecture
    arrays: Arrays
    meta: dict

    @property
    def variant(self) -> str:
        """twba or bwba."""
        return self.meta["variant"]


def array_types(architecture: Architecture) -> Dict[str, Tuple[type, tuple]]:
    """The file's arrays, name -> (dtype, shape), in the order of the network."""
    types = {}

    def off_chip(name, shape):
        types[f"{name}/kernel"] = (np.float32, shape)
        types[f"{name}/scale"] = types[f"{name}/offset"] = (np.float32, shape[-1:])

    for stage in architecture.stages:
        if stage.quantised:
            types[f"{stage.conv}/weights"] = (np.int8, stage.kernel_shape[:3] + (stage.output_channels,))
            types[f"{stage.conv}/thresholds"] = (np.int16, (stage.output_channels,))
        else:
            off_chip(stage.conv, stage.kernel_shape)
    off_chip(arch.OUTPUT, (architecture.features, architecture.classes))
    return types


def describe(architecture: Architecture, arrays: Arrays, variant: str, source: dict) -> SpikingNetwork:
    """A network of these arrays (array_types()), with its meta. source: a JSON object on their origin."""
    digest = _digest({name: arrays[name] for name in array_types(architecture)})
    meta = {"format": FORMAT, "version": VERSION, "variant": variant, "architecture": architecture.to_json(), "sha256": digest,
            "source": source}
    return SpikingNetwork(architecture, arrays, dict(meta, meta_sha256=_meta_digest(meta)))


def write(path: Path, network: SpikingNetwork) -> None:
    """Write a network to an npz."""
    write_npz(path, dict(network.arrays, meta=np.array(json.dumps(network.meta))))


def is_exported(source: Source) -> bool:
    """Whether this npz has an exported network's meta, valid or not. Raises UserError if the npz is damaged."""
    with open_npz(source, MAKE_ANEW) as archive:
        return "meta" in archive.names


@reads
def load(source: Source) -> SpikingNetwork:
    """Read a network from a file.

    Raises UserError if the file is missing, damaged, altered or of another version, or if its arrays are not a valid network.
    """
    path = path_of(source)
    with open_npz(source, MAKE_ANEW) as archive:
        meta = _read_meta(archive)
        _check_version(path, meta)
        architecture = _read_architecture(path, meta)
        arrays = {name: _read_array(path, archive, name, *kind) for name, kind in array_types(architecture).items()}
    if _digest(arrays) != meta.get("sha256") or meta.get("meta_sha256", _meta_digest(meta)) != _meta_digest(meta):
        raise UserError(f"{path}: was altered (its digest differs from the recorded one): {MAKE_ANEW}")
    _check_meta(path, meta, architecture)
    network = SpikingNetwork(architecture, arrays, meta)
    check_network(path, network)
    return network


def check_network(path: Path, network: SpikingNetwork, remedy: str = MAKE_ANEW) -> None:
    """Raise UserError if the arrays' values violate the format above; readers may treat such a file differently."""
    architecture, arrays, inputs = network.architecture, network.arrays, network.architecture.largest_inputs
    try:
        for name, array in arrays.items():
            check_finite(name, array)
        for stage in architecture.stages:
            if stage.quantised:
                _check_stage(stage.conv, arrays[f"{stage.conv}/weights"], arrays[f"{stage.conv}/thresholds"], network.variant)
            else:
                inputs = check_affine(stage.conv, *affine(arrays, stage.conv), inputs)
        check_affine(arch.OUTPUT, *affine(arrays, arch.OUTPUT), np.ones(architecture.features))
    except ValueError as error:
        raise UserError(f"{path}: {error}: {remedy}")


def affine(arrays: Arrays, name: str) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Kernel, scale and offset of a float layer."""
    return arrays[f"{name}/kernel"], arrays[f"{name}/scale"], arrays[f"{name}/offset"]


def _check_stage(name: str, weights: np.ndarray, thresholds: np.ndarray, variant: str) -> None:
    allowed = WEIGHTS[variant].levels
    if not np.isin(weights, allowed).all():
        raise ValueError(f"{name}/weights holds values other than {variant}'s, {allowed}")
    lowest, highest = reachable_sums(weights)
    if not ((lowest <= thresholds) & (thresholds <= highest + 1)).all():
        raise ValueError(f"{name}/thresholds holds values beyond the sums that its neurons can receive")


def _read_meta(archive: Npz) -> dict:
    """The meta; empty if the npz has none, and so is another program's."""
    if "meta" not in archive.names:
        return {}
    dtype, shape = archive.type("meta")
    if dtype.kind != "U" or shape != () or dtype.itemsize > 4 * LONGEST_META:
        raise ValueError("meta is not text")
    meta = json.loads(str(archive.read("meta")))
    if not isinstance(meta, dict):
        raise ValueError("meta is not a JSON object")
    return meta


def _check_version(path: Path, meta: dict) -> None:
    if meta.get("format") != FORMAT:
        raise UserError(f"{path}: is not an exported spiking network: {MAKE_ANEW}")
    if meta.get("version") != VERSION or isinstance(meta["version"], bool):
        raise UserError(f"{path}: has version {meta.get('version')} of the format, but this program reads {VERSION}: "
                        f"{MAKE_ANEW}")


def _check_meta(path: Path, meta: dict, architecture: Architecture) -> None:
    """Raise UserError if the entries that reports and other exports rely on are invalid."""
    if meta.get("variant") not in tuple(WEIGHTS):  # also a list, which has no hash
        raise UserError(f"{path}: its variant, {meta.get('variant')!r}, is not one of {', '.join(WEIGHTS)}: {MAKE_ANEW}")
    try:
        source = meta["source"]
        card, names = source.get("card"), source.get("class_names", [])
        # the first files have no dataset; their card names it
        known = isinstance(source["dataset"], str) if "dataset" in source else card is None or card["recipe"]["dataset"] in NAMES
        known = known and isinstance(card, (dict, type(None))) and isinstance(names, list) and len(names) in (
            0, architecture.classes) and all(isinstance(name, str) for name in names)
    except (AttributeError, KeyError, TypeError):
        known = False
    if not known:
        raise UserError(f"{path}: its source does not name the data set that it was trained on: {MAKE_ANEW}")


def _read_architecture(path: Path, meta: dict) -> Architecture:
    """The file's architecture; the paper's for earlier files, which have none."""
    try:
        return arch.from_json(meta["architecture"]) if "architecture" in meta else PAPER
    except ValueError as error:
        raise UserError(f"{path}: its architecture is invalid ({error}): {MAKE_ANEW}")


def _read_array(path: Path, archive: Npz, name: str, dtype: type, shape: tuple) -> np.ndarray:
    if name not in archive.names or archive.type(name) != (np.dtype(dtype), shape):
        raise UserError(f"{path}: {name} is not there, or is not {np.dtype(dtype)} {shape}: {MAKE_ANEW}")
    return archive.read(name)


def _digest(arrays: Arrays) -> str:
    digest = hashlib.sha256()
    for name, array in arrays.items():
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _meta_digest(meta: dict) -> str:
    rest = {key: value for key, value in meta.items() if key != "meta_sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()
