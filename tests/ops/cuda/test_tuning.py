"""Tiles that are tried: when, which one is kept, what is left out, and where the choice is remembered."""

import itertools
import json
import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from shconv.ops.cuda import tape, tuning

PLAIN = torch.linspace(-1, 1, 7)
CPU = torch.device("cpu")


class Tile(NamedTuple):
    rows: int
    columns: int


RULE, QUICK, OTHER = Tile(128, 64), Tile(64, 64), Tile(256, 64)


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SHCONV_CACHE", str(tmp_path))
    monkeypatch.delenv("SHCONV_TUNE", raising=False)
    _forget()


def _forget() -> None:
    """As another process begins."""
    tuning._store.cache_clear()


class Candidates:
    """Tiles that count their runs; the clock reads what each is said to take."""

    def __init__(self, seconds: dict[Tile, float]) -> None:
        self.seconds, self.runs = seconds, dict.fromkeys(seconds, 0)
        self.results: dict[Tile, Any] = dict.fromkeys(seconds, PLAIN)
        self.compiled: list[Tile] = []
        self.last = RULE

    def trial(self, tile: Tile) -> Callable[[], list[Tensor | None]]:
        def run() -> list[Tensor | None]:
            self.runs[tile] += 1
            self.last = tile
            if isinstance(self.results[tile], Exception):
                raise self.results[tile]
            return [None, self.results[tile]]

        return run

    def clock(self, run: Callable[[], object]) -> float:
        run()
        return self.seconds[self.last]

    def choose(self, key: str = "forward 64->64 56x56/1") -> Tile:
        return tuning.choose(key, list(self.seconds), self.trial, self.compiled.append, CPU, self.clock)


def test_the_fastest_is_tried_once_for_all_processes_and_compiled_before() -> None:
    candidates = Candidates({RULE: 3, OTHER: 5, QUICK: 1})
    assert candidates.choose() == QUICK
    assert candidates.runs == {RULE: 7, OTHER: 6, QUICK: 6}  # the rule's once more, to compare with
    assert set(candidates.compiled) == {RULE, OTHER, QUICK}
    candidates.seconds[QUICK] = 9
    assert candidates.choose() == QUICK
    _forget()
    assert candidates.choose() == QUICK
    assert sum(candidates.runs.values()) == 19
    assert candidates.choose("another") == RULE


def test_the_file_names_the_card_and_every_version_and_a_broken_one_is_tried_again() -> None:
    candidates = Candidates({RULE: 3, QUICK: 1})
    candidates.choose()
    path = tuning._path(CPU)
    assert f"torch-{tuning._version('torch')}" in path.name
    assert json.loads(path.read_text()) == {"forward 64->64 56x56/1": [64, 64]}
    for broken in (
        "",
        "{",
        "[]",
        '{"forward 64->64 56x56/1": 3}',
        '{"forward 64->64 56x56/1": [Infinity]}',
        "[" * 9999,
    ):
        path.write_text(broken)
        _forget()
        before = candidates.runs[QUICK]
        assert candidates.choose() == QUICK
        assert candidates.runs[QUICK] > before


def test_what_will_be_tried_is_collected_to_be_compiled_ahead_and_nothing_is_chosen_by_it() -> None:
    candidates = Candidates({RULE: 3, QUICK: 1})
    with tape.collecting():
        assert candidates.choose() == RULE
    assert candidates.runs == {RULE: 0, QUICK: 1}, "whoever asked runs the rule's"
    assert not candidates.compiled
    assert candidates.choose() == QUICK
    with tape.collecting():
        assert candidates.choose() == QUICK, "what was chosen is all that will run"
    assert candidates.runs[QUICK] == 7


def test_a_tile_that_is_no_longer_offered_is_not_taken_and_the_others_are_tried() -> None:
    Candidates({RULE: 3, QUICK: 1}).choose()
    assert Candidates({RULE: 3, OTHER: 1}).choose() == OTHER
    _forget()
    again = Candidates({RULE: 3, OTHER: 1})
    assert again.choose() == OTHER
    assert not sum(again.runs.values())


def test_what_another_process_found_meanwhile_is_kept() -> None:
    candidates = Candidates({RULE: 3, QUICK: 1})
    candidates.choose("a")
    path = tuning._path(CPU)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"b": [64, 64]}))
    candidates.choose("c")
    assert set(json.loads(path.read_text())) == {"a", "b", "c"}


