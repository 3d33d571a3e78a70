"""Writing a file whole or not at all, and a run's folder by one process alone."""
import contextlib
import errno
import fcntl
import hashlib
import io
import json
import os
import sys
from pathlib import Path

import numpy as np

from twba_nets.errors import UserError

# what flock answers where there is none; EBADF and EINVAL: where a lock takes a file that is open for writing
WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EBADF, errno.EINVAL)


@contextlib.contextmanager
def atomic_write(path, mode="wb"):
    """Open a file that takes the place of `path` only once it is complete and on the disk.

    A kill, an error or a full disk leaves what was at `path` before. Raises UserError if it cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(".%s.tmp" % path.name)  # one writer a run: a leftover of a kill is overwritten
    try:
        with open(str(temporary), mode) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(str(temporary), str(path))
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError):
            raise UserError("%s: could not be written (%s); what was there before is intact: make room, or choose "
                            "another place" % (path, error.strerror))
        raise


def sha256(path):
    """The SHA-256 digest of a file, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_json(path, value):
    """Write a JSON file, atomically."""
    with atomic_write(path, "w") as file:
        json.dump(value, file, indent=2)
        file.write("\n")


def write_npz(path, arrays, save=np.savez_compressed):
    """Write an npz file, atomically. arrays: name -> array. save: np.savez or np.savez_compressed."""
    buffer = io.BytesIO()  # on a full disk NumPy's own writer complains a second time, when it is thrown away
    save(buffer, **arrays)
    with atomic_write(path) as file:
        file.write(buffer.getbuffer())


@contextlib.contextmanager
def claimed(folder):
    """Make the folder of a run, and keep it from other processes that train. Raises UserError where one does already.

    The claim ends with the process, however that ends. What killed processes left half-written is removed.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(str(folder), os.O_RDONLY)
    except OSError as error:
        raise UserError("%s: no folder can be made there (%s): name another with --output" % (folder, error.strerror))
    try:
        if _lock(descriptor, folder):
            for path in folder.glob(".*.tmp"):
                with contextlib.suppress(OSError):
                    path.unlink()
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor, folder):
    """Whether the folder is this process's alone: some network file systems have no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError("%s: another process trains into this folder: wait for its end, or name another folder with "
                        "--output" % folder)
    except OSError as error:
        if error.errno not in WITHOUT_LOCKS:
            raise
        print("warning: %s: its file system has no locks (%s): let no other process train into it"
              % (folder, error.strerror), file=sys.stderr)
        return False
    return True
