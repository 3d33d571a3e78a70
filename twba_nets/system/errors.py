"""UserError, the only exception that a user should see."""
import contextlib
import functools


class UserError(Exception):
    """An error that the user can fix. Its text is one line with the file's name and the remedy."""


@contextlib.contextmanager
def named(source):
    """Put what the user named, such as a file, before the text of a UserError that does not know it."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{source}: {error}")


def compiler_message(output):
    """The line of a compiler's output that says what is wrong."""
    lines = output.splitlines() or ["no message"]
    return next((line for line in lines if "error" in line), lines[0])


def reads(function):
    """Decorate a function that reads a path from the user: an OSError, such as a name too long, becomes a UserError."""
    @functools.wraps(function)
    def reading(*arguments, **named):
        try:
            return function(*arguments, **named)
        except OSError as error:
            raise UserError(f"{error.filename or arguments[0]}: {error.strerror or error}: name another file or folder")
    return reading
