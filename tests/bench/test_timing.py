"""The arithmetic of timing, with a clock that is told what to say."""

import gc

import pytest
import torch

from shconv.bench import timing
from shconv.bench.timing import interleaved

CPU = torch.device("cpu")


class Clock:
    """Moves only when work is done."""

    def __init__(self) -> None:
        self.now, self.order = 0.0, []

    def __call__(self) -> float:
        return self.now

    def work(self, name: str, *seconds: float):
        """Work of these lengths, one after the other."""
        lengths = iter(seconds)

        def done() -> None:
            self.order.append(name)
            self.now += next(lengths)

        return done


def test_every_round_runs_each_contender_once_in_the_order_given() -> None:
    clock = Clock()
    works = {name: clock.work(name, *[1.0] * 4) for name in "bac"}
    interleaved(works, 3, CPU, clock=clock)
    assert clock.order == list("bac" * 4)  # one round warms up


def test_the_median_forgets_the_first_round_and_one_busy_moment() -> None:
    clock = Clock()
    works = {"a": clock.work("a", 100, 2, 50, 3), "b": clock.work("b", 100, 7, 5, 6)}
    assert interleaved(works, 3, CPU, clock=clock) == {"a": 3, "b": 6}


def test_an_even_number_of_rounds_takes_the_mean_of_the_middle_two() -> None:
    clock = Clock()
    assert interleaved({"a": clock.work("a", 100, 1, 4)}, 2, CPU, clock=clock) == {"a": 2.5}


@pytest.mark.parametrize(("threads", "seconds"), [(1, 2), (2, 5)])
def test_one_thread_on_a_cpu_is_timed_by_the_processor_and_more_by_the_wall(
    threads: int, seconds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    processor, wall = Clock(), Clock()
    works = [processor.work("a", 1, 2), wall.work("a", 1, 5)]
    monkeypatch.setattr(timing.time, "process_time", processor)
    monkeypatch.setattr(timing.time, "perf_counter", wall)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert interleaved({"a": lambda: [work() for work in works]}, 1, CPU) == {"a": seconds}


def test_every_round_ticks_once() -> None:
    ticks: list[None] = []
    interleaved({"a": int, "b": int}, 4, CPU, lambda: ticks.append(None))
    assert len(ticks) == 5


def test_garbage_is_collected_between_timings_only_and_again_after_an_error() -> None:
    seen = []

    def broken() -> None:
        seen.append(gc.isenabled())
        raise KeyError

    with pytest.raises(KeyError):
        interleaved({"a": broken}, 1, CPU)
    assert seen == [False]
    assert gc.isenabled()
