"""Times of a card, of the host and of both: what is taken from where, with a card that only counts."""

import itertools
import weakref
from typing import Any

import pytest
import torch

from shconv.bench import device, timing
from shconv.bench.device import Times
from shconv.capturing import CudaRecorder, Recording

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


class Card:
    """In place of torch.cuda: its clock runs by `takes` milliseconds for every call of `work`, the host's by one."""

    def __init__(self, takes: float) -> None:
        self.takes, self.now, self.host, self.slept = takes, 0.0, itertools.count(), []

    def work(self) -> None:
        self.now += self.takes

    def clock(self) -> float:
        return float(next(self.host))

    def Event(self, enable_timing: bool) -> Any:  # noqa: N802
        card = self

        class Event:
            def record(self) -> None:
                self.at = card.now

            def synchronize(self) -> None:
                pass

            def elapsed_time(self, end: Any) -> float:
                return float(end.at - self.at)

        return Event()


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Card:
    found = Card(takes=4.0)
    monkeypatch.setattr(torch.cuda, "Event", found.Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    monkeypatch.setattr(torch.cuda, "_sleep", found.slept.append)
    monkeypatch.setattr(device.time, "perf_counter", found.clock)
    return found


def test_the_cards_time_is_that_of_a_call_and_is_taken_while_its_work_waits_for_it(card: Card) -> None:
    found = device.times(card.work, CUDA, rounds=3, calls=5)
    assert found == Times(wall=2.0, host=1.0, device=0.004)
    assert card.slept == [int(1.5 * 1.0 * 5 * 1.5e9)] * 3, "longer than the host takes to ask for five calls"
    assert card.now == 4.0 * (3 + 3 * (1 + 5))


def test_on_a_cpu_the_three_are_one() -> None:
    found = device.times(lambda: sum(range(1000)), CPU)
    assert found.wall == found.host == found.device > 0
    assert device.replayed(lambda: None, CPU) >= 0


def test_comparisons_show_all_three_on_a_card_and_one_on_a_cpu(card: Card) -> None:
    seconds = timing.compared({"own": card.work, "twin": lambda: None}, 3, CUDA)
    assert (seconds["own"].device, seconds["twin"].device) == (0.004, 0.0)
    assert timing.parts(CUDA) == {"device": "", "host": ", host", "wall": ", wall"}
    assert timing.parts(CUDA, first="wall") == {"wall": "", "device": ", device", "host": ", host"}
    assert timing.parts(CPU) == {"wall": ""}


def test_captured_work_is_warmed_up_and_recorded_once_and_its_results_stay_with_the_graph(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    did: list[str] = []
    results: list[weakref.ref[Any]] = []

    def work() -> torch.Tensor:
        made = torch.zeros(1)
        results.append(weakref.ref(made))
        return made

    class Recorder(CudaRecorder):
        def aside(self, run: Any) -> Any:
            did.append("aside")
            return run()

        def record(self, run: Any, pool: Any) -> Recording:
            did.append("record")
            return Recording(run(), lambda: did.append("replay"))

        def pool(self) -> None:
            return None

    monkeypatch.setattr(device, "CudaRecorder", Recorder)
    replay = device.captured(work)
    replay()
    replay()
    assert did == ["aside"] * 3 + ["record"] + ["replay"] * 2
    assert [each() is not None for each in results] == [False, False, False, True]
    del replay
    assert results[-1]() is None
