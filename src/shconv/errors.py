"""The one exception for bad input: the command line prints its message in a line and exits with code 2. And the exit
code where nothing has to be set right: another process is gone, say, or a scheduler wanted the machine."""

GOES_ON = 75  # EX_TEMPFAIL of sysexits.h: try the same command again


class InputError(ValueError):
    """What was given cannot be used. The message says what was given and what is wanted."""
