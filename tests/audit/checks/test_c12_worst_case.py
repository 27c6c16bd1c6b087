"""Check 12: AutoAttack comes on what stands, on no more images than planned, and is named where it does not run."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from check_toys import SMALL, Honest, blind, finding, make_audit

from shconv.attacks import Standard
from shconv.audit.checks import c12_worst_case
from shconv.audit.views import Sight


def test_autoattack_meets_what_stands_and_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the first of its four attacks: what the whole set does is the attack's own test."""
    pytest.importorskip("pyautoattack")
    monkeypatch.setattr(c12_worst_case, "Standard", partial(Standard, attacks=("apgd-ce",)))
    audit = make_audit(tmp_path, Honest(), effort=replace(SMALL, standard_images=6))
    found = finding(c12_worst_case, audit)
    assert {(row["attack"], row["threat"]): row["n"] for row in audit.ledger.attacks()} == {
        ("AutoAttack", "linf"): 6,
        ("AutoAttack", "l2"): 6,
    }
    broken = {threat: found.numbers[threat]["broken_by"].get("AutoAttack", 0) for threat in ("linf", "l2")}
    assert broken == {row["threat"]: row["successes"] for row in audit.ledger.attacks()}
    assert found.alarm is None


def test_without_time_for_it_that_is_said_and_costs_nothing(tmp_path: Path) -> None:
    audit = make_audit(tmp_path, blind())
    assert c12_worst_case.cost(audit).forwards == 0
    assert "AutoAttack was left out for lack of time." in finding(c12_worst_case, audit).text
    assert audit.ledger.attacks() == []


def test_with_patience_the_closest_images_come_first_and_those_left_out_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the toy's images the contrast grows with their place, and with it their distance from a wrong class."""
    pytest.importorskip("pyautoattack")
    monkeypatch.setattr(c12_worst_case, "Standard", partial(Standard, attacks=("apgd-ce",)))
    audit = make_audit(tmp_path, Honest(), effort=replace(SMALL, standard_images=40, patience=4))
    found = finding(c12_worst_case, audit)
    row, record = audit.ledger.headline("linf")[0]
    assert row["n"] + row["spared"] == 40
    assert row["spared"] > 10
    assert record.attempted.tolist() == [True] * row["n"] + [False] * row["spared"]
    assert not record.success[row["n"] - 4 : row["n"]].any()
    assert f"attacked the {row['n']} images that came closest to a wrong class" in found.text


def test_without_a_gradient_it_is_left_out_with_the_reason(tmp_path: Path) -> None:
    pytest.importorskip("pyautoattack")
    audit = make_audit(tmp_path, blind(), effort=replace(SMALL, standard_images=6))
    audit.sight = Sight(40, 40, 40, 40)
    assert "need a gradient" in finding(c12_worst_case, audit).text
    assert audit.ledger.attacks() == []
