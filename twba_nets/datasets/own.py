"""Your own data: arrays in an npz, or a folder of pictures."""
from pathlib import Path
from typing import Dict, List, Tuple

import numpy as np

from twba_nets.datasets import pictures
from twba_nets.datasets.dataset import Dataset
from twba_nets.system.arrays import Npz, open_npz
from twba_nets.system import progress
from twba_nets.system.errors import UserError, reads

PARTS = ("train", "test")
ARRAYS = tuple(f"{name}_{part}" for part in PARTS for name in "xy")
REMEDY = "see --help for the contents of an npz of data"


@reads
def load(path: Path, shape: Tuple[int, int, int], classes: int) -> Dataset:
    """The data set in an npz or in a folder of pictures, for a network of pictures of this shape, (S, S, C).

    An npz holds x_train, x_test: uint8 [N, S, S, C]; y_train, y_test: integers [N] from 0 on; optionally class_names: strings.
    A folder holds pictures in train/CLASS/ and test/CLASS/, which are scaled to `shape` (pictures.read_picture); classes are
    interleaved. The numbers of images and classes are free. Without class_names, `classes` are named 0, 1, ... Raises UserError,
    naming the file, if the data are invalid.
    """
    if not path.exists():
        raise UserError(f"{path}: no such file or folder: name the data with --data")
    if path.is_dir():
        return _read_folder(path, shape)
    with open_npz(path, REMEDY) as archive:
        return _read_npz(path, archive, classes)


def _read_npz(path: Path, archive: Npz, classes: int) -> Dataset:
    arrays = {name: _read_array(path, archive, name) for name in ARRAYS}
    for part in PARTS:
        images, labels = arrays[f"x_{part}"], arrays[f"y_{part}"]
        if not len(images) or labels.shape != (len(images),):
            raise UserError(f"{path}: x_{part} has {len(images)} images, but y_{part} has shape {list(labels.shape)}: give at "
                            "least one image, and a label to each")
    names = _read_names(path, archive, classes)
    for part in PARTS:
        labels = arrays[f"y_{part}"]
        if labels.min() < 0 or labels.max() >= len(names):
            raise UserError(f"{path}: y_{part} holds labels from {labels.min()} to {labels.max()}, but there are {len(names)} "
                            f"classes: number them from 0 to {len(names) - 1}, or name a network of more classes")
    arrays.update({f"y_{part}": arrays[f"y_{part}"].astype(np.int32) for part in PARTS})
    return Dataset(path.stem, flip=True, class_names=names, **arrays)


def _read_array(path: Path, archive: Npz, name: str) -> np.ndarray:
    if name not in archive.names:
        raise UserError(f"{path}: lacks {name}: add it; data are {', '.join(ARRAYS)}")
    dtype, shape = archive.type(name)
    if name.startswith("x_") and (dtype != np.uint8 or len(shape) != 4 or shape[1] != shape[2]):
        raise UserError(f"{path}: {name} is {dtype} {list(shape)}, not uint8 [N, S, S, C]: convert it")
    if name.startswith("y_") and (dtype.kind not in "iu" or len(shape) != 1):
        raise UserError(f"{path}: {name} is {dtype} {list(shape)}, not integers [N]: convert it")
    return archive.read(name)


def _read_names(path: Path, archive: Npz, classes: int) -> Tuple[str, ...]:
    if "class_names" not in archive.names:
        return tuple(map(str, range(classes)))
    dtype, shape = archive.type("class_names")
    if dtype.kind != "U" or len(shape) != 1:
        raise UserError(f"{path}: class_names is {dtype} {list(shape)}, not strings [classes]: convert it")
    names = tuple(archive.read("class_names").tolist())
    if len(set(names)) < len(names):
        raise UserError(f"{path}: class_names holds a name twice: name each class differently")
    return names


def _read_folder(path: Path, shape: Tuple[int, int, int]) -> Dataset:
    pictures.require_pillow()
    found = {part: _find_classes(path / part) for part in PARTS}
    for part in PARTS:
        pictures.tell_left_out(path / part)
    names = tuple(found["train"])
    unknown = sorted(set(found["test"]) - set(names))
    if unknown:
        raise UserError(f"{path / 'test' / unknown[0]}: {path / 'train'} has no such class: add it there, or remove this folder")
    arrays = {}
    for part in PARTS:
        # classes are interleaved, so that the first pictures (--limit) and the last (--hold-out) cover all of them
        files = sorted(((number + 0.5) / len(found[part][name]), label, file)
                       for label, name in enumerate(names) for number, file in enumerate(found[part].get(name, ())))
        arrays[f"x_{part}"] = _read_pictures([file for *_, file in files], f"{path.name}/{part}", shape)
        arrays[f"y_{part}"] = np.array([label for _, label, _ in files], np.int32)
    return Dataset(path.resolve().name, flip=True, class_names=names, **arrays)


def _find_classes(folder: Path) -> Dict[str, List[Path]]:
    """Class -> its pictures, in order. Raises UserError if there are none."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder: put pictures into train/CLASS/ and test/CLASS/")
    names = sorted(place.name for place in folder.iterdir() if place.is_dir() and not place.name.startswith("."))
    if not names:
        raise UserError(f"{folder}: has no folder of a class: put pictures into {folder.name}/CLASS/")
    return {name: pictures.find_pictures(folder / name) for name in names}


def _read_pictures(files: List[Path], what: str, shape: Tuple[int, int, int]) -> np.ndarray:
    """Pictures as uint8 [N, S, S, C]."""
    images = np.empty((len(files), *shape), np.uint8)
    with progress.bar(len(files), what) as bar:
        for number, file in enumerate(files):
            images[number] = pictures.read_picture(file, *shape[1:])
            bar.update(1)
    return images
