"""Being asked to stop: SIGTERM from a scheduler that needs the machine, SIGHUP from a terminal that closes, SIGINT from
the keyboard. A training only notes them, finishes its step, stores its state and ends; a second SIGINT ends it at once.
All else ends at once."""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

from shconv.data.worker_processes import STOPS
from shconv.errors import GOES_ON

ENDS = tuple(number for number in STOPS if number != signal.SIGINT)
AGAIN = 0.05  # seconds until a signal that was lost is sent again


class Preempted(SystemExit):
    """Raised where SIGTERM or SIGHUP ended what is stored: the process exits with code 75."""

    def __init__(self) -> None:
        super().__init__(GOES_ON)


class StopRequest:
    """Which signal has come, if any."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self.since = 0.0

    def flags(self) -> list[float]:
        """(SIGTERM or SIGHUP came, SIGINT came), to be summed over processes."""
        return [float(self.signal in ENDS), float(self.signal == signal.SIGINT)]

    def waited(self, seconds: float) -> bool:
        """Whether one has come, so many seconds ago or more."""
        return self.signal is not None and time.monotonic() - self.since >= seconds

    def note(self, number: int, frame: FrameType | None) -> None:
        """The signal handler."""
        _leave_terminal(number)
        if self.signal is None:
            self.since = time.monotonic()
        self.signal = signal.Signals(number)
        # Not so for the others: a launcher may send SIGTERM twice, and kills in the end what does not end by itself.
        if number == signal.SIGINT:
            signal.signal(number, signal.default_int_handler)


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Signals are noted in here; one that came too late to stop anything acts as ever at the end. In a
    thread, where Python allows no handlers, they always do."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = _heard(*ENDS, signal.SIGINT)
    try:
        for number in before:
            signal.signal(number, request.note)
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if request.signal is not None:
        signal.raise_signal(request.signal)


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """SIGTERM and SIGHUP raise Preempted in here: around what stores its results as they come, and workers that have to
    end. Where Python drops what a signal raised, as it does in a __del__ (a DataLoader's waits for its workers), the
    signal is sent again; so is SIGINT."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: FrameType | None) -> NoReturn:
        _leave_terminal(number)
        raise Preempted

    def send_again(dropped: "sys.UnraisableHookArgs") -> None:
        if not isinstance(dropped.exc_value, KeyboardInterrupt | Preempted):
            hook(dropped)
            return
        number = signal.SIGINT if isinstance(dropped.exc_value, KeyboardInterrupt) else signal.SIGTERM
        threading.Timer(AGAIN, signal.raise_signal, [number]).start()

    before, hook = _heard(*ENDS), sys.unraisablehook
    try:
        sys.unraisablehook = send_again
        for number in before:
            signal.signal(number, end)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        sys.unraisablehook = hook


def _heard(*numbers: signal.Signals) -> dict[signal.Signals, Any]:
    """The handlers of these signals; a SIGHUP that nohup ignores stays ignored."""
    handlers = {number: signal.getsignal(number) for number in numbers}
    return {number: each for number, each in handlers.items() if number.name != "SIGHUP" or each != signal.SIG_IGN}


def _leave_terminal(number: int) -> None:
    """After SIGHUP every write to the terminal that closed would fail: what is said from now on goes nowhere."""
    if signal.Signals(number).name == "SIGHUP":
        for stream in (1, 2):
            try:
                os.write(stream, b"")
            except OSError:
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream)


def stopped_by(flags: Sequence[float]) -> BaseException | None:
    """What to raise once the state is stored, by the sums of all `flags`; None where nobody was asked to stop."""
    terminated, interrupted = flags
    if terminated:
        return Preempted()
    return KeyboardInterrupt() if interrupted else None
