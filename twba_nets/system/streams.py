"""stdout and stderr that never end a program, even if closed, unread or of a narrow encoding."""
from __future__ import annotations

import contextlib
import io
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Iterator


class _File(io.FileIO):
    """The file of a standard stream. Once its reader is gone, it drops what is written, and the program continues."""

    def __init__(self, file, name):
        super().__init__(file, "w", closefd=False)
        self.spoken, self.terminal = name, self.isatty()

    def write(self, data):
        try:
            return super().write(data)
        except OSError as error:
            _to_null(self.fileno())
            # a pipe's reader or a terminal is gone; stderr has nowhere to report it
            if isinstance(error, ConnectionError) or self.terminal or self.spoken == "stderr":
                return len(data)
            raise OSError(error.errno, error.strerror, self.spoken) from None


def prepare() -> None:
    """Make stdout and stderr safe to write to.

    A closed one becomes the null device, so that no other file gets its number. Characters that cannot be encoded are
    escaped. Output without a reader is dropped. A full disk under stdout raises one OSError.
    """
    null = os.open(os.devnull, os.O_RDWR)
    while null <= 2:
        os.set_inheritable(null, True)
        null = os.open(os.devnull, os.O_RDWR)
    os.close(null)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is getattr(sys, f"__{name}__"):  # else it has been replaced, as pytest does
            setattr(sys, name, _writer(stream, name))


def _writer(stream, name):
    file = io.BufferedWriter(_File(os.open(os.devnull, os.O_WRONLY) if stream is None else stream.fileno(), name))
    lines = name == "stderr" or stream is None or stream.line_buffering or stream.write_through
    return io.TextIOWrapper(file, getattr(stream, "encoding", "utf-8"), "backslashreplace", "\n", lines)


def _to_null(descriptor):
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, descriptor)
    os.close(null)


def is_terminal() -> bool:
    """Whether stderr is a terminal. A daemon may have no stderr, a closed one, or another object in its place."""
    try:
        return sys.stderr.isatty()
    except (AttributeError, ValueError):
        return False


def is_launched() -> bool:
    """Whether torchrun, or a launcher that sets the same variables, started this process as one of several."""
    return {"RANK", "WORLD_SIZE", "MASTER_ADDR"} <= set(os.environ)


def is_chief() -> bool:
    """Whether this process is the only one, or the first of several: it alone writes files and prints."""
    return not is_launched() or os.environ["RANK"] == "0"


def tell(line: str) -> None:
    """Print a line to stderr, if there is one."""
    if sys.stderr is not None:
        with contextlib.suppress(AttributeError, OSError, ValueError):  # it has no flush(), its disk is full, it is closed
            print(line, file=sys.stderr, flush=True)


def tell_once(line: str) -> None:
    """Print a line to stderr in one of torchrun's processes."""
    if is_chief():
        tell(line)


@contextlib.contextmanager
def optional(what: str) -> Iterator[None]:
    """Run an optional step: an exception in it becomes a warning. what: the warning's text."""
    try:
        yield
    except Exception as error:
        first = (str(error).splitlines() or [""])[0][:200]
        tell(f"warning: {what} ({type(error).__name__}: {first}); everything else continues")
