"""stdout and stderr, which end no program: closed ones, pipes that nobody reads, narrow encodings. No package is imported."""
from __future__ import annotations

import contextlib
import io
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Iterator


class _File(io.FileIO):
    """The file of a standard stream. Once nobody reads it, what is written there is dropped, and the program goes on."""

    def __init__(self, file, name):
        super().__init__(file, "w", closefd=False)
        self.spoken, self.terminal = name, self.isatty()

    def write(self, data):
        try:
            return super().write(data)
        except OSError as error:
            _to_null(self.fileno())
            # a pipe's reader or a terminal is gone; stderr has nowhere to complain
            if isinstance(error, ConnectionError) or self.terminal or self.spoken == "stderr":
                return len(data)
            raise OSError(error.errno, error.strerror, self.spoken) from None


def prepare() -> None:
    """Make a program's own stdout and stderr such that they end it by no mistake of theirs.

    A closed one is the null device, so that no other file gets its number. What cannot be encoded is escaped. What nobody
    reads any more is dropped. A full disk under stdout is an OSError, once.
    """
    null = os.open(os.devnull, os.O_RDWR)
    while null <= 2:
        os.set_inheritable(null, True)
        null = os.open(os.devnull, os.O_RDWR)
    os.close(null)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is getattr(sys, f"__{name}__"):  # else somebody has put another there
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
    """Whether stderr is a terminal. A daemon may have none, a closed one, or something else in its place."""
    try:
        return sys.stderr.isatty()
    except (AttributeError, ValueError):
        return False


def tell(line: str) -> None:
    """A line on stderr, where there is one."""
    if sys.stderr is not None:
        with contextlib.suppress(AttributeError, OSError, ValueError):  # it has no flush(), a full disk, or is closed
            print(line, file=sys.stderr, flush=True)


@contextlib.contextmanager
def optional(what: str) -> Iterator[None]:
    """Something that a program can do without: its failure is a warning."""
    try:
        yield
    except Exception as error:
        first = (str(error).splitlines() or [""])[0][:200]
        tell(f"warning: {what} ({type(error).__name__}: {first}): all else goes on")
