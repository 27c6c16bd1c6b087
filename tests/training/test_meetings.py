"""How processes meet, whatever they do together: turns, one writer, one lock; and what they see of one that is gone."""

import errno
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import together
import torch
import torch.distributed as dist

from shconv.errors import InputError
from shconv.files import locked
from shconv.processes import Processes

COUNT = 3


def met(out: Path) -> dict[str, Any]:
    """Three processes that meet in every way; the first two are on one node."""
    os.environ["LOCAL_RANK"] = {"0": "0", "1": "1", "2": "0"}[os.environ["RANK"]]
    torch.set_num_threads(1 + int(os.environ["RANK"]))
    found = [Processes.found(), Processes.found(patient=True)]
    told: dict[str, Any] = {"place": [(each.rank, each.count, each.local_rank) for each in found]}
    told["threads"] = torch.get_num_threads()
    for name, processes in zip(("own", "patient"), found, strict=True):
        rank = processes.rank
        told[f"{name} sum"] = processes.sum([rank, 0.5])
        told[f"{name} gather"] = processes.gather({"rank": rank})
        told[f"{name} first"] = processes.on_first(lambda rank=rank: f"process {rank}")
        told[f"{name} failed"] = failure(processes)
        told[f"{name} lock"] = lock(processes, out / name)
        ways = (lambda p=processes: p.sum([1]), processes.wait, lambda p=processes: p.on_first(int))
        told[f"{name} heard"] = [heard(processes, meet, out / f"{name} {way}") for way, meet in enumerate(ways)]
    with found[1].in_turn():
        began = time.monotonic()
        time.sleep(0.05)
        turn = (began, time.monotonic())
    told["turns"] = found[1].gather(turn)
    return told


def failure(processes: Processes) -> int | None:
    def full() -> None:
        raise OSError(errno.ENOSPC, "full")

    try:
        processes.on_first(full)
    except OSError as error:
        return error.errno
    return None


def heard(processes: Processes, meet: Callable[[], object], sign: Path) -> bool:
    """Whether the first process hears a signal while it waits for the others, who come when it has."""
    before = signal.signal(signal.SIGUSR1, lambda number, frame: sign.touch())
    if processes.is_first:
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGUSR1)).start()
    else:
        late = time.monotonic() + 20
        while not sign.exists() and time.monotonic() < late:
            time.sleep(0.01)
    was = processes.is_first or sign.exists()
    meet()
    signal.signal(signal.SIGUSR1, before)
    return was


def lock(processes: Processes, folder: Path) -> list[bool]:
    """Is the folder taken inside, and can it be taken afterwards?"""
    seen = []
    with processes.alone_in(folder):
        seen.append(is_free(folder))
        processes.wait()
    processes.wait()
    if processes.is_first:
        seen.append(is_free(folder))
    return seen


def is_free(folder: Path) -> bool:
    try:
        with locked(folder):
            return True
    except InputError:
        return False


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return together.in_processes(COUNT, tmp_path_factory.mktemp("meetings"), met)


def test_each_knows_its_place_and_all_have_the_fewest_threads(three: list[dict[str, Any]]) -> None:
    assert [told["place"] for told in three] == [[(0, 3, 0)] * 2, [(1, 3, 1)] * 2, [(2, 3, 0)] * 2]
    assert [told["threads"] for told in three] == [1, 1, 1]


@pytest.mark.parametrize("group", ["own", "patient"])
def test_sums_and_values_are_the_same_for_all(three: list[dict[str, Any]], group: str) -> None:
    for told in three:
        assert told[f"{group} sum"] == [3, 1.5]
        assert told[f"{group} gather"] == [{"rank": rank} for rank in range(COUNT)]
        assert told[f"{group} first"] == "process 0"
        assert told[f"{group} failed"] == errno.ENOSPC


@pytest.mark.parametrize("group", ["own", "patient"])
def test_one_lock_holds_for_all_and_is_given_back(three: list[dict[str, Any]], group: str) -> None:
    assert [told[f"{group} lock"] for told in three] == [[False, True], [False], [False]]


def test_in_turn_the_first_goes_then_that_of_the_other_node_then_the_rest(three: list[dict[str, Any]]) -> None:
    for told in three:
        first, beside_it, other_node = told["turns"]
        assert first[1] <= other_node[0] < other_node[1] <= beside_it[0]


def left_behind(out: Path) -> dict[str, Any]:
    """The second process is gone where the first waits for it."""
    processes = Processes.found()
    patient = Processes.found(patient=True)
    if processes.rank == 1:
        torch.save({}, out / "told1.pt")
        os._exit(0)
    told: dict[str, Any] = {}
    for name, meet in {
        "wait": patient.wait,
        "sum": lambda: processes.sum([1.0]),
        "on_first": lambda: processes.on_first(int),
    }.items():
        try:
            meet()
        except ConnectionAbortedError as error:
            told[name] = error.strerror
    try:
        with processes.naming_the_lost():
            dist.all_reduce(torch.ones(1))
    except ConnectionAbortedError as error:
        told["torch's own"] = error.strerror
    return told


@pytest.mark.parametrize("name", ["own", "patient"])
def test_a_signal_is_heard_while_others_are_waited_for(three: list[dict[str, Any]], name: str) -> None:
    assert [told[f"{name} heard"] for told in three] == [[True] * 3] * COUNT


def test_a_process_that_is_gone_is_named_wherever_it_is_missed(tmp_path: Path) -> None:
    first, _ = together.in_processes(2, tmp_path, left_behind)
    assert first.keys() == {"wait", "sum", "on_first", "torch's own"}
    assert all(said.startswith("another of the 2 processes is gone") for said in first.values())
    assert all(said.endswith("the same command continues") for said in first.values())


def test_another_error_is_not_taken_for_a_lost_process() -> None:
    for count in (1, 2):
        with pytest.raises(RuntimeError, match="shapes"), Processes(count=count).naming_the_lost():
            raise RuntimeError("shapes cannot be multiplied")
    with pytest.raises(RuntimeError, match="timed out"), Processes().naming_the_lost():
        raise RuntimeError("timed out")


def test_alone_nothing_is_waited_for(tmp_path: Path) -> None:
    alone = Processes.found(patient=True)
    assert (alone.rank, alone.count, alone.device.type) == (0, 1, "cpu")
    assert not dist.is_initialized()
    assert (alone.sum([1.5]), alone.gather("a"), alone.on_first(lambda: 7)) == ([1.5], ["a"], 7)
    with alone.in_turn(), alone.alone_in(tmp_path):
        assert not is_free(tmp_path)
