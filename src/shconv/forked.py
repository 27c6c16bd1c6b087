"""Jobs that forked processes do side by side while this one goes on; whoever is free takes the next. They have what
this process has, so nothing is sent to them; they must not touch a GPU, nor count on its threads."""

import ctypes
import gc
import multiprocessing
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any

_PR_SET_PDEATHSIG = 1  # of Linux
_BYTES = 4  # of a job's number; what a pipe holds is far more than there are jobs


def usable_cores() -> int:
    """Those that this process may use, where the system tells."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processors() -> int:
    """How many processes can be forked that each have a core of their own; 0 where none can be forked."""
    if sys.platform != "linux" or multiprocessing.current_process().daemon:
        return 0
    return usable_cores()


class Forked:
    """work(0), work(1) ... work(jobs - 1), begun in this order in so many processes, or fewer where the system allows
    no more. They end with the thread that began them, however it ends."""

    def __init__(self, work: Callable[[int], Any], jobs: int, processes: int) -> None:
        self._given: dict[int, tuple[Any, ...]] = {}  # (result,), or () where the job failed
        self._pipes: dict[Connection, Any] = {}
        context = multiprocessing.get_context("fork")
        numbers, end = os.pipe()
        os.write(end, b"".join(number.to_bytes(_BYTES, "little") for number in range(jobs)))
        os.close(end)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads: none here waits for theirs
            for _ in range(min(processes, jobs)):
                here, there = context.Pipe(duplex=False)
                arguments = (work, numbers, there, [here, *self._pipes])
                process = context.Process(target=_work, args=arguments, daemon=True)
                try:
                    process.start()
                except OSError:  # no memory, or no more processes allowed: those that there are do the jobs
                    here.close()
                    break
                finally:
                    there.close()
                self._pipes[here] = process
        os.close(numbers)

    def results(self, wanted: Collection[int], seconds: float, end: bool = True) -> dict[int, Any]:
        """What the wanted jobs gave, by number. Those that failed, or take longer than so many seconds from now, are
        missing; in the latter case all processes are ended, unless `end` is False."""
        deadline = time.monotonic() + seconds
        while self._pipes and not self._given.keys() >= set(wanted):
            ready = wait(list(self._pipes), max(0.0, deadline - time.monotonic()))
            if not (ready or end):
                break
            for pipe in ready or list(self._pipes):
                self._hear(pipe, ended=not ready)
        return {number: self._given[number][0] for number in wanted if self._given.get(number)}

    def _hear(self, pipe: Any, ended: bool) -> None:
        if not ended:
            try:
                number, given = pipe.recv()
                self._given[number] = given
                return
            except (EOFError, OSError):
                pass
        process = self._pipes.pop(pipe)
        process.kill()
        process.join()
        pipe.close()


def _work(work: Callable[[int], Any], numbers: int, pipe: Any, others: Sequence[Connection]) -> None:
    for each in others:  # so that there is nobody left to send to where the first process is killed
        each.close()
    gc.freeze()  # what is garbage already may be on a GPU, and is the first process's to free
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process ends this one
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    while number := os.read(numbers, _BYTES):
        given: tuple[Any, ...] = ()
        place = int.from_bytes(number, "little")
        with suppress(Exception):
            given = (work(place),)
        pipe.send((place, given))
