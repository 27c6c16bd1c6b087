"""Jobs in forked processes: what they give comes back under their numbers, and one that fails harms no other."""

import gc
import os
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from shconv import forked
from shconv.forked import Forked, processors
from toys import processes

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux alone")


def test_every_job_is_done_once_with_what_this_process_has() -> None:
    words = ["a", "b" * 200_000, "c"]  # the second is more than a pipe holds
    assert Forked(lambda k: (words[k], os.getpid()), 3, 2).results(range(3), 60.0).keys() == {0, 1, 2}
    given = Forked(lambda k: words[k], 3, 2).results(range(3), 60.0)
    assert [given[k] for k in range(3)] == words
    assert Forked(lambda k: k, 0, 2).results((), 60.0) == {}


def test_a_free_process_takes_the_next_job() -> None:
    def work(place: int) -> int:
        if place == 0:
            time.sleep(60.0)
        return os.getpid()

    started = Forked(work, 5, 2)
    assert started.results([0], 0.1, end=False) == {}  # who waits no longer need not end the others
    given = started.results(range(1, 5), 30.0)
    assert given.keys() == {1, 2, 3, 4}
    assert len(set(given.values())) == 1
    assert started.results(range(5), 0.0) == given  # what takes too long is ended


def test_garbage_of_this_process_is_not_freed_in_another() -> None:
    freed: list[str] = []

    class Held:
        def __init__(self) -> None:
            self.own = self

        def __del__(self) -> None:
            freed.append("freed")

    gc.collect()
    gc.disable()
    try:
        Held()
        given = Forked(lambda _: (gc.collect(), list(freed)), 1, 1).results([0], 30.0)
    finally:
        gc.enable()
    assert given[0][1] == []
    gc.collect()
    assert freed == ["freed"]


def test_a_job_that_failed_is_not_waited_for() -> None:
    def work(place: int) -> None:
        if place == 1:
            time.sleep(60.0)
        raise ValueError

    started = time.monotonic()
    pending = Forked(work, 2, 2)
    assert pending.results([0], 50.0) == {}
    assert time.monotonic() - started < 40.0
    pending.results([1], 0.0)


@pytest.mark.parametrize("end", [lambda: os._exit(1), lambda: 1 / 0])
def test_a_job_that_fails_is_missing_and_the_others_are_there(end: Any) -> None:
    given = Forked(lambda k: end() if k == 1 else k, 4, 2).results(range(4), 30.0)
    assert given == {0: 0, 2: 2, 3: 3}


@pytest.mark.parametrize("allowed", [0, 1])
def test_where_the_system_allows_no_more_processes_those_that_there_are_do_the_jobs(
    allowed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    started, original = [], os.fork

    def fork() -> int:
        started.append(1)
        if len(started) > allowed:
            raise BlockingIOError("Resource temporarily unavailable")
        return original()

    monkeypatch.setattr(os, "fork", fork)
    given = Forked(lambda k: k, 3, 2).results(range(3), 30.0)
    assert given == ({0: 0, 1: 1, 2: 2} if allowed else {})


def sleeping(told: Connection) -> None:
    begun = Forked(lambda place: time.sleep(600), 2, 2)
    told.send([process.pid for process in begun._pipes.values()])
    time.sleep(600)


def test_none_stays_behind_where_the_first_process_is_killed() -> None:
    context = processes()
    heard, told = context.Pipe(duplex=False)
    first = context.Process(target=sleeping, args=(told,))
    first.start()
    pids = heard.recv()
    time.sleep(0.2)  # until they are at work
    first.kill()
    first.join()
    deadline = time.monotonic() + 30.0
    while (left := [pid for pid in pids if _is_alive(pid)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(pids) == 2
    assert left == []


def _is_alive(pid: int) -> bool:
    try:
        return Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_daemon_and_another_system_fork_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert processors() == len(os.sched_getaffinity(0))
    monkeypatch.setattr(forked.sys, "platform", "darwin")
    assert processors() == 0
    monkeypatch.undo()
    assert Forked(lambda k: processors(), 1, 1).results([0], 30.0) == {0: 0}
