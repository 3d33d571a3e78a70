"""A run's checkpoints: saved whole or not at all, found, checked and restored.

A run's folder holds the newest two checkpoints, `model_cifar10_advanced.ckpt-EPOCH` (all 596 variables:
the model's, latent weights included, and Adam's), the file `checkpoint` that names the newest, and
`model.npz` (the model as it is evaluated). EPOCH counts the finished epochs. The published code's own
checkpoints have no such ending: they hold no epoch. A run of PyTorch's has `training.npz` in place of
TensorFlow's checkpoints; both frameworks' runs go on from it (npz.py).
"""
import contextlib
import itertools
import os
import re
from collections import OrderedDict
from pathlib import Path

import numpy as np
import tensorflow as tf

from twba_nets import card, npz
from twba_nets.architecture import training_variable_shapes, variable_shapes
from twba_nets.errors import UserError

CHECKPOINT_NAME = "model_cifar10_advanced.ckpt"
STATE_NAME = "checkpoint"  # the file that names the newest
_PART = re.compile(r"\.(index|meta|data-\d{5}-of-\d{5})$")  # what TensorFlow's files have after a checkpoint's name
KEPT = 2  # a kill between the removal of one and the naming of the next leaves the other


def save(session, saver, folder, epoch, all_params):
    """Save after `epoch` finished epochs. Raises UserError, the checkpoint before intact, if that fails."""
    name = "%s-%d" % (CHECKPOINT_NAME, epoch)
    before = newest(folder)
    try:
        saver.save(session, str(folder / CHECKPOINT_NAME), epoch, write_state=False, write_meta_graph=False)
        card.remove(folder)
        npz.save_model(folder / npz.MODEL_NAME, OrderedDict(zip(variable_shapes(), session.run(all_params))))
        # the switch: TensorFlow renames a complete file into place; names without a folder, so that it can move
        tf.train.update_checkpoint_state(str(folder.resolve()), name)
    except (tf.errors.OpError, OSError, UserError) as error:
        if before != folder / name:
            _remove(folder, [name])
        remedy = "%s is intact: make room and go on with --resume" % before if before else "make room and begin again"
        raise UserError("%s: could not be saved (%s); %s" % (folder / name, _first_line(error), remedy))
    clear(folder, epoch)


def clear(folder, epoch):
    """Remove all but the newest checkpoints up to `epoch`, and what interrupted saves and removals left."""
    epochs = {epoch_of(_prefix(path)) for path in folder.glob(CHECKPOINT_NAME + "-*")} - {None}
    whole = sorted(epoch_of(prefix) or 0 for prefix in _prefixes(folder))
    kept = [number for number in whole if number <= epoch][-KEPT:]
    _remove(folder, ["%s-%d" % (CHECKPOINT_NAME, number) for number in epochs - set(kept) if number < epoch])


def newest(folder):
    """The newest checkpoint in a run's folder (or in the original's): a prefix, or training.npz; None if none."""
    training = folder / npz.TRAINING_NAME
    found = [path for path in (_newest_prefix(folder), training if training.exists() else None) if path]
    # both are there where one framework went on from the other's
    return max(found, key=lambda path: epoch_of(path) or 0, default=None)


def _newest_prefix(folder):
    path = folder / STATE_NAME
    try:
        state = tf.train.get_checkpoint_state(str(folder))
        if state is None and path.exists():
            raise ValueError("it is no text of TensorFlow's")
    except Exception as error:
        raise UserError("%s: unreadable (%s): name a checkpoint yourself" % (path, error))
    if state:  # the name alone: the original wrote paths of its own machine
        return folder / os.path.basename(state.model_checkpoint_path)
    whole = [prefix for prefix in _prefixes(folder) if prefix.with_name(prefix.name + ".data-00000-of-00001").exists()]
    return max(whole, key=lambda prefix: epoch_of(prefix) or 0, default=None)


def epoch_of(path):
    """The number of finished epochs: in a prefix's name, or in a training.npz; None for the original's."""
    if path.suffix == ".npz":
        return npz.read_epoch(path)
    match = re.search(r"\.ckpt-(\d+)$", path.name)
    return int(match.group(1)) if match else None


