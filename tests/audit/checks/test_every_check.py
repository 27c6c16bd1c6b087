"""What all checks promise: their place in the list, their words, an honest network without an alarm, and no crash when
there is no time left."""

import json
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from check_toys import SMALL, Honest, Noisy, Shc, blind, finding, make_audit, toy_images
from torch import nn

from shconv import create_model
from shconv.audit.check import Check, why_not
from shconv.audit.checks import CHECKS
from shconv.audit.checks.c10_indicators import Seen
from shconv.audit.checks.penultimate import Binary
from shconv.audit.checks.side import _SameDraws
from shconv.audit.through import Through

PARTS = [check for check in CHECKS if isinstance(check, ModuleType)]


def test_every_check_of_the_table_is_there_once_cheap_ones_first_and_the_worst_case_last() -> None:
    numbers = [check.NUMBER for check in CHECKS]
    assert sorted(set(numbers)) == list(range(1, 13))
    assert sorted(numbers) == [*range(1, 11), 10, 11, 12]  # 10 has two parts
    assert numbers[-1] == 12
    assert numbers.index(6) > numbers.index(2) < numbers.index(7)  # searches see what all white-box attacks left
    assert len({check.NAME for check in CHECKS}) == len(CHECKS)


@pytest.mark.parametrize("check", PARTS, ids=lambda check: check.NAME)
def test_a_check_says_what_it_is_and_why_its_alarm_means_masking(check: ModuleType) -> None:
    assert check.__doc__ is not None
    assert check.__doc__.startswith(f"Check {check.NUMBER}")
    assert any(year in check.SOURCE for year in map(str, range(2015, 2025)))


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.NAME)
def test_an_honest_network_raises_no_alarm_and_the_numbers_are_plain(check: Check, tmp_path: Path) -> None:
    audit = make_audit(tmp_path, Honest(), Honest(scale=3.0), batch_size=20)
    if why := why_not(check, audit):
        assert "no SHC layer" in why
        return
    found = finding(check, audit)
    assert not found.alarm
    assert found.text
    json.dumps(found.numbers, allow_nan=False, default=lambda value: value.tolist())


@pytest.mark.parametrize("network", [Honest, Shc, blind, Noisy])
@pytest.mark.parametrize("check", [c for c in CHECKS if c.NUMBER in (1, 2, 3, 5, 6, 7)], ids=lambda check: check.NAME)
def test_without_any_time_left_no_alarm_is_raised(check: Check, network: type[nn.Module], tmp_path: Path) -> None:
    audit = make_audit(tmp_path, network(), Honest())
    audit.until = 0.0
    if not why_not(check, audit):
        assert not finding(check, audit).alarm


def test_every_check_runs_on_a_network_of_the_paper(tmp_path: Path) -> None:
    network, twin = (create_model(each, 10, stem="small", width=2).eval() for each in ("plain10_shc", "plain10"))
    x, _ = toy_images(8)
    few = replace(SMALL, steps=(2, 4), curve_points=3, square_queries=20, sign_draws=20)
    audit = make_audit(tmp_path, network, twin, data=(x, network(x).argmax(1)), effort=few, eps=0.03)
    for check in CHECKS:
        assert not why_not(check, audit)
        assert finding(check, audit).text


@pytest.mark.parametrize("module", [Seen, Through, Binary, _SameDraws], ids=lambda module: module.__name__)
def test_networks_that_run_python_at_every_call_are_not_recorded_as_graphs(module: type[nn.Module]) -> None:
    assert getattr(module, "steady", True) is False
