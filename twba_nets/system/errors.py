"""UserError, the only exception that a user should see."""
import functools


class UserError(Exception):
    """An error that the user can fix. Its text is one line with the file's name and the remedy."""


def reads(function):
    """Decorate a function that reads a path from the user: an OSError, such as a name too long, becomes a UserError."""
    @functools.wraps(function)
    def reading(*arguments, **named):
        try:
            return function(*arguments, **named)
        except OSError as error:
            raise UserError(f"{error.filename or arguments[0]}: {error.strerror or error}: name another file or folder")
    return reading
