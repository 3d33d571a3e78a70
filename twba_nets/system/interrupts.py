"""One line for Ctrl-C, SIGTERM and errors the user can fix.

Ctrl-C is a traceback until exit_at_once() is called, so this module imports no third-party package and nothing slow.
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

PATIENCE = 2  # seconds before an interruption is repeated
_at_once: List[bool] = []


def exit_at_once(target: str = "setup") -> None:
    """From now on Ctrl-C or SIGTERM ends the program at once with one line. For its imports, which can stop anywhere.

    A missing package also gets one line. target: make's target for the program's environment. Also prepares the standard
    streams (streams.prepare).
    """
    _handle(lambda number, frame: _leave("stopped"))
    streams.prepare()

    def tell(kind: Type[BaseException], error: BaseException, traceback: Optional[TracebackType]) -> None:
        package = (getattr(error, "name", None) or "").partition(".")[0]
        if isinstance(error, ModuleNotFoundError) and not package.startswith("twba"):
            streams.tell(f"error: {package} is not installed for {sys.executable}: {_remedy(target)}")
        elif isinstance(error, OSError):  # such as --help redirected to a full disk
            streams.tell(f"error: {error}")
        else:
            sys.__excepthook__(kind, error, traceback)

    sys.excepthook = tell


def _remedy(target: str) -> str:
    from twba_nets.system import places
    if not places.IS_CHECKOUT:
        return "install it"
    return f"run `make {target}`, then the same command with {target.replace('setup', '.venv')}/bin/python"


@contextlib.contextmanager
def exiting_at_once() -> Iterator[None]:
    """The same within one_line_for_mistakes, for imports and for building TensorFlow's graphs, which can also stop anywhere.

    An imported package may swallow an exception or print its traceback, and TensorFlow's C code crashes on one.
    """
    _at_once.append(True)
    try:
        yield
    finally:
        _at_once.pop()


@contextlib.contextmanager
def one_line_for_mistakes(stopped: Union[str, Callable[[], str]]) -> Iterator[None]:
    """One line on stderr and a non-zero exit for UserError, OSError, Ctrl-C and SIGTERM.

    stopped: the line for an interruption, or a function that returns it.
    """
    interrupts = []

    def say() -> str:
        return stopped() if callable(stopped) else stopped

    def interrupt(number: int, frame: Optional[FrameType]) -> None:
        if _at_once:
            _leave(say())
        interrupts.append(number)
        signal.alarm(PATIENCE)  # repeats it if it gets lost in a destructor, in C code or in a bare `except`
        raise KeyboardInterrupt

    before = _handle(interrupt)
    try:
        try:
            yield
            if sys.stdout is not None:
                sys.stdout.flush()  # an error in writing gets its line here
            if interrupts:  # one got lost
                raise KeyboardInterrupt
        finally:
            signal.alarm(0)
    except BaseException as error:
        if interrupts:  # of whatever type: TensorFlow's C code turns a KeyboardInterrupt into a SystemError
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
    """Set the signals' handler. Returns the previous ones, by signal. `docker stop` sends SIGTERM, a closed terminal SIGHUP."""
    numbers = [signal.SIGTERM, signal.SIGALRM]
    for number in (signal.SIGINT, signal.SIGHUP):  # a shell script's background jobs ignore the first, nohup's the second
        if signal.getsignal(number) is not signal.SIG_IGN:
            numbers.append(number)
    return {number: signal.signal(number, handler) for number in numbers}
