"""The file of an exported spiking network: an npz of plain arrays. No framework is imported here.

Version 1 holds, with NHWC maps and HWIO kernels:

    meta                 JSON text: format, version, variant, sha256 of the arrays, source (checkpoint, its digest and
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
import zipfile
from collections import OrderedDict

import numpy as np

from twba_nets import architecture as arch
from twba_nets.arrays import check_affine, check_finite, open_npz
from twba_nets.errors import UserError
from twba_nets.files import write_npz
from twba_nets.npz import LARGEST_PIXEL
from twba_nets.recipe import RECIPES

FORMAT, VERSION = "twba-spiking-network", 1
MAKE_ANEW = "make it anew with python -m twba_tensorflow.export"
LONGEST_META = 1 << 20  # characters, hundreds of times what there is to say


def array_types(stages=arch.STAGES):
    """The arrays, name -> (dtype, shape), in the order of the network."""
    types = OrderedDict()

    def off_chip(name, shape):
        types[f"{name}/kernel"] = (np.float32, shape)
        types[f"{name}/scale"] = types[f"{name}/offset"] = (np.float32, shape[-1:])

    for stage in stages:
        if stage.quantised:
            types[f"{stage.conv}/weights"] = (np.int8, stage.kernel_shape[:3] + (stage.output_channels,))
            types[f"{stage.conv}/thresholds"] = (np.int16, (stage.output_channels,))
        else:
            off_chip(stage.conv, stage.kernel_shape)
    off_chip(arch.OUTPUT, (arch.features(stages), arch.CLASSES))
    return types


def save(path, arrays, variant, source):
    """Write a network. arrays: as array_types() has them. source: a JSON object that says where they come from."""
    arrays = OrderedDict((name, arrays[name]) for name in array_types())
    meta = {"format": FORMAT, "version": VERSION, "variant": variant, "sha256": _digest(arrays), "source": source}
    write_npz(path, dict(arrays, meta=np.array(json.dumps(dict(meta, meta_sha256=_meta_digest(meta))))))


def load(path):
    """(arrays, meta) of a network.

    Raises UserError if the file is missing, damaged, altered or of another version, or if its arrays are no network's.
    """
    if not path.is_file():  # to open a pipe would wait for ever
        raise UserError("%s: no such file: %s" % (path, MAKE_ANEW))
    if not zipfile.is_zipfile(str(path)):
        raise UserError("%s: truncated or no npz file: %s" % (path, MAKE_ANEW))
    with open_npz(path, MAKE_ANEW) as archive:
        meta = _read_meta(archive)
        _check_version(path, meta)
        arrays = OrderedDict((name, _read_array(path, archive, name, *kind)) for name, kind in array_types().items())
    if _digest(arrays) != meta.get("sha256") or meta.get("meta_sha256", _meta_digest(meta)) != _meta_digest(meta):
        raise UserError("%s: was altered (its digest is not the recorded one): %s" % (path, MAKE_ANEW))
    _check_meta(path, meta)
    check_network(path, arrays, meta["variant"])
    return arrays, meta


def check_network(path, arrays, variant):
    """Raise UserError if the arrays' values are not those of the file's description; then readers may differ."""
    try:
        for name, array in arrays.items():
            check_finite(name, array)
        for stage in arch.HIDDEN_STAGES:
            _check_stage(stage.conv, arrays[stage.conv + "/weights"], arrays[stage.conv + "/thresholds"], variant)
        inputs = np.full(arch.CHANNELS, LARGEST_PIXEL)
        for name in (arch.RELU_STAGE.conv, arch.SPIKE_STAGE.conv):
            inputs = check_affine(name, *_affine(arrays, name), inputs)
        check_affine(arch.OUTPUT, *_affine(arrays, arch.OUTPUT), np.ones(len(arrays[arch.OUTPUT + "/kernel"])))
    except ValueError as error:
        raise UserError("%s: %s: %s" % (path, error, MAKE_ANEW))


def _affine(arrays, name):
    return [arrays["%s/%s" % (name, part)] for part in ("kernel", "scale", "offset")]


def _check_stage(name, weights, thresholds, variant):
    allowed = (-1, 0, 1) if variant == "twba" else (-1, 1)
    if not np.isin(weights, allowed).all():
        raise ValueError("%s/weights holds others than %s's, %s" % (name, variant, allowed))
    lowest, highest = -(weights < 0).sum((0, 1, 2)), (weights > 0).sum((0, 1, 2))
    if not ((lowest <= thresholds) & (thresholds <= highest + 1)).all():
        raise ValueError("%s/thresholds holds some beyond the sums that its neurons can receive" % name)


def _read_meta(archive):
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


def _check_version(path, meta):
    if meta.get("format") != FORMAT:
        raise UserError("%s: is no exported spiking network: %s" % (path, MAKE_ANEW))
    if meta.get("version") != VERSION or isinstance(meta["version"], bool):
        raise UserError("%s: has version %s of the format, and this program reads %d: %s"
                        % (path, meta.get("version"), VERSION, MAKE_ANEW))


def _check_meta(path, meta):
    """What reports and exports to other formats rely on."""
    if meta.get("variant") not in arch.VARIANTS:
        raise UserError("%s: its variant, %r, is none of %s: %s"
                        % (path, meta.get("variant"), ", ".join(arch.VARIANTS), MAKE_ANEW))
    try:
        card = meta["source"].get("card")
        known = card is None or card["recipe"]["dataset"] in RECIPES
    except (AttributeError, KeyError, TypeError):
        known = False
    if not known:
        raise UserError("%s: its source does not say what it was trained on, as a card does: %s" % (path, MAKE_ANEW))


def _read_array(path, archive, name, dtype, shape):
    if name not in archive.names or archive.type(name) != (np.dtype(dtype), shape):
        raise UserError("%s: %s is not there, or not %s %s: %s" % (path, name, np.dtype(dtype), shape, MAKE_ANEW))
    return archive.read(name)


def _digest(arrays):
    digest = hashlib.sha256()
    for name in array_types():
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(arrays[name]).tobytes())
    return digest.hexdigest()


def _meta_digest(meta):
    rest = {key: value for key, value in meta.items() if key != "meta_sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()
