"""Check 2: one step against many, convergence, and the white-box attacks of the worst case."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from check_toys import EPS, SMALL, Honest, Shc, blind, finding, make_audit, right_on_data_only, saturated, toy_images

from shconv.attacks import PGD
from shconv.audit.audit import Audit
from shconv.audit.checks import c02_strength, headline
from shconv.audit.checks.side import Batch, made_by
from shconv.audit.findings import Outcome


def test_a_gradient_that_is_true_at_the_data_alone_makes_one_step_the_stronger(tmp_path: Path) -> None:
    found = finding(c02_strength, make_audit(tmp_path, right_on_data_only()))
    assert found.alarm
    assert found.numbers["one_step_as_strong"]
    assert found.numbers["accuracy"]["one step"] < found.numbers["accuracy"]["PGD-20"]


def test_a_saturated_cross_entropy_raises_the_alarm(tmp_path: Path) -> None:
    found = finding(c02_strength, make_audit(tmp_path, saturated()))
    assert found.alarm
    assert found.numbers["saturated"]
    assert found.numbers["margin_gain"] == 14 / 40


def test_without_a_gradient_many_steps_are_no_better_than_noise(tmp_path: Path) -> None:
    found = finding(c02_strength, make_audit(tmp_path, blind()))
    assert found.alarm
    assert found.numbers["one_step_as_strong"]
    assert not found.numbers["saturated"]


def test_a_linear_classifier_raises_none_though_one_step_is_the_best_there_is(tmp_path: Path) -> None:
    found = finding(c02_strength, make_audit(tmp_path, Honest()))
    assert found.alarm is False
    assert found.numbers["accuracy"]["one step"] == found.numbers["accuracy"]["PGD-20"] == 26 / 40
    assert found.numbers["compared_margins"] == 0
    assert found.numbers["converged"]


class Bent(Honest):
    """Its loss bends: one step from the data is not the best there is."""

    def see(self, x: torch.Tensor) -> torch.Tensor:
        return x + 4 * x.roll(1, 3) * x.roll(1, 2)


def test_one_loss_that_ends_no_higher_than_one_step_is_no_alarm_where_the_other_climbs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def low(audit: Audit, attack: PGD, outcome: Outcome, batch: Batch, done: int) -> torch.Tensor:
        attack = c02_strength.one_step(audit) if attack.loss == "cross_entropy" else attack
        return made_by(audit, attack, audit.subject.model, batch)

    monkeypatch.setattr(c02_strength, "_examples", low)
    found = finding(c02_strength, make_audit(tmp_path, Bent()))
    assert found.alarm is False
    assert found.numbers["compared_margins"] >= c02_strength.FEWEST
    assert found.numbers["as_strong"] == 0


def test_an_attack_that_doubling_strengthens_has_not_converged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    audit = make_audit(tmp_path, Honest())
    run_pgd = c02_strength.run_pgd

    def short(audit, steps=None, **options):  # type: ignore[no-untyped-def]
        outcome = run_pgd(audit, steps, **options)
        return outcome if steps == 20 else replace(outcome, success=np.zeros_like(outcome.success))

    monkeypatch.setattr(c02_strength, "run_pgd", short)
    found = finding(c02_strength, audit)
    assert found.alarm
    assert not found.numbers["one_step_as_strong"]
    assert "not converged" in found.text


@pytest.mark.parametrize("steps", [(10, 50), (10, 50, 200), (1, 2), (5, 20, 30)])
def test_the_ladder_holds_the_usual_steps_and_half_of_the_longest(tmp_path: Path, steps: tuple[int, ...]) -> None:
    ladder = c02_strength._ladder(make_audit(tmp_path, Honest(), effort=replace(SMALL, steps=steps)))
    assert {*steps, steps[-1] // 2} == set(ladder)
    assert ladder == sorted(set(ladder))


def test_the_headline_attacks_only_images_still_standing(tmp_path: Path) -> None:
    audit = make_audit(tmp_path, Honest())
    audit.attack("before", PGD(EPS, steps=5))
    left = audit.standing("linf")
    outcomes: dict[str, Outcome] = headline.run(audit)
    first = next(outcome for name, outcome in outcomes.items() if ", linf, " in name)
    assert (first.attempted == left).all()
    assert any(", l2, " in name for name in outcomes)


def test_the_headline_goes_through_every_route_of_an_shc_network(tmp_path: Path) -> None:
    planned = list(headline.planned(make_audit(tmp_path, Shc())))
    assert {each.route for each in planned} == {"both", "convolution", "frozen"}
    assert {each.threat for each in planned} == {"linf", "l2"}
    assert {getattr(each.attack, "loss", None) for each in planned} == {"cross_entropy", "dlr"}
    assert len({(each.label, each.route, each.threat) for each in planned}) == len(planned)


def test_with_three_classes_targets_use_the_margin(tmp_path: Path) -> None:
    x, y = toy_images()
    three = Honest()
    three.fc.weight.data = three.fc.weight.data[:3]
    audit = make_audit(tmp_path, three, data=(x[y < 3], y[y < 3]))
    assert audit.subject.classes == 3
    targeted = [each.attack for each in headline.planned(audit) if getattr(each.attack, "targets", 0)]
    assert targeted
    assert {each.loss for each in targeted if isinstance(each, PGD)} == {"margin"}


def test_asked_again_it_says_the_same_from_what_is_stored(tmp_path: Path) -> None:
    first = finding(c02_strength, make_audit(tmp_path, Honest()))
    again = finding(c02_strength, make_audit(tmp_path, Honest()))
    assert again.text == first.text
    assert again.numbers == first.numbers
