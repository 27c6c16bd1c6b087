"""Interleaved medians: every round runs each contender once, so that a busy machine is busy for all of them.
Only the ratios of such medians mean something."""

import gc
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch

from shconv.bench.device import Times, Work, measured


def interleaved(
    contenders: Mapping[str, Work],
    rounds: int,
    device: torch.device,
    tick: Callable[[], object] = lambda: None,
    clock: Callable[[], float] | None = None,
) -> dict[str, float]:
    """Median seconds of each contender over the rounds, which follow one uncounted round and keep the order given.

    Seconds are those of a clock on the wall; on a CPU with one thread those of the processor, which other programs on
    the machine do not lengthen by taking turns with this one.

    tick is called after every round, the uncounted one included. On a GPU this is what a user waits; `compared` has the
    card's time and the host's.
    """
    if clock is None:
        alone = device.type == "cpu" and torch.get_num_threads() == 1
        clock = time.process_time if alone else time.perf_counter
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


def compared(
    contenders: Mapping[str, Work], rounds: int, device: torch.device, tick: Callable[[], object] = lambda: None
) -> dict[str, Times]:
    """Like interleaved: on a GPU with what the card and what the host take; on a CPU all three are one."""
    if device.type != "cuda":
        found = interleaved(contenders, rounds, device, tick)
        return {name: Times(seconds, seconds, seconds) for name, seconds in found.items()}
    rows: dict[str, list[Times]] = {name: [] for name in contenders}
    with _no_garbage_collection():
        for turn in range(rounds + 1):
            for name, work in contenders.items():
                one = measured(work, device)
                if turn:
                    rows[name].append(one)
            tick()
    return {name: Times(*map(statistics.median, zip(*found, strict=True))) for name, found in rows.items()}


def parts(device: torch.device, first: str = "device") -> dict[str, str]:
    """Which of Times is shown, and what its row's name ends with: on a GPU all three, `first` under the name itself."""
    if device.type != "cuda":
        return {"wall": ""}
    return {first: ""} | {name: f", {name}" for name in ("device", "host", "wall") if name != first}


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
