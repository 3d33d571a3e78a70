"""Writing a file whole or not at all, and a run's folder by one process alone."""
import contextlib
import errno
import fcntl
import hashlib
import io
import json
import os
import re
import secrets
from pathlib import Path
from typing import IO, Any, Callable, Dict, Iterator, NamedTuple, Union

import numpy as np

from twba_nets.system import streams
from twba_nets.system.errors import UserError

# what a killed process leaves; until now the names had no number
_TEMPORARY = re.compile(r"^\.((model|training)\.npz|(model|recipe|provenance)\.json|log\.csv|learning_curve\.png)"
                        r"(\.[0-9a-f]{16})?\.tmp$")
DEVICES = Path("/dev")
# what flock answers where there is none; EBADF and EINVAL: where a lock takes a file that is open for writing
WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EBADF, errno.EINVAL)


@contextlib.contextmanager
def atomic_write(path: Path, mode: str = "wb") -> Iterator[IO]:
    """Open a file that takes the place of `path` only once it is complete and on the disk.

    A kill, an error or a full disk leaves what was at `path` before. A device or a pipe, as /dev/null, is written to as
    it is; a symbolic link is replaced, and what it stands for left alone. Raises UserError if it cannot be written.
    """
    try:
        if path.exists() and not path.is_file():
            with open(path, mode) as file:
                yield file
        elif path.is_symlink() and path.absolute().parent == DEVICES:  # /dev/stdout, where it is a file
            raise UserError(f"{path}: is the system's: name a file")
        else:
            with _replacing(path, mode) as file:
                yield file
    except OSError as error:
        raise UserError(f"{path}: could not be written ({error.strerror or error}); what was there before is intact: make room, "
                        "or choose another place")


@contextlib.contextmanager
def _replacing(path: Path, mode: str) -> Iterator[IO]:
    # a name that nobody can foresee, of a file that does not exist yet: no link that somebody laid there is followed
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        with open(temporary, mode.replace("w", "x")) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    with contextlib.suppress(OSError):  # not every file system can do this, and the file is in its place
        sync(path.parent)


def sync(path: Path) -> None:
    """Bring a file, or a folder's names, to the disk, so that no loss of power undoes a replacement."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_leftovers(folder: Path) -> None:
    """Remove what killed processes left half-written, in a folder that no other process writes to."""
    for path in folder.glob(".*.tmp"):
        if _TEMPORARY.search(path.name):
            with contextlib.suppress(OSError):
                path.unlink()


def make_folder(folder: Path) -> None:
    """Make a folder unless it is there. Raises UserError if it cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: no folder can be made there ({error.strerror}): name another")


def read_json(path: Path) -> Any:
    """The value in a JSON file. Raises ValueError or OSError if there is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise ValueError("its lists are nested too deeply")


class Content(NamedTuple):
    """A file, read once. What is made of `data` and its digest belong together, whatever becomes of the file meanwhile."""
    path: Path
    data: Union[bytes, memoryview]


Source = Union[Path, Content]  # a file that is to be read, or that has been


def path_of(source: Source) -> Path:
    return source.path if isinstance(source, Content) else source


def sha256(source: Source) -> str:
    """The SHA-256 digest of a file, in hexadecimal."""
    return hashlib.sha256(source.data if isinstance(source, Content) else source.read_bytes()).hexdigest()


def write_json(path: Path, value: object) -> None:
    """Write a JSON file, atomically. A list of numbers or texts is one line."""
    text = json.dumps(value, indent=2)  # a line break is never within a text
    text = re.sub(r"\[\n\s+([^][{}]*?)\n\s+\]", lambda found: "[" + re.sub(r",\n\s+", ", ", found.group(1)) + "]", text)
    with atomic_write(path, "w") as file:
        file.write(text + "\n")


def write_npz(path: Path, arrays: Dict[str, np.ndarray], save: Callable = np.savez_compressed) -> Content:
    """Write an npz file, atomically. arrays: name -> array. save: np.savez or np.savez_compressed. Returns what it holds."""
    buffer = io.BytesIO()  # on a full disk NumPy's own writer complains a second time, when it is thrown away
    save(buffer, **arrays)
    with atomic_write(path) as file:
        file.write(buffer.getbuffer())
    return Content(path, buffer.getbuffer())


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Make the folder of a run, and keep it from other processes that train. Raises UserError where one does already.

    The claim ends with the process, however that ends. What killed processes left half-written is removed.
    """
    make_folder(folder)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        if _lock(descriptor, folder):
            remove_leftovers(folder)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, folder: Path) -> bool:
    """Whether the folder is this process's alone: some network file systems have no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(f"{folder}: another process trains into this folder: wait for its end, or name another folder with "
                        "--output")
    except OSError as error:
        if error.errno not in WITHOUT_LOCKS:
            raise
        streams.tell(f"warning: {folder}: its file system has no locks ({error.strerror}): let no other process train into it")
        return False
    return True
