"""What the environment turns on (1) or off (0). Another value is refused: whoever sets one wants something."""

import os

from shconv.errors import InputError

SWITCHES = ("SHCONV_COMPILED", "SHCONV_GRAPHS", "SHCONV_TUNE")


def switch(name: str) -> bool | None:
    """None where it is not set, or to nothing. Raises InputError for what is neither 0 nor 1."""
    value = os.environ.get(name)
    if value not in (None, "", "0", "1"):
        raise InputError(f"{name} is {value!r} in the environment; wanted: 0 or 1")
    return value == "1" if value else None
