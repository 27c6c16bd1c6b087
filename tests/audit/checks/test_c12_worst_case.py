"""Check 12: AutoAttack comes on what stands, on no more images than planned, and is named where it does not run."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from check_toys import EPS, SMALL, Guarded, Honest, blind, finding, make_audit
from torch import Tensor

from shconv.attacks import Standard
from shconv.audit.checks import c12_worst_case
from shconv.audit.views import Sight


def test_autoattack_meets_what_stands_and_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the first of its four attacks: what the whole set does is the attack's own test."""
    pytest.importorskip("pyautoattack")
    monkeypatch.setattr(c12_worst_case, "Standard", partial(Standard, attacks=("apgd-ce",)))
    audit = make_audit(tmp_path, Honest(), effort=replace(SMALL, standard_images=6, patience=0))
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
    monkeypatch.setattr(c12_worst_case, "PARTS", {"AutoAttack's APGD": (("apgd-ce",), 1.0)})
    audit = make_audit(tmp_path, Honest(), effort=replace(SMALL, standard_images=40, patience=4))
    found = finding(c12_worst_case, audit)
    row, record = audit.ledger.under("linf")[0]
    assert row["n"] + row["spared"] == 40
    assert row["spared"] > 10
    assert record.attempted.tolist() == [True] * row["n"] + [False] * row["spared"]
    assert not record.success[row["n"] - 4 : row["n"]].any()
    assert f"attacked the {row['n']} images that came closest to a wrong class" in found.text


def test_without_a_gradient_it_is_left_out_with_the_reason(tmp_path: Path) -> None:
    pytest.importorskip("pyautoattack")
    audit = make_audit(tmp_path, blind(), effort=replace(SMALL, standard_images=6))
    audit.sight = Sight(40, 40, 40)
    assert "need a gradient" in finding(c12_worst_case, audit).text
    assert audit.ledger.attacks() == []


def test_in_parts_each_takes_what_the_ones_before_left_and_the_dearer_ones_give_up_sooner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pyautoattack")
    parts = {"AutoAttack's APGD": (("apgd-ce",), 1.0), "AutoAttack's second": (("apgd-ce",), 0.5)}
    monkeypatch.setattr(c12_worst_case, "PARTS", parts)
    audit = make_audit(tmp_path, Honest(), effort=replace(SMALL, standard_images=40, patience=4))
    finding(c12_worst_case, audit)
    (first, broke), (second, later) = audit.ledger.under("linf")
    assert broke.success.any()
    assert not (broke.success & later.attempted).any()
    assert second["n"] == 2 < first["n"]
    assert not later.success.any()


def test_where_time_is_short_its_first_part_alone_is_planned(tmp_path: Path) -> None:
    pytest.importorskip("pyautoattack")
    few, more = replace(SMALL, standard_images=40), replace(SMALL, standard_images=40, share=1 / 16)
    audit = make_audit(tmp_path, Honest(), effort=few)
    first = Standard(EPS, "linf", ("apgd-ce", "apgd-t")).cost
    assert c12_worst_case.cost(audit).forwards == pytest.approx(2.5 * 16 * first.forwards)
    audit.effort = more
    assert c12_worst_case.cost(audit).forwards > 2 * 2.5 * 16 * first.forwards


def accepted(x: Tensor) -> Tensor:
    return x.flatten(1).sum(1) * 0 - 1


def rejected_off_the_grid(x: Tensor) -> Tensor:
    """Attacked images lie off the 8-bit levels; no clean one does."""
    return ((255 * x - (255 * x).round()).abs().flatten(1).amax(1) > 1e-3).float() - 0.5


def test_past_a_detector_an_image_is_lost_where_classifier_and_detector_are_fooled(tmp_path: Path) -> None:
    """Of the toy's images 14 lie within EPS of a wrong class: all are lost past a detector that accepts everything, and
    none past one that no attack can pass."""
    lost = {}
    for name, score in (("accepting", accepted), ("strict", rejected_off_the_grid)):
        audit = make_audit(tmp_path / name, Guarded(score))
        found = finding(c12_worst_case, audit)
        case = found.numbers["undetected"]
        lost[name] = case["clean"] - case["correct"]
        assert case["clean"] == case["attacked"] == 40
        assert f"and past the detector over 2 attacks: correct on {case['correct']} of 40" in found.text
        assert not audit.ledger.under("linf")
    assert lost == {"accepting": 14, "strict": 0}


def test_past_a_detector_an_image_that_it_rejects_when_clean_is_lost(tmp_path: Path) -> None:
    audit = make_audit(tmp_path, Guarded(lambda x: x.flatten(1).std(1) - 0.2))
    rejected = audit.subject.rejects(audit.images)
    assert 0 < rejected.sum() < 40
    case = finding(c12_worst_case, audit).numbers["undetected"]
    assert case["clean"] == 40 - rejected.sum()
    assert case["n"] == 40
    assert np.array_equal(audit.sound(), np.ones(40, bool))


def test_a_network_without_a_detector_has_no_worst_case_past_one(tmp_path: Path) -> None:
    assert "undetected" not in finding(c12_worst_case, make_audit(tmp_path, Honest())).numbers
