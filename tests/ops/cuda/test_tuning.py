"""The choice on CUDA: what is measured, what is dropped, what is remembered, and when nothing is."""

import itertools
import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from shconv.ops.cuda import tuning
from shconv.ops.geometry import Geometry

PLAIN = torch.linspace(-1, 1, 7)


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "_fastest", {})
    monkeypatch.setattr(tuning, "_said", set())
    monkeypatch.delenv("SHCONV_TUNE", raising=False)


class Candidates:
    """Formulations that count their runs; the clock reads what each is said to take."""

    def __init__(self, **seconds: float) -> None:
        self.seconds, self.runs = seconds, dict.fromkeys(seconds, 0)
        self.results: dict[str, Any] = dict.fromkeys(seconds, PLAIN)
        self.calls: dict[str, Callable[[], list[Tensor | None]]] = {name: self._call(name) for name in seconds}
        self.last = ""

    def _call(self, name: str) -> Callable[[], list[Tensor | None]]:
        def call() -> list[Tensor | None]:
            self.runs[name] += 1
            self.last = name
            if isinstance(self.results[name], Exception):
                raise self.results[name]
            return [None, self.results[name]]

        return call

    def clock(self, call: Callable[[], object]) -> float:
        call()
        return self.seconds[self.last]

    def fastest(self, key: object = "key", dtype: torch.dtype = torch.float32) -> str:
        return tuning.fastest(key, self.calls, "plain", "rule", dtype, self.clock)


def test_the_fastest_is_measured_once_and_remembered_by_its_key() -> None:
    candidates = Candidates(plain=3, slow=5, quick=1)
    assert candidates.fastest() == "quick"
    assert candidates.runs == {"plain": 7, "slow": 6, "quick": 6}  # plain once more, to compare with
    candidates.seconds["quick"] = 9
    assert candidates.fastest() == "quick"
    assert sum(candidates.runs.values()) == 19
    assert candidates.fastest("another") == "plain"


def test_the_least_of_the_repetitions_counts() -> None:
    candidates, times = Candidates(plain=3, hiccups=0), itertools.cycle([9, 9, 1, 9, 9])

    def clock(call: Callable[[], object]) -> float:
        call()
        return next(times) if candidates.last == "hiccups" else 3

    assert tuning.fastest("key", candidates.calls, "plain", "rule", torch.float32, clock) == "hiccups"


def test_one_that_raises_is_out_and_the_log_says_why_once(caplog: pytest.LogCaptureFixture) -> None:
    candidates = Candidates(plain=3, broken=1)
    candidates.results["broken"] = RuntimeError("no\n kernel image")
    assert [candidates.fastest("a"), candidates.fastest("b")] == ["plain", "plain"]
    assert candidates.runs["broken"] == 2
    assert [record.getMessage() for record in caplog.records] == [
        "formulation 'broken' is left out: RuntimeError: no kernel image"
    ]


