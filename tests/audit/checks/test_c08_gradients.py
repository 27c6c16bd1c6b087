"""Check 8: gradients against finite differences, zeros, and the parts of an SHC network's gradient."""

from pathlib import Path

import numpy as np
import pytest
import torch
from check_toys import Honest, Masked, Noisy, Shc, blind, finding, make_audit, saturated, toy_images
from torch import nn

from shconv import create_model, gradient_route
from shconv.attacks.losses import margin
from shconv.audit.checks import c08_gradients
from shconv.audit.checks.c08_gradients import by_route, faults, route_measures
from shconv.audit.checks.side import gradient


@pytest.mark.parametrize(
    ("network", "fault"),
    [
        (blind(), "disagree with finite differences"),
        (blind(), "exactly zero"),
        (saturated(), "exactly zero"),
        (Masked(lambda x: -(x * 0 + 1)), "disagree with finite differences"),
        (Shc(mislead=-1000.0), "changes the convolution's signs"),
    ],
)
def test_each_way_to_mislead_raises_the_alarm(tmp_path: Path, network: nn.Module, fault: str) -> None:
    found = finding(c08_gradients, make_audit(tmp_path, network))
    assert found.alarm
    assert fault in found.text


def paper_network() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return create_model("plain10_shc", 10, stem="small", width=4)


class Rounded(Honest):
    """Computes in bfloat16, whose values lie further apart than the ends of a short finite difference."""

    def see(self, x: torch.Tensor) -> torch.Tensor:
        return (x + 0.5).bfloat16().float() - 0.5


@pytest.mark.parametrize("network", [Honest(), Noisy(), Shc(), Rounded(), paper_network()])
def test_true_gradients_raise_none(tmp_path: Path, network: nn.Module) -> None:
    x, _ = toy_images()
    audit = make_audit(tmp_path, network, data=(x, network.eval()(x).argmax(1)))
    found = finding(c08_gradients, audit)
    assert found.alarm is False
    assert found.numbers["finite_difference_error"] < 0.3
    assert found.numbers["zeros"] == 0


def test_of_a_linear_classifier_every_error_is_rounding(tmp_path: Path) -> None:
    numbers = finding(c08_gradients, make_audit(tmp_path, Honest())).numbers
    assert numbers["finite_difference_error"] < 1e-3
    assert numbers["linearity_error"] < 1e-3


def test_the_exaggeration_of_the_maps_gradient_is_what_is_measured() -> None:
    x, y = toy_images(8)
    plain, large = (route_measures(Shc(mislead).eval(), x, y)["through_maps"] for mislead in (0.0, 9.0))
    assert large == pytest.approx(10 * plain, rel=1e-3)


def test_of_one_layer_both_routes_gradient_is_the_sum_of_the_two() -> None:
    x, y = toy_images(4)
    found = by_route(Shc(mislead=5.0).eval(), x, y)
    total = found["convolution"] + found["hypernetwork"]
    assert (found["both"] - total).abs().max() < 1e-4 * total.abs().max()


def test_the_maps_of_the_figure_are_the_routes_gradients_summed_over_channels(tmp_path: Path) -> None:
    audit = make_audit(tmp_path, Shc(mislead=5.0))
    arrays = finding(c08_gradients, audit).arrays
    x, y = audit.images[:1], audit.labels[:1]
    assert set(arrays) == {"image", "both", "convolution", "hypernetwork"}
    assert (arrays["image"] == x[0].numpy()).all()
    with gradient_route(audit.subject.model, "convolution"):
        expected = gradient(audit.subject.model, x, y, margin)[0].sum(0).numpy()
    assert np.allclose(arrays["convolution"], expected)


def test_a_large_part_through_the_maps_that_keeps_the_signs_is_no_fault() -> None:
    calm = {name: np.zeros(5) for name in ("difference", "zeros", "wholly_zero", "linearity", "hypernetwork")}
    parts = {"through_maps": np.full(5, 2.0), "agreement": np.full(5, 0.9)}
    assert list(faults({**calm, **parts})) == []
    assert len(list(faults({**calm, **parts, "agreement": np.full(5, 0.6)}))) == 1
