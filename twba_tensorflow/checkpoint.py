"""TensorFlow's checkpoints: atomic saves, checks, reading and restoring.

twba_nets/runs/run_folder.py finds them in a run's folder.
"""
import contextlib
import itertools
import re
import shutil
import tempfile
from pathlib import Path
from typing import Dict, Iterable, Iterator, Optional, Sequence, Tuple

import numpy as np
import tensorflow as tf

from twba_nets.runs import card, npz
from twba_nets.network.architecture import Architecture
from twba_nets.system.errors import UserError
from twba_nets.system.files import Source, path_of, sha256
from twba_nets.runs.run_folder import (CHECKPOINT_NAME, MODEL_NAME, data_file, epoch_of, index_file, newest, prefix_of,
                                  prefixes)

KEPT = 2  # so that one remains after a kill between removing one and naming the next


def save(session: tf.Session, saver: tf.train.Saver, folder: Path, epoch: int, all_params: Sequence[tf.Tensor],
         architecture: Architecture) -> str:
    """Save after `epoch` finished epochs. Returns model.npz's sha256.

    all_params: the tensors of the evaluated model, in the order of architecture.variable_shapes.
    Raises UserError if saving fails; the previous checkpoint is then intact.
    """
    name = f"{CHECKPOINT_NAME}-{epoch}"
    before = newest(folder)
    try:
        saver.save(session, str(folder / CHECKPOINT_NAME), epoch, write_state=False, write_meta_graph=False)
        card.remove(folder)
        values = dict(zip(architecture.variable_shapes, session.run(all_params)))
        digest = npz.save_model(folder / MODEL_NAME, values, architecture)
        # the switch: TensorFlow renames a complete file; a name without the folder lets the folder move
        tf.train.update_checkpoint_state(str(folder.resolve()), name)
    except (tf.errors.OpError, OSError, UserError) as error:
        if before != folder / name:
            _remove(folder, [name])
        remedy = f"{before} is intact: make room and continue with --resume" if before else "make room and start again"
        raise UserError(f"{folder / name}: could not be saved ({_first_line(error)}); {remedy}")
    clear(folder, epoch)
    return digest


def clear(folder: Path, epoch: int) -> None:
    """Remove all but the newest checkpoints up to `epoch`, and the remains of interrupted saves and removals."""
    epochs = {epoch_of(prefix_of(path)) for path in folder.glob(CHECKPOINT_NAME + "-*")} - {None}
    whole = [epoch_of(prefix) or 0 for prefix in prefixes(folder)]
    kept = [number for number in whole if number <= epoch][-KEPT:]
    _remove(folder, [f"{CHECKPOINT_NAME}-{number}" for number in epochs - set(kept) if number < epoch])


def _remove(folder: Path, names: Iterable[str]) -> None:
    """Remove these checkpoints and the temporary files of interrupted saves."""
    patterns = [name + ".*" for name in names] + [CHECKPOINT_NAME + "*.tempstate*", "checkpoint.tmp*"]
    for path in itertools.chain.from_iterable(folder.glob(pattern) for pattern in patterns):
        with contextlib.suppress(OSError):
            path.unlink()


def restore(session: tf.Session, saver: tf.train.Saver, path: Path, architecture: Architecture) -> None:
    """Restore all variables, including Adam's slots, to continue training. Raises UserError if anything does not fit."""
    if path.suffix == ".npz":
        _assign(session, _global_variables(), npz.read_training(path, architecture))
        return
    shapes = {name: variable.shape.as_list() for name, variable in _global_variables().items()}
    _read_variables(path, shapes, architecture)
    with _readable(path):
        saver.restore(session, str(path))


def read(source: Source, architecture: Architecture, allow_pickle: bool = False) -> Dict[str, np.ndarray]:
    """The model's variables, name -> array, of a TensorFlow checkpoint or an npz.

    allow_pickle: also read the original's model.npz, a pickled list; loading a pickle can run any code.
    Raises UserError if the file is missing, damaged or of another network.
    """
    path = path_of(source)
    if path.suffix == ".npz":
        return npz.read_model(source, architecture, allow_pickle)
    return _read_variables(path, architecture.variable_shapes, architecture)


