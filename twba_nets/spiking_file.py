"""The file of an exported spiking network: an npz of plain arrays. No framework is imported here.

Version 1 holds, with NHWC maps and HWIO kernels:

    meta                 JSON text: format, version, variant, sha256 of the arrays, source (checkpoint, its digest and
                         card, the exporting commit)
    cnn00/kernel         float32 [3, 3, 3, 32], off chip: x -> relu(conv(x) * scale + offset)
    cnn0/kernel          float32 [3, 3, 32, 64], off chip: a spike where conv(x) * scale + offset >= 0
    cnnS/weights         int8 [k, k, channels / groups, groups * filters] in {-1, 0, 1}, S in 1, 2, 4, 6, 7, 8, 10, 11
    cnnS/thresholds      int16 [groups * filters]: a neuron spikes where the sum of its spiking inputs' weights is at
                         least its threshold
    output/kernel        float32 [512, 10], off chip: logits = spikes @ kernel * scale + offset
    cnn00, cnn0, output  also /scale and /offset, float32 [filters]: batch norm

Group i (from 0) of a stage owns the filters i * filters ... (i + 1) * filters - 1 and reads the input channels i,
i + groups, i + 2 groups, ... (architecture.py has groups, strides and padding). A threshold that no reachable sum
attains makes a neuron that never fires; the lowest reachable sum, one that always does.
"""
import hashlib
import json
import zipfile
from collections import OrderedDict

import numpy as np

from twba_nets import architecture as arch
from twba_nets.errors import UserError
from twba_nets.files import write_npz

FORMAT, VERSION = "twba-spiking-network", 1
MAKE_ANEW = "make it anew with python -m twba_nets.export"


def array_types():
    """The arrays, name -> (dtype, shape), in the order of the network."""
    types, channels = OrderedDict(), arch.CHANNELS

    def off_chip(name, shape):
        types[name + "/kernel"] = (np.float32, shape)
        types[name + "/scale"] = types[name + "/offset"] = (np.float32, shape[-1:])

    for stage in (arch.RELU_STAGE, arch.SPIKE_STAGE):
        off_chip(stage.conv, (stage.kernel, stage.kernel, channels, stage.filters))
        channels = stage.filters
    for stage in arch.HIDDEN_STAGES:
        filters = stage.groups * stage.filters
        types[stage.conv + "/weights"] = (np.int8, (stage.kernel, stage.kernel, channels // stage.groups, filters))
        types[stage.conv + "/thresholds"] = (np.int16, (filters,))
        channels = filters
    off_chip(arch.OUTPUT, (channels, arch.CLASSES))
    return types


def save(path, arrays, variant, source):
    """Write a network. arrays: as array_types() has them. source: a JSON value that says where they come from."""
    arrays = OrderedDict((name, arrays[name]) for name in array_types())
    meta = {"format": FORMAT, "version": VERSION, "variant": variant, "sha256": _digest(arrays), "source": source}
    write_npz(path, dict(arrays, meta=np.array(json.dumps(meta))))


def load(path):
    """(arrays, meta) of a network. Raises UserError if the file is missing, damaged, altered or of another version."""
    if not path.exists():
        raise UserError("%s: no such file: %s" % (path, MAKE_ANEW))
    arrays, meta = _read(path)
    if meta.get("format") != FORMAT:
        raise UserError("%s: is no exported spiking network: %s" % (path, MAKE_ANEW))
    if meta.get("version") != VERSION:
        raise UserError("%s: has version %s of the format, and this program reads %d: %s"
                        % (path, meta.get("version"), VERSION, MAKE_ANEW))
    for name, (dtype, shape) in array_types().items():
        if name not in arrays or arrays[name].dtype != dtype or arrays[name].shape != shape:
            raise UserError("%s: %s is not there, or not %s %s: %s" % (path, name, np.dtype(dtype), shape, MAKE_ANEW))
    if _digest(arrays) != meta.get("sha256"):
        raise UserError("%s: was altered (its digest is not the recorded one): %s" % (path, MAKE_ANEW))
    return arrays, meta


def _read(path):
    if not zipfile.is_zipfile(str(path)):
        raise UserError("%s: truncated or no npz file: %s" % (path, MAKE_ANEW))
    try:
        with np.load(str(path), allow_pickle=False) as archive:
            meta = json.loads(str(archive["meta"])) if "meta" in archive.files else {}
            return OrderedDict((name, archive[name]) for name in array_types() if name in archive.files), meta
    except Exception as error:  # a damaged archive can raise anything
        raise UserError("%s: damaged (%s): %s" % (path, error, MAKE_ANEW))


def _digest(arrays):
    digest = hashlib.sha256()
    for name in array_types():
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(arrays[name]).tobytes())
    return digest.hexdigest()
