"""Check 10, first part: the indicators of attack failure, and the path that they are read from."""

from pathlib import Path

import numpy as np
import pytest
import torch
from check_toys import EPS, Honest, Noisy, blind, finding, make_audit, saturated, toy_images
from torch import nn

from shconv.attacks import PGD
from shconv.audit.checks import c10_indicators
from shconv.audit.checks.c10_indicators import Seen, break_point_angle, faults, rescaled, still_rising, variation


@pytest.mark.parametrize(
    ("network", "raised"),
    [
        (blind(), "unavailable gradients"),
        (blind(), "unconstrained attack failure"),
        (saturated(), "unavailable gradients"),
        (Noisy(), "unstable predictions"),
    ],
)
def test_a_masked_network_raises_its_indicator(tmp_path: Path, network: nn.Module, raised: str) -> None:
    found = finding(c10_indicators, make_audit(tmp_path, network))
    assert found.alarm
    assert raised in found.numbers["raised"]


def test_an_honest_network_raises_none(tmp_path: Path) -> None:
    found = finding(c10_indicators, make_audit(tmp_path, Honest()))
    assert found.alarm is False
    assert found.numbers["silent_success"] == found.numbers["unavailable_gradients"] == 0


def test_everything_the_attack_saw_is_written_down() -> None:
    model, (x, y) = Honest().eval(), toy_images(8)
    seen = Seen(model, y)
    found = PGD(EPS, steps=6).run(seen, x, y)
    loss, wrong, norm = seen.path()
    assert len(loss) == int(found.queries[0])
    assert norm.shape == (6, 8)
    assert (norm > 0).all()
    assert (wrong.any(0) == (model(found.images).argmax(1) != y).numpy()).all()


def test_a_network_that_passes_no_gradient_on_shows_norms_of_zero() -> None:
    x, y = toy_images(4)
    for network in (blind().eval(), nn.Sequential(Detached(), Honest()).eval()):
        seen = Seen(network, y)
        PGD(EPS, steps=3).run(seen, x, y)
        assert seen.path()[2].tolist() == [[0.0] * 4] * 3


class Detached(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.detach()


def test_a_climb_is_rescaled_to_run_from_0_to_1() -> None:
    climb = rescaled(np.array([[2.0, 1.0], [4.0, 1.0], [3.0, 1.0], [6.0, 1.0]]))
    assert climb.T.tolist() == [[0.0, 0.5, 0.5, 1.0], [0.0, 0.0, 0.0, 0.0]]


def test_a_finished_climb_has_a_corner_and_no_late_rise_and_a_straight_one_has_not() -> None:
    t = np.linspace(0, 1, 51)
    climbs = np.stack([np.minimum(10 * t, 1), t], 1)
    assert still_rising(climbs).tolist() == [False, True]
    corner, straight = break_point_angle(climbs)
    assert straight == pytest.approx(1, abs=1e-6)
    # the corner (0.1, 1) between (0, 0) and (1, 1)
    assert corner == pytest.approx(0.1 / np.hypot(0.1, 1))


def test_predictions_vary_as_much_as_noise_moves_a_linear_margin() -> None:
    x, y = toy_images(4, (0.5, 0.6))
    model = Honest().eval()
    near, far = (variation(model, x, y, radius, np.random.default_rng(0)) for radius in (0.001, 0.01))
    assert far == pytest.approx(10 * near, rel=1e-2)
    assert (variation(model, x, y, 0.0, np.random.default_rng(0)) == 0).all()


def test_each_indicator_alone_is_raised() -> None:
    names = ("unavailable", "silent", "unconstrained", "incomplete")
    calm = {"standing": np.ones(20, bool), "unstable": np.zeros(20), **{name: np.zeros(20, bool) for name in names}}
    assert list(faults(calm)) == []
    one = np.arange(20) < 1
    assert list(faults({**calm, "silent": one})) == ["silent success"]
    assert list(faults({**calm, "unconstrained": one})) == ["unconstrained attack failure"]
    assert list(faults({**calm, "unavailable": one})) == ["unavailable gradients"]
    assert list(faults({**calm, "incomplete": np.arange(20) < 11})) == ["incomplete optimisation"]
    assert list(faults({**calm, "incomplete": np.arange(20) < 11, "standing": one})) == []
    assert list(faults({**calm, "unstable": np.full(20, 0.2)})) == ["unstable predictions"]
