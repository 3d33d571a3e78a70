"""A run's checkpoints: saved whole or not at all, found, checked and restored.

A run's folder holds the newest two checkpoints, `model_cifar10_advanced.ckpt-EPOCH` (all 596 variables:
the model's, latent weights included, and Adam's), the file `checkpoint` that names the newest, and
`model.npz` (the model as it is evaluated: quantised weights as int8, batch norm and float layers as
float32, one plain array a variable). EPOCH counts the finished epochs. The published code's own
checkpoints have no such ending: they hold no epoch.
"""
import contextlib
import itertools
import os
import re
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import tensorflow as tf

from twba_nets.architecture import is_quantised, variable_shapes
from twba_nets.errors import UserError
from twba_nets.files import atomic_write
from twba_nets.network import model_variables

CHECKPOINT_NAME = "model_cifar10_advanced.ckpt"
NPZ_NAME = "model.npz"
KEPT = 2  # a kill between the removal of one and the naming of the next leaves the other


def save(session, saver, folder, epoch, all_params):
    """Save after `epoch` finished epochs. Raises UserError, the checkpoint before intact, if that fails."""
    name = "%s-%d" % (CHECKPOINT_NAME, epoch)
    before = newest(folder)
    try:
        saver.save(session, str(folder / CHECKPOINT_NAME), epoch, write_state=False, write_meta_graph=False)
        save_npz(session, folder / NPZ_NAME, all_params)
        # the switch: TensorFlow renames a complete file into place; names without a folder, so that it can move
        tf.train.update_checkpoint_state(str(folder.resolve()), name)
    except (tf.errors.OpError, OSError, UserError) as error:
        _remove(folder, [name])
        remedy = "%s is intact: make room and go on with --resume" % before if before else "make room and begin again"
        raise UserError("%s: could not be saved (%s); %s" % (folder / name, _first_line(error), remedy))
    past = sorted((prefix for prefix in _prefixes(folder) if (epoch_of(prefix) or epoch) < epoch), key=epoch_of)
    _remove(folder, [prefix.name for prefix in past[:-(KEPT - 1)]])


def save_npz(session, path, all_params):
    """Write the network's all_params under their variables' names, quantised weights as int8."""
    arrays = OrderedDict(
        (name, value.astype(np.int8) if is_quantised(name) else value)
        for name, value in zip(variable_shapes(), session.run(all_params)))
    with atomic_write(path) as file:
        np.savez_compressed(file, **arrays)


def newest(folder):
    """The newest checkpoint's prefix in a run's folder (or in the original's), or None."""
    try:
        state = tf.train.get_checkpoint_state(str(folder))
    except Exception as error:
        raise UserError("%s: unreadable (%s): name a checkpoint yourself" % (folder / "checkpoint", error))
    # the name alone: the original wrote paths of its own machine
    name = os.path.basename(state.model_checkpoint_path) if state else CHECKPOINT_NAME
    prefix = folder / name
    if state is None and not _index(prefix).exists():
        return None
    return prefix


def epoch_of(prefix):
    """The number of finished epochs in a checkpoint's name; None for one of the original's."""
    match = re.search(r"\.ckpt-(\d+)$", str(prefix))
    return int(match.group(1)) if match else None


def restore(session, saver, prefix):
    """Restore everything, Adam's slots included, to go on training. Raises UserError if anything does not fit."""
    if prefix.suffix == ".npz":
        raise UserError("%s: holds quantised weights only: it can be evaluated; to go on training name a TensorFlow "
                        "checkpoint" % prefix)
    _check_shapes(prefix, _reader(prefix).get_variable_to_shape_map(),
                  {variable.op.name: tuple(variable.shape.as_list()) for variable in tf.global_variables()})
    with _readable(prefix):
        saver.restore(session, str(prefix))


def read(source, allow_pickle=False):
    """The 270 model variables, name -> array, of a TensorFlow checkpoint, a run's folder or an npz.

    allow_pickle: also read the original's model.npz, a pickled list. Loading a pickle can run any code.
    Raises UserError if the file is missing, damaged or of another network.
    """
    path = locate(source)
    if path.suffix == ".npz":
        values = _read_npz(path, allow_pickle)
        shapes = {name: value.shape for name, value in values.items()}
        _check_shapes(path, shapes, variable_shapes())
        return values
    reader = _reader(path)
    _check_shapes(path, reader.get_variable_to_shape_map(), variable_shapes())
    with _readable(path):
        return OrderedDict((name, reader.get_tensor(name)) for name in variable_shapes())


def locate(source):
    """The npz or the checkpoint's prefix that `source` names: itself, or the newest in a folder."""
    path = Path(str(source)[:-len(".index")] if str(source).endswith(".index") else source)
    if path.is_dir():
        prefix = newest(path) or (path / NPZ_NAME)
        if prefix.suffix == ".npz" and not prefix.exists():
            raise UserError("%s: no checkpoint in this folder: name another with --checkpoint" % path)
        return prefix
    if not path.exists() and not _index(path).exists():
        raise UserError("%s: no such checkpoint: name a run's folder, a TensorFlow checkpoint or an npz" % path)
    return path


def assign(session, values):
    """Give the default graph's model variables these values (name -> array)."""
    variables = model_variables()
    session.run([variable.initializer for variable in variables.values()],
                {variable.initializer.inputs[1]: values[name] for name, variable in variables.items()})


def check_variant(values, variant, source):
    """Raise UserError if quantised weights are those of the other variant; latent weights do not tell."""
    weights = np.concatenate([value.ravel() for name, value in values.items() if is_quantised(name)])
    if not np.isin(weights, (-1, 0, 1)).all():
        return
    found = "twba" if (weights == 0).any() else "bwba"
    if found != variant:
        raise UserError("%s: its weights are %s, so it is a %s checkpoint, not %s: use the script of %s/"
                        % (source, "ternary" if found == "twba" else "binary", found, variant, found.upper()))


def _index(prefix):
    return prefix.with_name(prefix.name + ".index")


def _prefixes(folder):
    return [path.with_name(path.name[:-len(".index")]) for path in folder.glob(CHECKPOINT_NAME + "*.index")]


def _remove(folder, names):
    """Remove these checkpoints, and the temporary files that interrupted saves left."""
    patterns = [name + ".*" for name in names] + [CHECKPOINT_NAME + "*.tempstate*"]
    for path in itertools.chain.from_iterable(folder.glob(pattern) for pattern in patterns):
        with contextlib.suppress(OSError):
            path.unlink()


def _reader(prefix):
    if not _index(prefix).exists():
        raise UserError("%s: not there: name another checkpoint" % _index(prefix))
    with _readable(prefix):
        return tf.train.NewCheckpointReader(str(prefix))


@contextlib.contextmanager
def _readable(prefix):
    """Turn TensorFlow's errors on a damaged checkpoint into a UserError that names what else is there."""
    try:
        yield
    except (tf.errors.OpError, RuntimeError) as error:
        others = sorted((other for other in _prefixes(prefix.parent) if other != prefix),
                        key=lambda other: epoch_of(other) or 0)
        remedy = "go on from %s instead" % others[-1] if others else "use a copy of it"
        raise UserError("%s: damaged or truncated (%s): %s" % (prefix, _first_line(error), remedy))


def _first_line(error):
    return (getattr(error, "message", None) or str(error)).splitlines()[0]


def _check_shapes(path, found, expected):
    for name, shape in expected.items():
        if name not in found:
            raise UserError("%s: lacks %s (and holds %d arrays): it is not a checkpoint of this network, or not one "
                            "to go on training from" % (path, name, len(found)))
        if tuple(found[name]) != tuple(shape):
            raise UserError("%s: %s has shape %s, not %s: it is a checkpoint of another network"
                            % (path, name, tuple(found[name]), tuple(shape)))


def _read_npz(path, allow_pickle):
    if not zipfile.is_zipfile(str(path)):
        raise UserError("%s: damaged or no npz file: use a copy of it" % path)
    try:
        with np.load(str(path), allow_pickle=allow_pickle) as archive:
            if archive.files == ["params"]:
                return OrderedDict(zip(variable_shapes(), archive["params"]))
            return OrderedDict((name, archive[name]) for name in variable_shapes() if name in archive.files)
    except Exception as error:  # a damaged archive can raise anything
        if "allow_pickle=False" in str(error):
            raise UserError("%s: is pickled, as the original's model.npz is, and loading a pickle can run any code: "
                            "if you trust it, add --allow-pickle" % path)
        raise UserError("%s: damaged (%s): use a copy of it" % (path, error))
