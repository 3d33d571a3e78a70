"""The file of an exported spiking network: an npz of plain arrays. No framework is imported here.

Version 1 holds, with NHWC maps and HWIO kernels:

    meta                 JSON text: format, version, variant, sha256 of the arrays, source (checkpoint, its data set and
                         card, the exporting commit), meta_sha256 of all these, which the first files did not have
    cnn00/kernel         float32 [3, 3, 3, 32], off chip: x -> relu(conv(x) * scale + offset)
    cnn0/kernel          float32 [3, 3, 32, 64], off chip: a spike where conv(x) * scale + offset >= 0
    cnnS/weights         int8 [k, k, channels / groups, groups * filters] in {-1, 0, 1}, or {-1, 1} where the variant
                         is bwba, S in 1, 2, 4, 6, 7, 8, 10, 11
    cnnS/thresholds      int16 [groups * filters]: a neuron spikes where the sum of its spiking inputs' weights is at
                         least its threshold
    output/kernel        float32 [512, 10], off chip: logits = spikes @ kernel * scale + offset
    cnn00, cnn0, output  also /scale and /offset, float32 [filters]: batch norm

Group i (from 0) of a stage owns the filters i * filters ... (i + 1) * filters - 1 and reads the input channels i,
i + groups, i + 2 groups, ... (architecture.py has groups, strides and padding). A threshold that no reachable sum
attains makes a neuron that never fires; the lowest reachable sum, one that always does. None is lower than that, or
more than one above the highest.
"""
import hashlib
import json
from pathlib import Path
from typing import Dict, List, Optional, Sequence, Tuple

import numpy as np

from twba_chip.synapses import reachable_sums
from twba_nets import architecture as arch
from twba_nets.architecture import STAGES, Stage
from twba_nets.arrays import Arrays, Npz, check_affine, check_finite, open_npz
from twba_nets.errors import UserError, reads
from twba_nets.files import Source, path_of, write_npz
from twba_nets.npz import LARGEST_PIXEL
from twba_nets.recipe import RECIPES

FORMAT, VERSION = "twba-spiking-network", 1
MAKE_ANEW = "make it anew with python -m twba_chip.export"
LONGEST_META = 1 << 20  # characters, hundreds of times what there is to say


def array_types(stages: Sequence[Stage] = STAGES, classes: Optional[int] = None) -> Dict[str, Tuple[type, tuple]]:
    """The arrays, name -> (dtype, shape), in the order of the network. classes: by default arch.CLASSES."""
    types = {}

    def off_chip(name, shape):
        types[f"{name}/kernel"] = (np.float32, shape)
        types[f"{name}/scale"] = types[f"{name}/offset"] = (np.float32, shape[-1:])

    for stage in stages:
        if stage.quantised:
            types[f"{stage.conv}/weights"] = (np.int8, stage.kernel_shape[:3] + (stage.output_channels,))
            types[f"{stage.conv}/thresholds"] = (np.int16, (stage.output_channels,))
        else:
            off_chip(stage.conv, stage.kernel_shape)
    off_chip(arch.OUTPUT, (arch.features(stages), classes or arch.CLASSES))
    return types


def save(path: Path, arrays: Arrays, variant: str, source: dict, stages: Sequence[Stage] = STAGES) -> None:
    """Write a network. arrays: as array_types() has them. source: a JSON object that says where they come from."""
    write(path, arrays, describe(arrays, variant, source, stages))


def describe(arrays: Arrays, variant: str, source: dict, stages: Sequence[Stage] = STAGES) -> dict:
    """The meta of a network."""
    digest = _digest({name: arrays[name] for name in array_types(stages)})
    meta = {"format": FORMAT, "version": VERSION, "variant": variant, "sha256": digest, "source": source}
    return dict(meta, meta_sha256=_meta_digest(meta))


def write(path: Path, arrays: Arrays, meta: dict) -> None:
    """Write a network with the meta that describe() makes of it."""
    write_npz(path, dict(arrays, meta=np.array(json.dumps(meta))))


def is_exported(source: Source) -> bool:
    """Whether this npz is an exported network, in whatever state. Raises UserError if it is damaged."""
    with open_npz(source, MAKE_ANEW) as archive:
        return "meta" in archive.names


