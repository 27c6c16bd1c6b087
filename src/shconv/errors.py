"""The one exception for bad input: the command line prints its message in a line and exits with code 2. And the exit
code where nothing has to be set right: another process is gone, say, or a scheduler wanted the machine. And how
messages say other errors in a line, and names that are near or many."""

import difflib
from collections.abc import Sequence

GOES_ON = 75  # EX_TEMPFAIL of sysexits.h: try the same command again


class InputError(ValueError):
    """What was given cannot be used. The message says what was given and what is wanted."""


def first_line(error: BaseException, most: int = 160) -> str:
    """The first line of what an error says, or its kind where it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0][:most]


def one_line(error: BaseException, shown: slice = slice(300)) -> str:
    """An error's kind and what it says in one line, that much of it."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[shown]}"


def few(names: Sequence[str], most: int = 3) -> str:
    """The first of some names and how many more there are; "none" of none."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more if names else "none"


def near(given: str, known: Sequence[str], *, otherwise: str = "", listed: bool = False) -> str:
    """The hint for a name that is not among those known: "did you mean X?", else `otherwise`, by default all of them.

    listed: all of them behind the near ones too.
    """
    bare = {name.lstrip("-"): name for name in known}
    closest = [bare[name] for name in difflib.get_close_matches(given.lstrip("-"), list(bare), n=2, cutoff=0.65)]
    all_known = f"choose from {', '.join(known)}"
    if not closest:
        return otherwise or all_known
    return f"did you mean {' or '.join(closest)}?" + (f" {all_known}" if listed else "")
