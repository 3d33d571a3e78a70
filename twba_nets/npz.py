"""The project's two npz files, which every framework reads. No framework is imported here.

model.npz: the model as it is evaluated, the original's `all_params`: quantised weights as int8, batch norm and float
layers as float32, one plain array a variable. training.npz: all 596 variables of a training run (latent weights, batch
norm, Adam's) and `epoch`, the number of finished epochs.
"""
import zipfile
from collections import OrderedDict

import numpy as np

from twba_nets.architecture import is_quantised, training_variable_shapes, variable_shapes
from twba_nets.errors import UserError
from twba_nets.files import write_npz

MODEL_NAME = "model.npz"
TRAINING_NAME = "training.npz"


def save_model(path, values):
    """Write the 270 evaluated variables, name -> array; quantised weights become int8."""
    arrays = OrderedDict((name, values[name].astype(np.int8) if is_quantised(name) else values[name])
                         for name in variable_shapes())
    write_npz(path, arrays)


def read_model(path, allow_pickle=False):
    """The 270 model variables, name -> array, of a model.npz, a training.npz or the original's pickled model.npz.

    allow_pickle: read the original's, too. Loading a pickle can run any code.
    Raises UserError if the file is damaged or of another network.
    """
    values = _read(path, variable_shapes(), allow_pickle)
    check_shapes(path, {name: value.shape for name, value in values.items()}, variable_shapes())
    return values


def save_training(path, values, epoch):
    """Write all 596 variables and the number of finished epochs."""
    write_npz(path, dict(values, epoch=np.int64(epoch)), np.savez)


def read_training(path):
    """The 596 variables, name -> array, of a training.npz. Raises UserError if it is no such file, or damaged."""
    read_epoch(path)  # without one it is a model.npz
    values = _read(path, training_variable_shapes(), allow_pickle=False)
    check_shapes(path, {name: value.shape for name, value in values.items()}, training_variable_shapes())
    return values


def read_epoch(path):
    """The number of finished epochs in a training.npz. Raises UserError if it is no such file, or damaged."""
    values = _read(path, ["epoch"], allow_pickle=False)
    if "epoch" not in values:
        raise UserError("%s: holds quantised weights only: it can be evaluated; to go on training name a checkpoint of "
                        "a training run" % path)
    return int(values["epoch"])


def check_shapes(path, found, expected):
    """Raise UserError unless `found` (name -> shape) holds all of `expected`."""
    for name, shape in expected.items():
        if name not in found:
            raise UserError("%s: lacks %s (and holds %d arrays): it is not a checkpoint of this network, or not one "
                            "to go on training from" % (path, name, len(found)))
        if tuple(found[name]) != tuple(shape):
            raise UserError("%s: %s has shape %s, not %s: it is a checkpoint of another network"
                            % (path, name, tuple(found[name]), tuple(shape)))


def check_variant(values, variant, source):
    """Raise UserError if quantised weights are those of the other variant; latent weights do not tell."""
    weights = np.concatenate([value.ravel() for name, value in values.items() if is_quantised(name)])
    if not np.isin(weights, (-1, 0, 1)).all():
        return
    found = "twba" if (weights == 0).any() else "bwba"
    if found != variant:
        raise UserError("%s: its weights are %s, so it is a %s checkpoint, not %s: use the script of %s/"
                        % (source, "ternary" if found == "twba" else "binary", found, variant, found.upper()))


def _read(path, names, allow_pickle):
    if not zipfile.is_zipfile(str(path)):
        raise UserError("%s: damaged or no npz file: use a copy of it" % path)
    try:
        with np.load(str(path), allow_pickle=allow_pickle) as archive:
            if archive.files == ["params"]:
                return OrderedDict(zip(variable_shapes(), archive["params"]))
            return OrderedDict((name, archive[name]) for name in names if name in archive.files)
    except Exception as error:  # a damaged archive can raise anything
        if "allow_pickle=False" in str(error):
            raise UserError("%s: is pickled, as the original's model.npz is, and loading a pickle can run any code: "
                            "if you trust it, add --allow-pickle" % path)
        raise UserError("%s: damaged (%s): use a copy of it" % (path, error))
