"""Named arrays: read from an npz by their headers first, and checked.

A small file can inflate to a very large array, and a damaged one can hold anything: so type and shape are looked at
before an array is read, and the numbers before anything is computed from them.
"""
import contextlib
import io
import zipfile
from typing import Dict, Iterator, Tuple

import numpy as np

from twba_nets.system.errors import UserError
from twba_nets.system.files import Content, Source

Arrays = Dict[str, np.ndarray]  # by name
LARGEST = float(np.finfo(np.float32).max)


class Npz:
    """An npz that is open for reading. names: of its arrays."""

    def __init__(self, archive):
        self.archive = archive
        self.names = [name[:-len(".npy")] for name in archive.namelist() if name.endswith(".npy")]

    def type(self, name: str) -> Tuple[np.dtype, tuple]:
        """(dtype, shape) of an array, which is not read."""
        with self.archive.open(name + ".npy") as file:
            if np.lib.format.read_magic(file) != (1, 0):  # NumPy writes no other for arrays as simple as these
                raise ValueError(f"{name} has a header of another version")
            shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        return dtype, shape

    def read(self, name: str, allow_pickle: bool = False) -> np.ndarray:
        """An array. Look at its type first. allow_pickle: of Python objects, too, which can run any code."""
        with self.archive.open(name + ".npy") as file:
            array = np.lib.format.read_array(file, allow_pickle=allow_pickle)
            if file.read(1):  # the archive's checksum is compared at the end
                raise ValueError(f"{name} is longer than its header says")
        return array


def read_npz(source: Source, remedy: str) -> Content:
    """An npz's content, read once. Raises UserError, which ends with the remedy, if the file is none."""
    if isinstance(source, Content):
        return source
    if not source.is_file():  # to open a pipe would wait for ever
        raise UserError(f"{source}: no such file: {remedy}")
    with open(source, "rb") as file:
        if not zipfile.is_zipfile(file):  # it looks at the end alone: a large file of another kind is not read
            raise UserError(f"{source}: damaged, truncated or no npz file: {remedy}")
        file.seek(0)
        return Content(source, file.read())


@contextlib.contextmanager
def open_npz(source: Source, remedy: str) -> Iterator[Npz]:
    """Open an npz, as an Npz. What a damaged one raises becomes a UserError that ends with the remedy."""
    path, data = read_npz(source, remedy)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            yield Npz(archive)
    except UserError:
        raise
    except Exception as error:  # a damaged archive can raise anything, and NumPy prints whole headers
        text = (str(error) or type(error).__name__).splitlines()[0][:200]
        raise UserError(f"{path}: damaged ({text}): {remedy}")


def check_finite(name: str, value: np.ndarray) -> None:
    """Raise ValueError if a number is NaN or infinite, in float32 too."""
    with np.errstate(over="ignore"):
        finite = np.isfinite(value.astype(np.float32))
    if not finite.all():
        raise ValueError(f"{name} holds values that are not finite")


def check_affine(name: str, kernel: np.ndarray, scale: np.ndarray, offset: np.ndarray, inputs: np.ndarray) -> np.ndarray:
    """The largest absolute outputs of kernel, scale and offset, float64 [O], given the inputs' largest, [C].

    kernel: [..., C, O]. Raises ValueError if float32 may not hold them: infinity less infinity is NaN, and that never
    fires.
    """
    kernel, scale, offset = (np.abs(value.astype(np.float64)) for value in (kernel, scale, offset))
    sums = inputs @ kernel.sum(tuple(range(kernel.ndim - 2)))
    outputs = sums * scale + offset
    if not (np.maximum(sums, outputs) <= LARGEST).all():
        raise ValueError(f"{name} and its batch norm hold values so large that their sums overflow")
    return outputs
