"""What a GPU takes for a piece of work, apart from what the host takes to ask for it."""

import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import torch

from shconv.capturing import CudaRecorder, Results

Work = Callable[[], object]

_WARM = 3  # calls before anything counts: compiling, choosing, allocating
_LEAD = 1.5  # times the host's time, in which the card is kept from its work, so that all of it is waiting for it
_CYCLES = 1.5e9  # of a card's clock in a second, about


class Times(NamedTuple):
    """Seconds of one call."""

    wall: float  # from the call until the card has done its work
    host: float  # until the call returns
    device: float
    """Of the card alone, with its work waiting for it. Where the work waits for the card, or has more than the thousand
    launches that can wait for it, part of the host's time is in it: a captured graph's has none."""


def times(work: Work, device: torch.device, rounds: int = 5, calls: int = 3) -> Times:
    """Medians over the rounds. On a CPU all three are the same."""
    for _ in range(_WARM):
        work()
    if device.type != "cuda":
        wall = statistics.median(_seconds(work) for _ in range(rounds))
        return Times(wall, wall, wall)
    found = [measured(work, device, calls) for _ in range(rounds)]
    return Times(*(statistics.median(each) for each in zip(*found, strict=True)))


def replayed(work: Work, device: torch.device, calls: int = 10, replays: int = 7) -> float:
    """Seconds of one call on the card, from replays of a CUDA graph of several; on a CPU of one call.

    Raises Uncapturable for work that cannot be captured."""
    if device.type != "cuda":
        return times(work, device, rounds=1).wall
    replay = captured(lambda: [work() for _ in range(calls)])
    found = []
    for _ in range(replays):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        replay()
        end.record()
        end.synchronize()
        found.append(start.elapsed_time(end) / 1e3 / calls)
    return float(statistics.median(found))


def captured(work: Work) -> Work:
    """The same work, from a CUDA graph. Raises Uncapturable where it waits for the card or reads what it computes, and
    leaves nothing under way."""
    recorder, kept = CudaRecorder(), list[object]()

    def run() -> Results:
        kept[:] = [work()]
        return ()

    for _ in range(_WARM):
        recorder.aside(run)
    recording = recorder.record(run, recorder.pool())

    def replay(kept: object = kept) -> None:  # what the graph writes stays as long as it
        recording.replay()

    return replay


def measured(work: Work, device: torch.device, calls: int = 1) -> Times:
    """Once, on a card."""
    torch.cuda.synchronize(device)
    begun = time.perf_counter()
    work()
    host = time.perf_counter() - begun
    torch.cuda.synchronize(device)
    wall = time.perf_counter() - begun
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda._sleep(int(_LEAD * host * calls * _CYCLES))
    start.record()
    for _ in range(calls):
        work()
    end.record()
    end.synchronize()
    return Times(wall, host, start.elapsed_time(end) / 1e3 / calls)


def _seconds(work: Work) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun
