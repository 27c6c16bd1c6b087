"""Check 9: where the margin rises, along the network's own gradient and along another's."""

from pathlib import Path

import numpy as np
import pytest
from check_toys import EPS, Honest, blind, finding, make_audit, patterns, toy_images
from torch import nn

from shconv.audit.checks import c09_loss_surface


@pytest.mark.parametrize("twin", [Honest(), None])
def test_a_network_without_a_gradient_is_steeper_along_any_other_axis(tmp_path: Path, twin: nn.Module | None) -> None:
    found = finding(c09_loss_surface, make_audit(tmp_path, blind(), twin))
    assert found.alarm
    assert found.numbers["steeper"] == found.numbers["images"]
    assert found.numbers["axis"] == ("random" if twin is None else "twin")


@pytest.mark.parametrize("twin", [Honest(), None])
def test_a_linear_classifiers_own_axis_is_the_steepest(tmp_path: Path, twin: nn.Module | None) -> None:
    found = finding(c09_loss_surface, make_audit(tmp_path, Honest(), twin))
    assert found.alarm is False
    assert found.numbers["steeper"] == 0


def test_a_linear_margin_rises_by_the_closed_form() -> None:
    """Two patterns differ by 1/2 in some pixels; the nearest class is the one that differs in the fewest."""
    x, y = toy_images(4, (0.5, 0.6))
    p = patterns().flatten(1)
    fewest = (p[y][:, None] != p[None]).sum(2).scatter(1, y[:, None], p.shape[1]).amin(1)
    rise = c09_loss_surface.rise(Honest(scale=2.0).eval(), x, y, -patterns()[y].sign(), EPS * np.linspace(0, 1, 5))
    assert rise == pytest.approx((2.0 * EPS * fewest / 2).numpy(), rel=1e-4)


def test_the_surface_has_both_networks_on_one_grid(tmp_path: Path) -> None:
    found = finding(c09_loss_surface, make_audit(tmp_path, Honest(), Honest(scale=1.0)))
    a, b, loss, twin = (found.arrays[name] for name in ("a", "b", "loss", "twin_loss"))
    assert loss.shape == twin.shape == (len(a), len(b))
    assert a[0] == -a[-1] == -EPS
    assert 0.0 in a
    assert loss[-1].mean() > loss[0].mean()  # up the own gradient, down against it
    assert found.figure == "surface"


def test_without_a_twin_there_is_one_surface(tmp_path: Path) -> None:
    assert set(finding(c09_loss_surface, make_audit(tmp_path, Honest())).arrays) == {"a", "b", "loss"}