WRONG = {
    "off": PLAIN * 1.01,
    "nan": PLAIN.clone().index_fill_(0, torch.tensor([2]), float("nan")),
    "infinite": PLAIN.clone().index_fill_(0, torch.tensor([2]), float("inf")),
    "another shape": PLAIN[:1],
    "nothing": None,
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_one_whose_result_deviates_is_out_with_one_warning(wrong: Tensor | None, caplog: Any) -> None:
    candidates = Candidates(plain=3, wrong=1)
    candidates.results["wrong"] = wrong
    assert candidates.fastest("a") == candidates.fastest("b") == "plain"
    (record,) = caplog.records
    assert (record.levelno, candidates.runs["wrong"]) == (logging.WARNING, 2)
    assert "'wrong' is left out: Deviation: its result is off" in record.getMessage()


@pytest.mark.parametrize(("dtype", "eps"), [(torch.float32, 2**-10), (torch.float16, 2**-10), (torch.bfloat16, 2**-7)])
def test_a_result_may_differ_by_a_few_roundings_of_its_dtype(dtype: torch.dtype, eps: float) -> None:
    for share, chosen in ((3, "quick"), (5, "plain")):
        candidates = Candidates(plain=3, quick=1)
        candidates.results["quick"] = PLAIN * (1 + share * eps)
        assert candidates.fastest(share, dtype) == chosen


def test_an_overflow_is_not_compared_and_the_next_call_measures() -> None:
    candidates = Candidates(plain=3, quick=1)
    candidates.results = dict.fromkeys(candidates.seconds, PLAIN * float("inf"))
    assert candidates.fastest() == "rule"
    assert candidates.runs == {"plain": 1, "quick": 0}
    candidates.results = dict.fromkeys(candidates.seconds, PLAIN)
    assert candidates.fastest() == "quick"


def test_without_a_plain_result_the_rule_holds_for_good() -> None:
    candidates = Candidates(plain=3, quick=1)
    candidates.results["plain"] = torch.OutOfMemoryError("too large")
    assert candidates.fastest() == candidates.fastest() == "rule"
    assert candidates.runs == {"plain": 1, "quick": 0}


def _deterministic(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)


def _capturing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(torch.cuda, "is_initialized", lambda: True)
    patch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)


def _switched_off(patch: pytest.MonkeyPatch) -> None:
    patch.setenv("SHCONV_TUNE", "0")


@pytest.mark.parametrize("off", [_deterministic, _capturing, _switched_off])
def test_nothing_runs_where_nothing_may_be_measured(off: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    candidates = Candidates(plain=3, quick=1)
    off(monkeypatch)
    assert candidates.fastest() == "rule"
    assert not any(candidates.runs.values())


@pytest.mark.parametrize(("off", "chosen"), [(_deterministic, "rule"), (_switched_off, "rule"), (_capturing, "quick")])
def test_what_was_measured_before_counts_in_a_graph_but_not_where_the_rule_is_fixed(
    off: Any, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    candidates = Candidates(plain=3, quick=1)
    assert candidates.fastest() == "quick"
    off(monkeypatch)
    assert candidates.fastest() == chosen


def test_only_so_many_choices_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "_MOST_KEYS", 2)
    candidates = Candidates(plain=3, quick=1)
    assert [candidates.fastest(key) for key in "abcab"] == ["quick", "quick", "rule", "quick", "quick"]


def test_a_key_tells_apart_what_the_times_depend_on() -> None:
    geometry, mask = Geometry((1, 1), (1, 1), (1, 1), 1), (True, True, True)
    x, weight, M = torch.ones(2, 4, 5, 5), torch.ones(4, 4, 3, 3), torch.ones(2, 3, 3)
    last = x.contiguous(memory_format=torch.channels_last)
    different = [
        (x, weight, M, geometry, mask),
        (x[:1], weight, M[:1], geometry, mask),
        (last, weight, M, geometry, mask),
        (x.half(), weight.half(), M, geometry, mask),
        (x, weight, M, geometry._replace(stride=(2, 2)), mask),
        (x, weight, M, geometry, (True, False, True)),
        (x, weight, M, geometry, ()),
        (x.to("meta"), weight.to("meta"), M.to("meta"), geometry, mask),
    ]
    assert len({tuning.key(*each) for each in different}) == len(different)
    assert tuning.key(x.clone() + 1, weight, M, geometry, list(mask)) == tuning.key(*different[0])


def test_a_kernel_for_every_image_is_tried_only_where_it_is_small_beside_the_activations() -> None:
    geometry = Geometry((1, 1), (1, 1), (1, 1), 1)
    weight, small, large = torch.ones(16, 16, 3, 3), torch.ones(1, 16, 2, 2), torch.ones(1, 16, 9, 9)
    assert not tuning.affordable("grouped", small, weight, geometry)
    assert tuning.affordable("grouped", large, weight, geometry)
    assert tuning.affordable("unfold", small, weight, geometry)
