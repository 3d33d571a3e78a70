"""The one exception that a user should ever see."""


class UserError(Exception):
    """Something that the user can mend. Its text is one line that names the file and the remedy."""
