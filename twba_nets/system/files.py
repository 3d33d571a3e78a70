"""Atomic writes, and a lock on a run's folder."""
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
from typing import IO, Any, Callable, Dict, Iterator, NamedTuple, Optional, Union

import numpy as np

from twba_nets.system import streams
from twba_nets.system.errors import UserError

# temporary files that a killed process leaves; older versions' names have no number
_TEMPORARY = re.compile(r"^\.((model|training)\.npz|(model|recipe|provenance)\.json|log\.csv|learning_curve\.png)"
                        r"(\.[0-9a-f]{16})?\.tmp$")
DEVICES = Path("/dev")
# flock's errors on a file system without locks; EBADF and EINVAL: where a lock needs a file open for writing
WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EBADF, errno.EINVAL)


@contextlib.contextmanager
def atomic_write(path: Path, mode: str = "wb") -> Iterator[IO]:
    """Open a file that replaces `path` once it is complete and on the disk. Text is UTF-8, whatever the locale.

    A kill, an error or a full disk leaves the old file. A device or a pipe, such as /dev/null, is written to directly.
    A symbolic link is replaced, not its target. Raises UserError if it cannot be written.
    """
    try:
        if path.exists() and not path.is_file():
            with open(path, mode, encoding=_encoding(mode)) as file:
                yield file
        elif path.is_symlink() and path.absolute().parent == DEVICES:  # /dev/stdout, redirected to a file
            raise UserError(f"{path}: belongs to the system: name a file")
        else:
            with _replacing(path, mode) as file:
                yield file
    except OSError as error:
        raise UserError(f"{path}: could not be written ({error.strerror or error}); the old file is intact: make room, "
                        "or choose another place")


@contextlib.contextmanager
def _replacing(path: Path, mode: str) -> Iterator[IO]:
    # an unpredictable name, opened with mode "x": no link planted there is followed
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        with open(temporary, mode.replace("w", "x"), encoding=_encoding(mode)) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    with contextlib.suppress(OSError):  # not every file system can do this, and the file is already in place
        sync(path.parent)


def _encoding(mode: str) -> Optional[str]:
    return None if "b" in mode else "utf-8"


def sync(path: Path) -> None:
    """Flush a file, or a folder's entries, to the disk, so that a power failure cannot undo a replacement."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files of killed processes from a folder that no other process writes to."""
    for path in folder.glob(".*.tmp"):
        if _TEMPORARY.search(path.name):
            with contextlib.suppress(OSError):
                path.unlink()


def make_folder(folder: Path) -> None:
    """Make a folder unless it exists. Raises UserError if it cannot be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: the folder cannot be made ({error.strerror}): name another")


def read_json(path: Path) -> Any:
    """The value in a JSON file. Raises OSError if it cannot be read, ValueError if it is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise ValueError("its lists are nested too deeply")


class Content(NamedTuple):
    """A file, read once, so that its values and its digest match even if the file changes meanwhile."""
    path: Path
    data: Union[bytes, memoryview]


Source = Union[Path, Content]  # a file to read, or one already read


def path_of(source: Source) -> Path:
    return source.path if isinstance(source, Content) else source


def sha256(source: Source) -> str:
    """The SHA-256 digest of a file, in hexadecimal."""
    return hashlib.sha256(source.data if isinstance(source, Content) else source.read_bytes()).hexdigest()


def write_json(path: Path, value: object) -> None:
    """Write a JSON file atomically. A list of numbers or strings is one line."""
    text = json.dumps(value, indent=2)  # strings never hold a line break
    text = re.sub(r"\[\n\s+([^][{}]*?)\n\s+\]", lambda found: "[" + re.sub(r",\n\s+", ", ", found.group(1)) + "]", text)
    with atomic_write(path, "w") as file:
        file.write(text + "\n")


def write_npz(path: Path, arrays: Dict[str, np.ndarray], save: Callable = np.savez_compressed) -> Content:
    """Write an npz file atomically. arrays: name -> array. save: np.savez or np.savez_compressed. Returns its bytes."""
    buffer = io.BytesIO()  # on a full disk NumPy's own writer fails a second time, when it is deleted
    save(buffer, **arrays)
    with atomic_write(path) as file:
        file.write(buffer.getbuffer())
    return Content(path, buffer.getbuffer())


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Make a run's folder and lock it. Raises UserError if another process is training into it.

    The lock ends with the process, even after a kill. Temporary files of killed processes are removed.
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
    """Lock a folder. Returns False with a warning on a file system without locks, as some network file systems are."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(f"{folder}: another process is training into this folder: wait for it, or name another folder with "
                        "--output")
    except OSError as error:
        if error.errno not in WITHOUT_LOCKS:
            raise
        streams.tell(f"warning: {folder}: its file system has no locks ({error.strerror}): make sure that no other process "
                     "trains into it")
        return False
    return True
