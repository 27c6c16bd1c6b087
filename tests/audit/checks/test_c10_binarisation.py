"""Check 10, second part: the binarisation test, which an attack on useful gradients passes."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from check_toys import SMALL, Honest, Shc, blind, finding, make_audit, saturated, toy_images
from torch import nn

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
    assert f"{found.numbers['inner_points']} inner points" in found.text


def test_the_inner_points_are_at_most_half_as_many_as_the_features(tmp_path: Path) -> None:
    network = create_model("plain10", 10, stem="small", width=1)
    x, _ = toy_images()
    found = finding(c10_binarisation, make_audit(tmp_path, network, data=(x, network.eval()(x).argmax(1))))
    assert (found.numbers["features"], found.numbers["inner_points"]) == (8, 4)


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
