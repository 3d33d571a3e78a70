"""Named arrays: reading them from an npz, and checking them.

A small file can inflate to a very large array, and a damaged file can hold anything. So check dtype and shape before
reading an array, and its numbers before computing with them.
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
    """An npz that is open for reading. names: the names of its arrays."""

    def __init__(self, archive):
        self.archive = archive
        self.names = [name[:-len(".npy")] for name in archive.namelist() if name.endswith(".npy")]

    def type(self, name: str) -> Tuple[np.dtype, tuple]:
        """(dtype, shape) of an array, from its header alone. Raises ValueError if the header has another version."""
        with self.archive.open(name + ".npy") as file:
            if np.lib.format.read_magic(file) != (1, 0):  # the version that NumPy writes for simple arrays
                raise ValueError(f"{name} has a header of another version")
            shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        return dtype, shape

    def read(self, name: str, allow_pickle: bool = False) -> np.ndarray:
        """Read an array; check its type first. allow_pickle: also read pickled objects, which can run any code."""
        with self.archive.open(name + ".npy") as file:
            array = np.lib.format.read_array(file, allow_pickle=allow_pickle)
            if file.read(1):  # reading to the end also verifies the archive's checksum
                raise ValueError(f"{name} is longer than its header says")
        return array


def read_npz(source: Source, remedy: str) -> Content:
    """Read an npz's bytes once. Raises UserError, ending with the remedy, if there is no such file or it is not an npz."""
    if isinstance(source, Content):
        return source
    if not source.is_file():  # opening a named pipe blocks
        raise UserError(f"{source}: no such file: {remedy}")
    with open(source, "rb") as file:
        if not zipfile.is_zipfile(file):  # checks only the file's end, so a large file of another kind is not read
            raise UserError(f"{source}: damaged, truncated or not an npz file: {remedy}")
        file.seek(0)
        return Content(source, file.read())


@contextlib.contextmanager
def open_npz(source: Source, remedy: str) -> Iterator[Npz]:
    """Open an npz as an Npz. Errors from a damaged file become a UserError that ends with the remedy."""
    path, data = read_npz(source, remedy)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            yield Npz(archive)
    except UserError:
        raise
    except Exception as error:  # a damaged archive can raise anything, and NumPy's messages hold whole headers
        text = (str(error) or type(error).__name__).splitlines()[0][:200]
        raise UserError(f"{path}: damaged ({text}): {remedy}")


def check_finite(name: str, value: np.ndarray) -> None:
    """Raise ValueError if a value is NaN or infinite as float32."""
    with np.errstate(over="ignore"):
        finite = np.isfinite(value.astype(np.float32))
    if not finite.all():
        raise ValueError(f"{name} holds values that are not finite")


def check_affine(name: str, kernel: np.ndarray, scale: np.ndarray, offset: np.ndarray, inputs: np.ndarray) -> np.ndarray:
    """Bounds on the absolute outputs of convolution, scale and offset, float64 [O].

    kernel: [..., C, O]. scale, offset: [O]. inputs: bounds on the absolute inputs, [C]. Raises ValueError if the sums can
    overflow float32: infinity minus infinity is NaN, and NaN never fires.
    """
    kernel, scale, offset = (np.abs(value.astype(np.float64)) for value in (kernel, scale, offset))
    sums = inputs @ kernel.sum(tuple(range(kernel.ndim - 2)))
    outputs = sums * scale + offset
    if not (np.maximum(sums, outputs) <= LARGEST).all():
        raise ValueError(f"{name} and its batch norm hold values so large that their sums overflow")
    return outputs