def read_latent(path: Path, architecture: Architecture) -> Tuple[Dict[str, np.ndarray], str]:
    """The model's variables to start training from, name -> array, and their file's sha256.

    path: a TensorFlow checkpoint, or an npz (npz.read_latent). Raises UserError as read() does.
    """
    if path.suffix == ".npz":
        return npz.read_latent(path, architecture)
    with tempfile.TemporaryDirectory() as folder:  # TensorFlow opens files by name; nobody replaces those of a copy
        copy = Path(folder) / "copy"
        for file in (index_file, data_file):
            with contextlib.suppress(FileNotFoundError):  # _read_variables reports it
                shutil.copyfile(str(file(path)), str(file(copy)))
        return _read_variables(path, architecture.variable_shapes, architecture, copy), sha256(data_file(copy))


def read_training(prefix: Path, architecture: Architecture) -> Dict[str, np.ndarray]:
    """All variables, name -> array, of a TensorFlow checkpoint. Raises UserError as read() does."""
    return _read_variables(prefix, architecture.training_variable_shapes, architecture)


def require_plain(path: Path) -> None:
    """Raise UserError for a path that TensorFlow would read as a pattern, or that is not UTF-8: it finds no checkpoint there."""
    if re.search(r"[][*?\\]", str(path)):
        raise UserError(f"{path}: TensorFlow reads [ ] * ? \\ in a path as a pattern: rename the folder")
    if re.search("[\ud800-\udfff]", str(path.resolve())):
        raise UserError(f"{path}: TensorFlow needs a path in UTF-8: rename the folder")


def _read_variables(prefix: Path, shapes: Dict[str, Sequence[int]], architecture: Architecture,
                    copy: Optional[Path] = None) -> Dict[str, np.ndarray]:
    """Read and check the variables in `shapes`, name -> array. copy: the prefix to read from, if it is another."""
    require_plain(prefix)
    if not index_file(prefix).exists():
        raise UserError(f"{index_file(prefix)}: not there: name another checkpoint")
    with _readable(prefix):
        reader = tf.train.NewCheckpointReader(str(copy or prefix))
        types, found = reader.get_variable_to_dtype_map(), reader.get_variable_to_shape_map()
    types = {name: (np.dtype(types[name].as_numpy_dtype), shape) for name, shape in found.items()}
    npz.check_types(prefix, types, shapes)
    with _readable(prefix):  # all variables, as TensorFlow verifies a variable's checksum when reading it
        values = {name: reader.get_tensor(name) for name in found}
    values = {name: values[name] for name in shapes}
    npz.check_values(prefix, values, architecture)
    return values


def assign(session: tf.Session, values: Dict[str, np.ndarray]) -> None:
    """Assign values (name -> array) to the default graph's variables of these names."""
    _assign(session, {name: variable for name, variable in _global_variables().items() if name in values}, values)


def _assign(session, variables, values):
    session.run([variable.initializer for variable in variables.values()],
                {variable.initializer.inputs[1]: values[name] for name, variable in variables.items()})


def _global_variables() -> Dict[str, tf.Variable]:
    return {variable.op.name: variable for variable in tf.global_variables()}


@contextlib.contextmanager
def _readable(prefix: Path) -> Iterator[None]:
    """Turn TensorFlow's errors on a damaged checkpoint into a UserError that names another checkpoint, if there is one."""
    try:
        yield
    except (tf.errors.OpError, RuntimeError) as error:
        others = [other for other in prefixes(prefix.parent) if other != prefix]
        remedy = f"continue from {others[-1]} instead" if others else "use a copy of it"
        raise UserError(f"{prefix}: damaged or truncated ({_first_line(error)}): {remedy}")


def _first_line(error: Exception) -> str:
    return (getattr(error, "message", None) or str(error)).splitlines()[0]
