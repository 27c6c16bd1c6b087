"""Checks 6 and 7: searches without gradients, and blind chance, against gradients that are gone and that are true."""

from dataclasses import replace
from pathlib import Path

import pytest
from check_toys import EPS, SMALL, Honest, blind, finding, make_audit, saturated, toy_images

from shconv.attacks import PGD, RandomSigns, Square
from shconv.audit.checks import c06_gradient_free, c07_random_signs, searching
from shconv.audit.checks.searching import MOST, Search, second_look

FAINT = toy_images(contrasts=(0.04, 0.3))  # faint enough for chance


def test_square_breaks_what_a_network_without_a_gradient_hides(tmp_path: Path) -> None:
    found = finding(c06_gradient_free, make_audit(tmp_path, blind()))
    assert found.alarm
    assert found.numbers["Square"]["hidden_from_gradients"] > 0


def test_what_a_longer_white_box_attack_breaks_too_is_no_alarm(tmp_path: Path) -> None:
    """No gradient attack came first, so Square finds images; the gradient finds them all the same."""
    found = finding(c06_gradient_free, make_audit(tmp_path, Honest()))
    assert found.alarm is False
    assert found.numbers["Square"]["successes"] > 0
    assert found.numbers["Square"]["hidden_from_gradients"] == 0


def test_on_what_gradients_left_of_an_honest_network_nothing_is_found(tmp_path: Path) -> None:
    audit = make_audit(tmp_path, Honest())
    audit.attack("white box", PGD(EPS, steps=10))
    for check in (c06_gradient_free, c07_random_signs):
        assert finding(check, audit).alarm is False


def test_where_nothing_stands_nothing_is_tried(tmp_path: Path) -> None:
    audit = make_audit(tmp_path, Honest(), eps=0.4)
    audit.attack("white box", PGD(0.4, steps=10))
    assert not audit.standing("linf").any()
    found = finding(c06_gradient_free, audit)
    assert (found.alarm, "No image was left" in found.text) == (False, True)
    assert "No image was left" in finding(c07_random_signs, audit).text


def test_changed_pixels_are_a_threat_of_their_own(tmp_path: Path) -> None:
    audit = make_audit(tmp_path, Honest(), data=FAINT, effort=replace(SMALL, pixel_images=10))
    before = audit.standing("linf")
    found = finding(c06_gradient_free, audit)
    assert found.numbers["LocSearchAdv cyclic"]["n"] == 10
    broken = [label for label in audit.ledger.broken_by("pixels") if label is not None]
    assert len(broken) == found.numbers["LocSearchAdv cyclic"]["successes"]
    assert before.sum() - audit.standing("linf").sum() == found.numbers["Square"]["successes"]


def test_attacks_on_decisions_take_part_where_foolbox_is_there(tmp_path: Path) -> None:
    pytest.importorskip("foolbox")
    effort = replace(SMALL, hard_label_images=2, hard_label_steps=100, square_queries=1)
    found = finding(c06_gradient_free, make_audit(tmp_path, blind(), data=FAINT, effort=effort))
    assert found.numbers["boundary attack"]["n"] == found.numbers["HopSkipJump"]["n"] == 2


def test_chance_breaks_what_a_network_without_a_gradient_hides(tmp_path: Path) -> None:
    found = finding(c07_random_signs, make_audit(tmp_path, blind(), data=FAINT))
    assert found.alarm
    assert 0 < found.numbers["hidden_from_gradients"] <= found.numbers["broken"]


def test_chance_beats_no_honest_network(tmp_path: Path) -> None:
    assert finding(c07_random_signs, make_audit(tmp_path, Honest(), data=FAINT)).alarm is False


def test_the_second_look_uses_a_loss_that_does_not_saturate(tmp_path: Path) -> None:
    audit = make_audit(tmp_path, saturated(), data=FAINT)
    signs = audit.attack("signs", RandomSigns(EPS, draws=200))
    assert signs.success.any()
    assert second_look(audit, signs.success, "signs")[1] == 0


def test_the_second_look_is_at_a_few_images_only(tmp_path: Path) -> None:
    audit = make_audit(tmp_path, blind(), data=FAINT)
    square = audit.attack("Square", Square(EPS, queries=300))
    assert square.success.sum() > MOST
    seen, hidden = second_look(audit, square.success, "Square")
    assert hidden <= seen == MOST


def test_an_image_that_several_searches_try_counts_once(tmp_path: Path) -> None:
    audit = make_audit(tmp_path, blind())
    searches = [Search(name, RandomSigns(EPS, draws=1), 100) for name in "ab"]
    assert searching.run(audit, searches)[0].tried == int(audit.correct.sum())
