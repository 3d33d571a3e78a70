"""One line for Ctrl-C, SIGTERM and what the user can mend. Imports the standard library alone."""
import contextlib
import os
import signal
import sys

from twba_nets.errors import UserError

PATIENCE = 2  # seconds that an interruption has to end the program


def exit_at_once():
    """From now on end the program in one line on Ctrl-C or SIGTERM: for its imports, which leave nothing half done.

    Returns the handlers before, by signal.
    """
    def leave(number, frame):
        with contextlib.suppress(Exception):
            print("\nstopped", file=sys.stderr)
            sys.stdout.flush()
        os._exit(130)

    return _handle(leave)


@contextlib.contextmanager
def exiting_at_once():
    """The same for imports under one_line_for_mistakes: what they run swallows exceptions, or shows tracebacks."""
    before = exit_at_once()
    try:
        yield
    finally:
        _restore(before)


@contextlib.contextmanager
def one_line_for_mistakes(stopped):
    """One line on stderr and a non-zero exit for what the user can mend.

    stopped: what Ctrl-C gets, or a function that says it then.
    """
    interrupts = []

    def interrupt(number, frame):
        interrupts.append(number)
        signal.alarm(PATIENCE)  # once more, should this one get lost: in a destructor, in C code, in a bare `except`
        raise KeyboardInterrupt

    before = _handle(interrupt)
    try:
        try:
            yield
        finally:
            signal.alarm(0)
    except BaseException as error:
        if interrupts:  # whatever came of it: TensorFlow's C code makes a SystemError of a KeyboardInterrupt
            print("\n" + (stopped() if callable(stopped) else stopped), file=sys.stderr)
            sys.exit(130)
        if isinstance(error, (UserError, OSError)):
            sys.exit("error: %s" % error)
        raise
    finally:
        _restore(before)


def _handle(handler):
    """Set the signals' handler; returns those before, by signal. `docker stop` ends a run as Ctrl-C does."""
    numbers = [signal.SIGTERM, signal.SIGALRM]
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as it is in the background of a shell script
        numbers.append(signal.SIGINT)
    return {number: signal.signal(number, handler) for number in numbers}


def _restore(before):
    for number, handler in before.items():
        signal.signal(number, handler or signal.SIG_DFL)  # None: not set by Python
