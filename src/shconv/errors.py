"""The one exception for bad input: the command line prints its message in a line and exits with code 2."""


class InputError(ValueError):
    """What was given cannot be used. The message says what was given and what is wanted."""
