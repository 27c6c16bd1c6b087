"""What is set before torch loads: how threads wait, and what Ctrl-C does meanwhile. In a `shconv` command alone: a
program that imports the library decides on its own environment, and has often loaded torch already, when it is too late
to say."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn

WAIT = "OMP_WAIT_POLICY"


def wait_without_spinning() -> None:
    """OMP_WAIT_POLICY=passive in this process and its children, unless it is set or this is no `shconv` command.

    Threads that spin while they wait take the cores from those that work: where others use the machine too, a training
    can be ten times slower.
    """
    if is_command():
        os.environ.setdefault(WAIT, "passive")


@contextmanager
def ended_in_a_line() -> Iterator[None]:
    """In a `shconv` command, Ctrl-C in here ends the process: raised inside an import, it would print a traceback, or
    another library would take it for an import that failed. So does a current folder that was removed: torch's MKL
    would end the process with a fatal error that does not say so."""
    if is_command():
        try:
            os.getcwd()
        except FileNotFoundError:
            _end("the current folder was removed; change to another one", 2)
    heard = is_command() and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if heard:
        signal.signal(signal.SIGINT, _stop)
    try:
        yield
    finally:
        if heard:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    _end("stopped", 130)


def _end(message: str, code: int) -> NoReturn:
    with suppress(OSError):  # standard error may be closed
        os.write(2, f"shconv: {message}\n".encode())
    os._exit(code)


def is_command() -> bool:
    """Was this process started as `shconv ...` or `python -m shconv ...`, by torchrun and its like too?"""
    started = sys.argv[0] if sys.argv else ""
    if started != "-m":  # which stands there until the module is found, and a package's parts are imported before
        return Path(started).stem == "shconv"
    module = sys.orig_argv[-len(sys.argv)].removeprefix("-m")
    return module.partition(".")[0] == "shconv"
