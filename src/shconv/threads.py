"""How threads wait, said before torch loads. In a `shconv` command alone: a program that imports the library decides on
its own environment, and has often loaded torch already, when it is too late to say."""

import os
import sys
from pathlib import Path

WAIT = "OMP_WAIT_POLICY"


def wait_without_spinning() -> None:
    """OMP_WAIT_POLICY=passive in this process and its children, unless it is set or this is no `shconv` command.

    Threads that spin while they wait take the cores from those that work: where others use the machine too, a training
    can be ten times slower.
    """
    if is_command():
        os.environ.setdefault(WAIT, "passive")


def is_command() -> bool:
    """Was this process started as `shconv ...` or `python -m shconv ...`, by torchrun and its like too?"""
    started = sys.argv[0] if sys.argv else ""
    if started != "-m":  # which stands there until the module is found, and a package's parts are imported before
        return Path(started).stem == "shconv"
    module = sys.orig_argv[-len(sys.argv)].removeprefix("-m")
    return module.partition(".")[0] == "shconv"
