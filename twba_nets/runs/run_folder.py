"""A run's folder: the names of its files, and its checkpoints.

    model.npz, model.json                the model for evaluation (npz.py), the card of a finished run (card.py)
    training.npz                         all 596 variables and the epoch: PyTorch's checkpoint, which TensorFlow also reads
    model_cifar10_advanced.ckpt-EPOCH    TensorFlow's newest two checkpoints, each an .index and a .data file
    checkpoint                           TensorFlow's text file with the name of the newest
    recipe.json, provenance.json         the recipe, and which epochs were trained where (provenance.py)
    log.csv, learning_curve.png, events.out.tfevents.* for TensorBoard

EPOCH is the number of finished epochs. The published code's checkpoints lack this ending and hold no epoch.
A checkpoint's path is that of an npz, or TensorFlow's prefix: the path without ".index".
"""
import ast
import os
import re
from pathlib import Path
from typing import List, Optional, Union

from twba_nets.runs import npz
from twba_nets.system import places
from twba_nets.system.errors import UserError, reads

MODEL_NAME = "model.npz"
TRAINING_NAME = "training.npz"
CHECKPOINT_NAME = "model_cifar10_advanced.ckpt"
STATE_NAME = "checkpoint"  # the file that names TensorFlow's newest checkpoint
# names of its lines, `name: value`; the first names the newest
STATE_FIELDS = ("model_checkpoint_path", "all_model_checkpoint_paths", "all_model_checkpoint_timestamps",
                "last_preserved_timestamp")
# a string or a number; ast.literal_eval takes more, and exhausts the memory on a file of brackets or signs
_VALUE = re.compile(r"""("([^"\\]|\\.)*"|'([^'\\]|\\.)*'|[-+]?\d[\d.]*(e[-+]?\d+)?)$""", re.ASCII)
_PART = re.compile(r"\.(index|meta|data-\d{5}-of-\d{5})$")  # endings of TensorFlow's files


@reads
def locate(source: Union[str, Path]) -> Path:
    """The checkpoint that `source` names: an npz, a prefix, one of the prefix's files, or a folder, for its newest.

    The file `checkpoint` stands for TensorFlow's newest. Raises UserError if there is no checkpoint.
    """
    path = Path(source)
    path = path if path.is_dir() else path.with_name(_PART.sub("", path.name))
    if path.name == STATE_NAME and path.is_file():
        return newest_prefix(path.parent) or path
    if path.is_dir():
        found = newest(path) or path / MODEL_NAME
        if found.suffix == ".npz" and not found.exists():
            raise UserError(f"{path}: no checkpoint in this folder: name another folder, or a checkpoint")
        return found
    if not path.exists() and not os.path.exists(index_file(path)):
        raise UserError(f"{path}: no such checkpoint: name a run's folder, a TensorFlow checkpoint or an npz")
    return path


@reads
def locate_npz(source: Union[str, Path]) -> Path:
    """The npz of the model that `source` names: the file itself, or a folder's model.npz, which both trainers write.

    Raises UserError if there is none, or if it is a TensorFlow checkpoint.
    """
    path = Path(source)
    path = path / MODEL_NAME if path.is_dir() else path.with_name(_PART.sub("", path.name))
    if os.path.exists(index_file(path)):  # False where that name would be too long
        raise UserError(f"{path}: is a TensorFlow checkpoint, which only TensorFlow reads: name the run's folder, or its "
                        f"{MODEL_NAME}")
    if not path.is_file():  # opening a named pipe blocks
        raise UserError(f"{path}: no such model: name {', '.join(places.RELEASED)}, a run's folder, a {MODEL_NAME} or an "
                        "exported file")
    return path


def newest(folder: Path) -> Optional[Path]:
    """The checkpoint of a folder with the most finished epochs, or None if there is none to continue from.

    A folder may hold both frameworks' checkpoints. Raises UserError if one is damaged.
    """
    training = folder / TRAINING_NAME
    found = [path for path in (newest_prefix(folder), training if training.exists() else None) if path]
    return max(found, key=_finished_epochs, default=None)


def newest_prefix(folder: Path) -> Optional[Path]:
    """TensorFlow's newest checkpoint in a folder, or None: the one that the file `checkpoint` names.

    Without that file, it is the one with the most epochs. Raises UserError if the file is damaged.
    """
    state = folder / STATE_NAME
    if not state.exists():
        return max((prefix for prefix in prefixes(folder) if data_file(prefix).exists()), key=_finished_epochs, default=None)
    try:
        return folder / read_state(state)
    except (OSError, ValueError, SyntaxError) as error:
        raise UserError(f"{state}: unreadable ({error}): name a checkpoint yourself, or remove this file")


def read_state(path: Path) -> str:
    """The name of the newest checkpoint in TensorFlow's file `checkpoint`, without the folder.

    The original's file holds paths of its own machine. Raises OSError, ValueError or SyntaxError if the file is damaged.
    """
    fields = {}
    for line in filter(str.strip, path.read_text(encoding="utf-8").splitlines()):
        name, _, value = (part.strip() for part in line.partition(":"))
        if name not in STATE_FIELDS or not _VALUE.match(value):
            raise ValueError("it was not written by TensorFlow")
        fields[name] = ast.literal_eval(value)
    newest_path = fields.get("model_checkpoint_path")
    # TensorFlow escapes the bytes of letters outside ASCII
    name = os.path.basename(newest_path.encode("latin-1").decode("utf-8")) if isinstance(newest_path, str) else ""
    if not name or "\0" in name:
        raise ValueError("it names no checkpoint")
    return name


def epoch_of(path: Path) -> Optional[int]:
    """The number of finished epochs, from a prefix's name or a training.npz; None for the original's checkpoint."""
    if path.suffix == ".npz":
        return npz.read_epoch(path)
    match = re.search(r"\.ckpt-(\d+)$", path.name)
    return int(match.group(1)) if match else None


def _finished_epochs(path: Path) -> int:
    return epoch_of(path) or 0


def prefixes(folder: Path) -> List[Path]:
    """The prefixes of TensorFlow's checkpoints in a folder, sorted by epoch."""
    return sorted((prefix_of(path) for path in folder.glob(CHECKPOINT_NAME + "*.index")), key=_finished_epochs)


def prefix_of(file: Path) -> Path:
    """The prefix of a checkpoint's .index or .data file, or of an interrupted save's temporary one."""
    return file.with_name(re.sub(r"\.(index|data-).*$", "", file.name))


def index_file(prefix: Path) -> Path:
    """A TensorFlow checkpoint's smaller file: its variables' names, dtypes and offsets in the other."""
    return prefix.with_name(prefix.name + ".index")


def data_file(prefix: Path) -> Path:
    """A TensorFlow checkpoint's larger file: its variables' values."""
    return prefix.with_name(prefix.name + ".data-00000-of-00001")
