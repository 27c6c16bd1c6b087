"""Check 4: what a curve of accuracy by radius can and cannot do."""

from pathlib import Path

import numpy as np
import pytest
import torch
from check_toys import EPS, Honest, blind, finding, make_audit, saturated
from torch import nn

from shconv.audit.checks import c04_budget
from shconv.audit.checks.c04_budget import Curve


def curve(*counts: int, n: int = 50, classes: int = 4) -> Curve:
    """Of n images the first so many stay right at radii 0, 0.1, 0.5 and 1."""
    return Curve([0.0, 0.1, 0.5, 1.0], np.array([np.arange(n) < count for count in counts]), classes)


@pytest.mark.parametrize("network", [blind(), saturated()])
def test_no_gradient_leaves_images_right_where_none_can_be(tmp_path: Path, network: nn.Module) -> None:
    found = finding(c04_budget, make_audit(tmp_path, network))
    assert found.alarm
    assert "at 0.5" in found.text
    assert "at 1 the accuracy" in found.text


def test_noise_that_breaks_by_itself_does_not_hide_a_missing_gradient(tmp_path: Path) -> None:
    audit = make_audit(tmp_path, blind())
    on = audit.sample(24)
    noise = audit.images + torch.empty_like(audit.images).uniform_(-1, 1, generator=torch.Generator().manual_seed(0))
    assert not (audit.subject.model(noise.clamp(0, 1)).argmax(1) == audit.labels).numpy()[on].all()
    found = finding(c04_budget, audit)
    assert found.arrays["accuracy"][-2:].tolist() == [1.0, 1.0]


def test_a_linear_classifier_falls_as_the_closed_form_says(tmp_path: Path) -> None:
    audit = make_audit(tmp_path, Honest())
    found = finding(c04_budget, audit)
    assert found.alarm is False
    epsilon, accuracy = found.arrays["epsilon"], found.arrays["accuracy"]
    from_grey = (audit.images - 0.5).abs().flatten(1).amax(1).numpy()[audit.sample(24)]
    assert accuracy.tolist() == [(from_grey > each).mean() for each in epsilon]
    assert float(found.arrays["chance"]) == 1 / 4
    assert found.figure == "budget"


def test_a_falling_curve_has_no_fault() -> None:
    assert curve(50, 30, 10, 0).faults() == []


@pytest.mark.parametrize(
    ("counts", "fault"),
    [
        ((50, 20, 45, 0), "rises"),
        ((50, 30, 30, 0), "of guessing"),
        ((50, 30, 10, 1), "at 1 the accuracy is 1 of 50"),
    ],
)
def test_each_fault_is_said(counts: tuple[int, ...], fault: str) -> None:
    assert any(fault in each for each in curve(*counts).faults())


def test_a_rise_within_chance_is_no_fault() -> None:
    assert curve(50, 9, 10, 0).faults() == []


def test_the_radii_hold_the_ends_and_the_audits_own_however_few(tmp_path: Path) -> None:
    audit = make_audit(tmp_path, Honest())
    found = c04_budget.radii(audit)
    assert found == sorted(found)
    assert {0.0, EPS, 0.5, 1.0} <= set(found)
    assert len(found) == audit.effort.curve_points


class NaNBeside(Honest):
    """No number comes out where a value leaves [0.05, 0.95]."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        off = ((x - 0.5).abs() > 0.45).flatten(1).any(1)
        return torch.where(off[:, None], torch.nan, super().forward(x))


def test_an_image_without_a_number_is_not_right_whatever_its_class(tmp_path: Path) -> None:
    found = finding(c04_budget, make_audit(tmp_path, NaNBeside()))
    assert (found.alarm, found.arrays["accuracy"][-1]) == (False, 0)
