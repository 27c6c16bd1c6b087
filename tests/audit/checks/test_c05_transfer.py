"""Check 5: the honest twin's examples against a network whose own gradient is gone, and the other way round."""

from dataclasses import replace
from pathlib import Path

from check_toys import SMALL, Honest, blind, finding, make_audit

from shconv.audit.checks import c05_transfer

NETWORKS = {"masked": blind(), "honest": Honest()}


def test_a_twin_with_a_gradient_beats_a_network_without_one(tmp_path: Path) -> None:
    found = finding(c05_transfer, make_audit(tmp_path, blind(), Honest()))
    assert found.alarm
    numbers = found.numbers["twin"]
    assert numbers["beats"]
    assert numbers["adds"]
    assert (numbers["white_box"], numbers["transferred"]) == (1.0, 26 / 40)
    assert numbers["only_transfer"] == 14


def test_a_networks_own_gradient_is_no_worse_than_its_copys(tmp_path: Path) -> None:
    found = finding(c05_transfer, make_audit(tmp_path, Honest(), Honest(), blind=blind()))
    assert found.alarm is False
    assert found.numbers["twin"]["difference"] == 0
    assert found.numbers["blind"]["transferred"] == 1.0


def test_transfer_that_beats_the_white_box_meets_every_image(tmp_path: Path) -> None:
    effort = replace(SMALL, compared_images=15)
    masked, honest = (make_audit(tmp_path / name, each, Honest(), effort=effort) for name, each in NETWORKS.items())
    assert finding(c05_transfer, masked).alarm
    assert masked.standing("linf").sum() == 26
    assert not finding(c05_transfer, honest).alarm
    assert {row["n"] for row in honest.ledger.attacks()} == {15}


def test_what_transfer_breaks_counts_for_the_worst_case(tmp_path: Path) -> None:
    audit = make_audit(tmp_path, blind(), Honest())
    finding(c05_transfer, audit)
    assert audit.standing("linf").sum() == 26


def test_without_another_network_it_does_not_apply(tmp_path: Path) -> None:
    assert c05_transfer.applies(make_audit(tmp_path, Honest()))