def test_processes_that_keep_their_choices_at_once_lose_none(caplog: pytest.LogCaptureFixture) -> None:
    def keep(place: int) -> None:
        store = tuning._Store(CPU)  # of its own, as a process has
        for number in range(10):
            store.keep(f"{place} {number}", [place, number])

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(keep, range(4)))
    kept = json.loads(tuning._path(CPU).read_text())
    assert kept == {f"{place} {number}": [place, number] for place in range(4) for number in range(10)}
    assert not caplog.records


@pytest.mark.parametrize("home", [True, False])
def test_a_folder_that_cannot_be_written_costs_the_next_process_a_trial_and_one_warning(
    home: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if home:
        (tmp_path / "tiles").write_text("no folder")
    else:
        for name in ("SHCONV_CACHE", "XDG_CACHE_HOME"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # what it does where there is none
    candidates = Candidates({RULE: 3, QUICK: 1})
    assert candidates.choose("another") == candidates.choose() == candidates.choose() == QUICK
    assert candidates.runs[QUICK] == 12
    assert len(caplog.records) == 1
    assert ("no home folder" if not home else "tiles") in caplog.text


def test_the_least_of_the_repetitions_counts() -> None:
    candidates, times = Candidates({RULE: 3, QUICK: 0}), itertools.cycle([9, 9, 1, 9, 9])

    def clock(run: Callable[[], object]) -> float:
        run()
        return next(times) if candidates.last == QUICK else 3

    assert tuning.choose("key", [RULE, QUICK], candidates.trial, candidates.compiled.append, CPU, clock) == QUICK


def test_one_that_raises_is_out_and_the_log_says_why(caplog: pytest.LogCaptureFixture) -> None:
    candidates = Candidates({RULE: 3, QUICK: 1})
    candidates.results[QUICK] = RuntimeError("no\n kernel image")
    assert candidates.choose() == RULE
    assert [record.getMessage() for record in caplog.records] == [
        f"tile {QUICK} is left out for forward 64->64 56x56/1: RuntimeError: no kernel image"
    ]


WRONG = {
    "off": PLAIN * 1.01,
    "nan": PLAIN.clone().index_fill_(0, torch.tensor([2]), float("nan")),
    "infinite": PLAIN.clone().index_fill_(0, torch.tensor([2]), float("inf")),
    "another shape": PLAIN[:1],
    "nothing": None,
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_one_whose_result_deviates_from_the_rules_is_out_with_a_warning(wrong: Tensor | None, caplog: Any) -> None:
    candidates = Candidates({RULE: 3, QUICK: 1})
    candidates.results[QUICK] = wrong
    assert candidates.choose() == RULE
    (record,) = caplog.records
    assert (record.levelno, candidates.runs[QUICK]) == (logging.WARNING, 1)


def test_what_overflows_in_all_of_them_alike_is_no_difference() -> None:
    candidates = Candidates({RULE: 3, QUICK: 1})
    candidates.results = dict.fromkeys(candidates.seconds, WRONG["infinite"])
    assert candidates.choose() == QUICK


@pytest.mark.parametrize(("dtype", "eps"), [(torch.float32, 2**-10), (torch.float16, 2**-10), (torch.bfloat16, 2**-7)])
def test_a_result_may_differ_by_a_few_roundings_of_its_dtype(dtype: torch.dtype, eps: float) -> None:
    for share, chosen in ((3, QUICK), (5, RULE)):
        candidates = Candidates({RULE: 3, QUICK: 1})
        candidates.results = {RULE: torch.ones(3, dtype=dtype), QUICK: (torch.ones(3) * (1 + share * eps)).to(dtype)}
        assert candidates.choose(str(share)) == chosen


def _deterministic(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)


def _capturing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(torch.cuda, "is_initialized", lambda: True)
    patch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)


def _switched_off(patch: pytest.MonkeyPatch) -> None:
    patch.setenv("SHCONV_TUNE", "0")


@pytest.mark.parametrize("off", [_deterministic, _capturing, _switched_off])
def test_nothing_is_tried_where_nothing_may_be_measured(off: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert tuning.measures(1e9)
    off(monkeypatch)
    assert not tuning.measures(1e9)


def test_only_unknown_shapes_that_are_worth_it_are_tried_unless_all_are_asked_for(monkeypatch: Any) -> None:
    assert not tuning.measures(1e9, known=True)
    assert not tuning.measures(2e6)
    monkeypatch.setenv("SHCONV_TUNE", "1")
    assert tuning.measures(1e9, known=True)
    assert tuning.measures(2e6)
