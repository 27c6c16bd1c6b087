"""Trainings side by side on a CPU: a small network's threads mostly wait for each other, so several trainings at a time
on a part of the cores each end sooner than one after the other on all of them."""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from shconv.data import ImageData
from shconv.data.splits import MemorySplit
from shconv.data.workers import shared_memory
from shconv.files import InUse
from shconv.processes import Processes
from shconv.terminal import Lines
from shconv.training.loop import train
from shconv.training.signals import ended_by_sigterm
from shconv.training.stored import is_finished

Task = dict[str, Any]  # the arguments of `train`
PATIENCE = 60.0  # seconds for a helper that is asked to stop to finish its step and store its state


def can_be_side_by_side(data: ImageData, processes: Processes) -> bool:
    """On a CPU, of images in memory, where the memory that processes share has room for them."""
    if processes.count > 1 or processes.device.type != "cpu" or not isinstance(data.train, MemorySplit):
        return False
    held = [split.images for split in (data.train, data.test) if isinstance(split, MemorySplit)]
    size = sum(images.untyped_storage().nbytes() for images in held if not images.is_shared())
    room = shared_memory()
    return room is None or size <= room[1]


def train_side_by_side(tasks: Sequence[Task], lines: Lines, on_end: Callable[[], None] = lambda: None) -> set[Path]:
    """Train each task's network, dearest task first, in as many processes as there are tasks or threads, and share the
    threads equally. Asks for `can_be_side_by_side`.

    A helper takes the next task that no other process works on, and says nothing. What it fails at, this process tries
    again and reports. A stop of this process stops the helpers; all states are stored. `on_end` is called after each
    training of this process.

    Returns the folders of the networks that helpers trained. Raises what `train` raises.
    """
    left = [task for task in tasks if not is_finished(Path(task["folder"]))]
    if not left:
        return set()
    before = torch.get_num_threads()
    count = min(len(tasks), before)  # by all the tasks: a run that continues has the same threads, so the same bits
    own: set[Path] = set()
    try:
        torch.set_num_threads(max(1, before // count))
        with _helpers(left, min(count, len(left)) - 1) as helpers:
            if helpers:
                lines.say(f"{len(helpers) + 1} networks are trained at a time; the lines below are about one of them.")
            for task in left:
                with suppress(InUse):
                    if not is_finished(Path(task["folder"])):
                        train(**task)
                        own.add(Path(task["folder"]))
                        on_end()
            with ended_by_sigterm(), lines.alive(lambda: "waiting for a network that another process trains"):
                for helper in helpers:
                    helper.join()
        for task in left:
            if not is_finished(Path(task["folder"])):  # a helper failed at it
                train(**task)
                own.add(Path(task["folder"]))
    finally:
        torch.set_num_threads(before)
    return {Path(task["folder"]) for task in left} - own


@contextmanager
def _helpers(tasks: Sequence[Task], count: int) -> Iterator[list[BaseProcess]]:
    """So many processes at work on the tasks; what is left of them at the end is stopped."""
    if count < 1 or threading.current_thread() is not threading.main_thread():
        yield []
        return
    context = multiprocessing.get_context("spawn")
    arguments = (tasks, torch.get_num_threads())
    helpers: list[BaseProcess] = []
    heard = signal.signal(signal.SIGINT, signal.SIG_IGN)  # they inherit it: Ctrl-C is this process's to pass on
    script = sys.modules["__main__"]  # which a helper would run again, and a user's script may not expect that
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        with suppress(OSError, RuntimeError):  # no more memory or processes: those that there are do the work
            for _ in range(count):
                fresh = context.Process(target=_help, args=arguments, daemon=True)
                fresh.start()
                helpers.append(fresh)
    finally:
        sys.modules["__main__"] = script
        signal.signal(signal.SIGINT, heard)
    try:
        yield helpers
    finally:
        for helper in helpers:
            helper.terminate()
        for helper in helpers:
            helper.join(PATIENCE)
            helper.kill()


def _help(tasks: Sequence[Task], threads: int) -> None:
    """A helper's work."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    for task in tasks:
        with suppress(Exception):  # in use by another, or an error that the first process meets again
            train(**task, progress=False)


def _end_with_parent() -> None:
    """Where the first process is killed, its helpers store their states and end, so that the same command continues."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
