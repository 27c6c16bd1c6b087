"""Check 10, second part: the binarisation test, which an attack on useful gradients passes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from check_toys import SMALL, Honest, Shc, blind, finding, make_audit, saturated, toy_images
from torch import Tensor, nn

from shconv import create_model
from shconv.audit.checks import c10_binarisation
from shconv.audit.checks.c10_binarisation import fit
from shconv.audit.checks.penultimate import Binary, Features
from shconv.audit.checks.side import batches


@pytest.mark.parametrize("network", [blind(), saturated()])
def test_without_a_gradient_pgd_misses_examples_that_exist(tmp_path: Path, network: nn.Module) -> None:
    found = finding(c10_binarisation, make_audit(tmp_path, network))
    assert found.alarm
    assert found.numbers["successes"]["both"] == 0


@pytest.mark.parametrize("name", ["linear", "plain10", "plain10_shc"])
def test_useful_gradients_pass(tmp_path: Path, name: str) -> None:
    network = Honest() if name == "linear" else create_model(name, 10, stem="small", width=4)
    x, _ = toy_images()
    effort = replace(SMALL, steps=(5, 50, 100))
    audit = make_audit(tmp_path, network, data=(x, network.eval()(x).argmax(1)), effort=effort)
    found = finding(c10_binarisation, audit)
    assert found.alarm is False
    assert found.numbers["successes"]["both"] == found.numbers["images"] > 0
    assert ("convolution" in found.numbers["successes"]) == (name == "plain10_shc")
    low, high = found.numbers["inner_points"]
    assert f"{low} inner points" in found.text or f"{low} to {high} inner points" in found.text


def test_read_outs_stay_with_their_images_though_some_are_broken_before_others(tmp_path: Path) -> None:
    """Each image has a read-out of its own, so that no part of a batch can pass alone."""
    network, (x, _) = create_model("plain10", 10, stem="small", width=4).eval(), toy_images()
    effort = replace(SMALL, binarisation_images=36)
    audit = make_audit(tmp_path, network, data=(x, network(x).argmax(1)), effort=effort)
    audit.setting = replace(audit.setting, batch_size=36)
    assert finding(c10_binarisation, audit).numbers["images"] > 32


def test_the_inner_points_are_at_most_half_as_many_as_the_features(tmp_path: Path) -> None:
    network = create_model("plain10", 10, stem="small", width=1)
    x, _ = toy_images()
    found = finding(c10_binarisation, make_audit(tmp_path, network, data=(x, network.eval()(x).argmax(1))))
    assert found.numbers["features"] == 8
    assert max(found.numbers["inner_points"]) <= 4


class HalfDead(nn.Module):
    """A hundred features of which a ReLU holds most at 0 around an image: another few for each image."""

    def __init__(self) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(6)
        self.hidden, self.fc = nn.Linear(108, 100), nn.Linear(100, 4)
        for layer in (self.hidden, self.fc):
            layer.weight.data = torch.randn(layer.weight.shape, generator=draw)
        self.hidden.bias.data = torch.full((100,), -0.8)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(torch.relu(self.hidden(x.flatten(1) - 0.5)))
        return logits


def test_features_that_never_move_are_not_counted(tmp_path: Path) -> None:
    network, (x, _) = HalfDead().eval(), toy_images(contrasts=(0.8, 1.0))
    effort = replace(SMALL, binarisation_points=499, steps=(5, 50, 100))
    audit = make_audit(tmp_path, network, data=(x, network(x).argmax(1)), effort=effort, eps=0.03)
    batch = next(batches(audit, audit.sample(10)))
    readout = fit(audit, Features(audit.subject, x[:2]), batch, 50)
    near = batch.x + 0.03 * (2 * torch.rand(200, *batch.x.shape, generator=torch.Generator().manual_seed(0)) - 1)
    moving = (network.hidden((near.flatten(0, 1) - 0.5).flatten(1)).unflatten(0, (200, -1)) > 0).any(0).sum(1)
    assert moving.max() < 90
    assert (2 * torch.from_numpy(readout.points) <= moving + 10).all()
    assert readout.separated.all()
    assert not finding(c10_binarisation, audit).alarm


@pytest.mark.parametrize(("hits", "n", "alarm"), [(9, 10, False), (90, 100, True), (93, 100, False), (7, 10, True)])
def test_the_alarm_needs_an_interval_below_95_per_cent(tmp_path: Path, hits: int, n: int, alarm: bool) -> None:
    audit = make_audit(tmp_path, Honest())
    features = Features(audit.subject, audit.images[:2])
    flags = np.arange(n) < hits
    found = {"separated": flags | True, "points": np.full(n, 20), "control": ~flags, "both": flags}
    said = c10_binarisation._finding(audit, features, found)
    assert said.alarm is alarm
    assert ("misses more than 5 %" in said.text) == (alarm or hits / n < 0.95)
    assert ("too few to say" in said.text) == (not alarm and hits / n < 0.95)


def test_the_read_out_parts_the_boundary_point_from_the_inner_ones(tmp_path: Path) -> None:
    audit = make_audit(tmp_path, Honest())
    batch = next(batches(audit, audit.sample(6)))
    features = Features(audit.subject, audit.images[:2])
    readout = fit(audit, features, batch, 20)
    assert readout.separated.all()
    network = Binary(features, readout.w, readout.b, readout.scale)
    assert bool((network(batch.x).argmax(1) == 0).all())
    clean = (network(batch.x) @ torch.tensor([-1.0, 1.0])) / readout.scale
    assert clean.tolist() == pytest.approx([-1.9] * 6, abs=1e-2)  # the boundary point lies at 0.1


def test_features_are_what_the_layer_called_last_reads(tmp_path: Path) -> None:
    network = create_model("plain10_shc", 10, stem="small", width=2).eval()
    x, _ = toy_images(4)
    audit = make_audit(tmp_path, network, data=(x, network(x).argmax(1)))
    features = Features(audit.subject, x[:2])
    assert features.layer is network.fc
    taken = features(x)
    assert taken.shape == (4, 16)
    assert torch.allclose(network.fc(taken), network(x), atol=1e-6)
    assert not network.fc._forward_pre_hooks


def test_a_network_without_a_linear_layer_is_told_so(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 6), nn.Flatten())
    x, _ = toy_images()
    audit = make_audit(tmp_path, network, data=(x, network(x).argmax(1)))
    assert "no linear layer" in c10_binarisation.applies(audit)
    assert "no linear layer" in c10_binarisation.applies(make_audit(tmp_path, Shc()))


def test_the_points_do_not_depend_on_the_order_of_checks(tmp_path: Path) -> None:
    first, second = (finding(c10_binarisation, make_audit(tmp_path, Honest())) for _ in range(2))
    assert first.numbers == second.numbers
