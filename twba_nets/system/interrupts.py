"""One line for Ctrl-C, SIGTERM and what the user can mend. No package is imported here.

Nor is what takes long: until exit_at_once() is called, Ctrl-C is a traceback.
"""
from __future__ import annotations

import contextlib
import os
import signal
import sys

from twba_nets.system import streams
from twba_nets.system.errors import UserError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType, TracebackType
    from typing import Any, Callable, Dict, Iterator, List, Optional, Type, Union

PATIENCE = 2  # seconds that an interruption has to end the program
_at_once: List[bool] = []


def exit_at_once(target: str = "setup") -> None:
    """From now on end the program in one line on Ctrl-C or SIGTERM: for its imports, which leave nothing half done.

    A package that is missing also gets one line. target: make's, for the environment that the program needs. The standard
    streams are prepared, too (streams.prepare).
    """
    _handle(lambda number, frame: _leave("stopped"))
    streams.prepare()

    def tell(kind: Type[BaseException], error: BaseException, traceback: Optional[TracebackType]) -> None:
        package = (getattr(error, "name", None) or "").partition(".")[0]
        if isinstance(error, ModuleNotFoundError) and not package.startswith("twba"):
            streams.tell(f"error: {package} is not installed for {sys.executable}: {_remedy(target)}")
        elif isinstance(error, OSError):  # as of a help that a full disk has no room for
            streams.tell(f"error: {error}")
        else:
            sys.__excepthook__(kind, error, traceback)

    sys.excepthook = tell


def _remedy(target: str) -> str:
    from twba_nets.system import places
    if not places.IS_CHECKOUT:
        return "install it"
    return f"run `make {target}`, then the same command by {target.replace('setup', '.venv')}/bin/python"


@contextlib.contextmanager
def exiting_at_once() -> Iterator[None]:
    """The same within one_line_for_mistakes: for imports and TensorFlow's graphs, which leave nothing half done either.

    An exception would be swallowed, or shown with its traceback, by what is imported; TensorFlow's C code crashes of it.
    """
    _at_once.append(True)
    try:
        yield
    finally:
        _at_once.pop()


@contextlib.contextmanager
def one_line_for_mistakes(stopped: Union[str, Callable[[], str]]) -> Iterator[None]:
    """One line on stderr and a non-zero exit for what the user can mend.

    stopped: what Ctrl-C gets, or a function that says it then.
    """
    interrupts = []

    def say() -> str:
        return stopped() if callable(stopped) else stopped

    def interrupt(number: int, frame: Optional[FrameType]) -> None:
        if _at_once:
            _leave(say())
        interrupts.append(number)
        signal.alarm(PATIENCE)  # once more, should this one get lost: in a destructor, in C code, in a bare `except`
        raise KeyboardInterrupt

    before = _handle(interrupt)
    try:
        try:
            yield
            if sys.stdout is not None:
                sys.stdout.flush()  # here what cannot be written gets its line
            if interrupts:  # this one got lost
                raise KeyboardInterrupt
        finally:
            signal.alarm(0)
    except BaseException as error:
        if interrupts:  # whatever came of it: TensorFlow's C code makes a SystemError of a KeyboardInterrupt
            streams.tell("\n" + say())
            sys.exit(130)
        if isinstance(error, (UserError, OSError)):
            sys.exit(f"error: {error}")
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)  # None: not set by Python


def _leave(line: str) -> None:
    with contextlib.suppress(Exception):
        streams.tell("\n" + line)
        sys.stdout.flush()
    os._exit(130)


def _handle(handler: Callable[[int, Optional[FrameType]], None]) -> Dict[int, Any]:
    """Set the signals' handler; returns those before, by signal. `docker stop` ends a run as Ctrl-C does."""
    numbers = [signal.SIGTERM, signal.SIGALRM]
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as it is in the background of a shell script
        numbers.append(signal.SIGINT)
    return {number: signal.signal(number, handler) for number in numbers}