@reads
def load(source: Source, stages: Sequence[Stage] = STAGES) -> Tuple[Arrays, dict]:
    """(arrays, meta) of a network.

    Raises UserError if the file is missing, damaged, altered or of another version, or if its arrays are no network's.
    """
    path = path_of(source)
    with open_npz(source, MAKE_ANEW) as archive:
        meta = _read_meta(archive)
        _check_version(path, meta)
        arrays = {name: _read_array(path, archive, name, *kind) for name, kind in array_types(stages).items()}
    if _digest(arrays) != meta.get("sha256") or meta.get("meta_sha256", _meta_digest(meta)) != _meta_digest(meta):
        raise UserError(f"{path}: was altered (its digest is not the recorded one): {MAKE_ANEW}")
    _check_meta(path, meta)
    check_network(path, arrays, meta["variant"], stages)
    return arrays, meta


def check_network(path: Path, arrays: Arrays, variant: str, stages: Sequence[Stage] = STAGES) -> None:
    """Raise UserError if the arrays' values are not those of the file's description; then readers may differ."""
    try:
        for name, array in arrays.items():
            check_finite(name, array)
        inputs = np.full(arch.CHANNELS, LARGEST_PIXEL)
        for stage in stages:
            if stage.quantised:
                _check_stage(stage.conv, arrays[f"{stage.conv}/weights"], arrays[f"{stage.conv}/thresholds"], variant)
            else:
                inputs = check_affine(stage.conv, *_affine(arrays, stage.conv), inputs)
        check_affine(arch.OUTPUT, *_affine(arrays, arch.OUTPUT), np.ones(arch.features(stages)))
    except ValueError as error:
        raise UserError(f"{path}: {error}: {MAKE_ANEW}")


def _affine(arrays: Arrays, name: str) -> List[np.ndarray]:
    return [arrays[f"{name}/{part}"] for part in ("kernel", "scale", "offset")]


def _check_stage(name: str, weights: np.ndarray, thresholds: np.ndarray, variant: str) -> None:
    allowed = (-1, 0, 1) if variant == "twba" else (-1, 1)
    if not np.isin(weights, allowed).all():
        raise ValueError(f"{name}/weights holds others than {variant}'s, {allowed}")
    lowest, highest = reachable_sums(weights)
    if not ((lowest <= thresholds) & (thresholds <= highest + 1)).all():
        raise ValueError(f"{name}/thresholds holds some beyond the sums that its neurons can receive")


def _read_meta(archive: Npz) -> dict:
    """The meta, and nothing where there is none: then the npz is another program's."""
    if "meta" not in archive.names:
        return {}
    dtype, shape = archive.type("meta")
    if dtype.kind != "U" or shape != () or dtype.itemsize > 4 * LONGEST_META:
        raise ValueError("meta is no text")
    meta = json.loads(str(archive.read("meta")))
    if not isinstance(meta, dict):
        raise ValueError("meta is no JSON object")
    return meta


def _check_version(path: Path, meta: dict) -> None:
    if meta.get("format") != FORMAT:
        raise UserError(f"{path}: is no exported spiking network: {MAKE_ANEW}")
    if meta.get("version") != VERSION or isinstance(meta["version"], bool):
        raise UserError(f"{path}: has version {meta.get('version')} of the format, and this program reads {VERSION}: "
                        f"{MAKE_ANEW}")


def _check_meta(path: Path, meta: dict) -> None:
    """What reports and exports to other formats rely on."""
    if meta.get("variant") not in arch.VARIANTS:
        raise UserError(f"{path}: its variant, {meta.get('variant')!r}, is none of {', '.join(arch.VARIANTS)}: {MAKE_ANEW}")
    try:
        card, dataset = meta["source"].get("card"), meta["source"].get("dataset")
        known = (card is None or card["recipe"]["dataset"] in RECIPES) and (dataset is None or dataset in RECIPES)
    except (AttributeError, KeyError, TypeError):
        known = False
    if not known:
        raise UserError(f"{path}: its source does not say what it was trained on, as a card does: {MAKE_ANEW}")


def _read_array(path: Path, archive: Npz, name: str, dtype: type, shape: tuple) -> np.ndarray:
    if name not in archive.names or archive.type(name) != (np.dtype(dtype), shape):
        raise UserError(f"{path}: {name} is not there, or not {np.dtype(dtype)} {shape}: {MAKE_ANEW}")
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
