"""The one exception for bad input: the command line prints its message in a line and exits with code 2. And the exit
code where nothing has to be set right: another process is gone, say, or a scheduler wanted the machine. And how
messages say other errors in a line, and names that are near or many."""

import difflib
import re
import traceback
from collections.abc import Sequence
from pathlib import Path

READABLE = 20  # names in one message
NOT_OWN = re.compile(
    rf"^{re.escape(str(Path(__file__).parent))}|^<|[/\\](site|dist)-packages[/\\]|[/\\]lib[/\\]python3"
)
# What torch, its oneDNN, and Python's threads say where memory ran out.
_SHORT = ("can't allocate memory", "could not create a primitive", "can't start new thread")
GOES_ON = 75  # EX_TEMPFAIL of sysexits.h: try the same command again


class InputError(ValueError):
    """What was given cannot be used. The message says what was given and what is wanted."""


def first_line(error: BaseException, most: int = 160) -> str:
    """The first line of what an error says, or its kind where it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0][:most]


def one_line(error: BaseException, shown: slice = slice(300)) -> str:
    """An error's kind and what it says in one line, that much of it."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[shown]}"


def is_short_of_memory(error: BaseException) -> bool:
    """Did memory run out, on the device or off it?"""
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"  # torch's, unimported
    return named or any(said in str(error) for said in _SHORT)


def few(names: Sequence[str], most: int = 3) -> str:
    """The first of some names and how many more there are; "none" of none."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more if names else "none"


def raised(error: BaseException) -> str:
    """ValueError: ... (my_file.py, line 3): the last place in a user's own code, neither ours nor a library's."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"SyntaxError: {error.msg} ({Path(error.filename).name}, line {error.lineno})"
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if not NOT_OWN.search(frame.filename)]
    place = f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""
    said = (str(error).splitlines() or [""])[0][:200]
    return f"{type(error).__name__}{': ' if said else ''}{said}{place}"


def near(given: object, known: Sequence[str], *, otherwise: str | None = None, listed: bool = False) -> str:
    """The hint for a name that is not among those known: "did you mean X?", else `otherwise`, by default all of them.

    listed: all of them behind the near ones too, unless they are too many to read.
    """
    all_known = f"choose from {', '.join(known)}"
    if not (closest := _closest(given, known)):
        return all_known if otherwise is None else otherwise
    return f"did you mean {' or '.join(closest)}?" + (f" {all_known}" if listed and len(known) <= READABLE else "")


def _closest(given: object, known: Sequence[str]) -> list[str]:
    """The two that are spelt most alike; else one that starts alike (epsilon, eps) or is short for it (lr)."""
    asked, bare = _bare(str(given)), {_bare(name): name for name in known}
    if alike := difflib.get_close_matches(asked, list(bare), n=2, cutoff=0.65):
        return [bare[name] for name in alike]
    starts = [name for name in bare if min(len(name), len(asked)) > 2 and asked[: len(name)] == name[: len(asked)]]
    short = [name for name in bare if "".join(part[:1] for part in name.split("-")) == asked and "-" in name]
    return [bare[name] for name in (starts or short)[:2]]


def _bare(name: str) -> str:
    return name.lstrip("-").lower().replace("_", "-")
