"""Interleaved medians: every round runs each contender once, so that a busy machine is busy for all of them.
Only the ratios of such medians mean something."""

import gc
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch

Work = Callable[[], object]


def interleaved(
    contenders: Mapping[str, Work],
    rounds: int,
    device: torch.device,
    tick: Callable[[], object] = lambda: None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Median seconds of each contender over the rounds, which follow one uncounted round and keep the order given.

    tick is called after every round, the uncounted one included. On a GPU what is shorter than its launches, some tens
    of microseconds each, is timed as its launches.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    with _no_garbage_collection():
        for turn in range(rounds + 1):
            for name, work in contenders.items():
                _wait(device)
                start = clock()
                work()
                _wait(device)
                if turn:
                    seconds[name].append(clock() - start)
            tick()
    return {name: statistics.median(values) for name, values in seconds.items()}


def _wait(device: torch.device) -> None:
    """A GPU works behind the program's back; its clock is read when it is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