def restore(session, saver, path):
    """Restore everything, Adam's slots included, to go on training. Raises UserError if anything does not fit."""
    if path.suffix == ".npz":
        _assign(session, _global_variables(), npz.read_training(path))
        return
    _read_variables(path, {name: variable.shape.as_list() for name, variable in _global_variables().items()})
    with _readable(path):
        saver.restore(session, str(path))


def read(source, allow_pickle=False):
    """The 270 model variables, name -> array, of a TensorFlow checkpoint, a run's folder or an npz.

    allow_pickle: also read the original's model.npz, a pickled list. Loading a pickle can run any code.
    Raises UserError if the file is missing, damaged or of another network.
    """
    path = locate(source)
    if path.suffix == ".npz":
        return npz.read_model(path, allow_pickle)
    return _read_variables(path, variable_shapes())


def read_latent(path):
    """The 270 model variables before they are quantised, name -> array, of a training.npz or a TensorFlow checkpoint.

    Raises UserError as read() does, and for a model.npz, which holds quantised weights.
    """
    if path.suffix == ".npz":
        values = npz.read_training(path)
        return OrderedDict((name, values[name]) for name in variable_shapes())
    return _read_variables(path, variable_shapes())


def read_training(prefix):
    """All 596 variables, name -> array, of a TensorFlow checkpoint. Raises UserError as read() does."""
    return _read_variables(prefix, training_variable_shapes())


def require_plain(path):
    """Raise UserError for a path in which TensorFlow would see a pattern, and then not find the checkpoint."""
    if re.search(r"[][*?\\]", str(path)):
        raise UserError("%s: TensorFlow takes [ ] * ? \\ in a path for a pattern: rename the folder" % path)


def _read_variables(prefix, shapes):
    require_plain(prefix)
    if not _index(prefix).exists():
        raise UserError("%s: not there: name another checkpoint" % _index(prefix))
    with _readable(prefix):
        reader = tf.train.NewCheckpointReader(str(prefix))
        types, found = reader.get_variable_to_dtype_map(), reader.get_variable_to_shape_map()
    types = {name: (np.dtype(types[name].as_numpy_dtype), shape) for name, shape in found.items()}
    npz.check_types(prefix, types, shapes)
    with _readable(prefix):  # all, Adam's for an evaluation too: TensorFlow compares a checksum as it reads a variable
        values = {name: reader.get_tensor(name) for name in found}
    values = OrderedDict((name, values[name]) for name in shapes)
    npz.check_values(prefix, values)
    return values


def locate(source):
    """The npz or the checkpoint's prefix that `source` names: itself, one of its files, or the newest in a folder.

    The newest is also what the folder's file `checkpoint` stands for.
    """
    path = Path(source)
    path = path if path.is_dir() else path.with_name(_PART.sub("", path.name))
    if path.name == STATE_NAME and path.is_file():
        return _newest_prefix(path.parent)
    if path.is_dir():
        found = newest(path) or (path / npz.MODEL_NAME)
        if found.suffix == ".npz" and not found.exists():
            raise UserError("%s: no checkpoint in this folder: name another with --checkpoint" % path)
        return found
    if not path.exists() and not _index(path).exists():
        raise UserError("%s: no such checkpoint: name a run's folder, a TensorFlow checkpoint or an npz" % path)
    return path


def assign(session, values):
    """Give the default graph's variables of these names their values (name -> array)."""
    _assign(session, {name: variable for name, variable in _global_variables().items() if name in values}, values)


def _assign(session, variables, values):
    session.run([variable.initializer for variable in variables.values()],
                {variable.initializer.inputs[1]: values[name] for name, variable in variables.items()})


def _global_variables():
    return {variable.op.name: variable for variable in tf.global_variables()}


def _index(prefix):
    return prefix.with_name(prefix.name + ".index")


def _prefixes(folder):
    return [_prefix(path) for path in folder.glob(CHECKPOINT_NAME + "*.index")]


def _prefix(path):
    """The prefix of a checkpoint's .index or .data-00000-of-00001, or of what an interrupted save left of them."""
    return path.with_name(re.sub(r"\.(index|data-).*$", "", path.name))


def _remove(folder, names):
    """Remove these checkpoints, and the temporary files that interrupted saves left."""
    patterns = [name + ".*" for name in names] + [CHECKPOINT_NAME + "*.tempstate*", "checkpoint.tmp*"]
    for path in itertools.chain.from_iterable(folder.glob(pattern) for pattern in patterns):
        with contextlib.suppress(OSError):
            path.unlink()


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
