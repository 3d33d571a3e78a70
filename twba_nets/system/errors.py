"""The one exception that a user should ever see."""
import functools


class UserError(Exception):
    """Something that the user can mend. Its text is one line that names the file and the remedy."""


def reads(function):
    """A function that reads what a user names. What the system says of a path, as that it is too long, is a UserError then."""
    @functools.wraps(function)
    def reading(*arguments, **named):
        try:
            return function(*arguments, **named)
        except OSError as error:
            raise UserError(f"{error.filename or arguments[0]}: {error.strerror or error}: name another file or folder")
    return reading
