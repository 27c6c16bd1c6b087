"""Whole audits of networks that plain attacks by gradient tell nothing about, and of networks with little time."""

import time
from dataclasses import replace
from typing import Any

import pytest
import torch
from check_toys import EPS, SMALL, Honest, Noisy, blind, toy_images
from torch import Tensor, nn

from shconv import audit
from shconv.attacks import PGD
from shconv.audit.session import first_look

FEW = replace(SMALL, hard_label_images=4, hard_label_steps=20)


def audited(network: nn.Module, effort: audit.Effort | None = FEW, budget: str = "full", **more: Any) -> audit.Report:
    return audit.run(network.eval(), toy_images(), EPS, budget=budget, effort=effort, progress=False, **more)


def right(network: nn.Module) -> int:
    """After a white box that sees a true gradient."""
    x, y = toy_images()
    return int((network(PGD(EPS, steps=20)(network, x, y)).argmax(1) == y).sum())


class Counted(nn.Module):
    """A network whose gradient is lost in rounding; no identity mends it, as it comes back with fewer values."""

    def __init__(self) -> None:
        super().__init__()
        self.network = Honest()

    def forward(self, x: Tensor) -> Tensor:
        seen = torch.cat([x.flatten(1), x.flatten(1)[:, :1]], 1).mul(31).round().div(31)[:, :-1]
        logits: Tensor = self.network.fc(torch.nn.functional.linear(seen - 0.5, self.network.features.weight))
        return logits


def test_a_network_without_a_gradient_falls_as_it_does_with_one() -> None:
    report = audited(blind())
    assert report.worst_case["linf"]["correct"] == right(Honest())
    assert "attacks put the identity there" in report.verdict
    assert {finding.name for finding in report.findings if finding.alarm} >= {
        "gradients",
        "attack strength",
        "loss surface",
    }
    assert "source network" not in report.verdict or report.worst_case["linf"]["correct"]


def test_where_no_identity_helps_searches_get_the_images_and_a_source_is_asked_for() -> None:
    report = audited(Counted())
    met = {row["attack"]: row["n"] for row in report.rows if row["kind"] == "attack" and row["threat"] == "linf"}
    stood = met["Square"]
    assert stood > 20
    assert met["boundary attack"] > 0
    assert "Give a source network" in report.verdict
    assert "Give a source network" not in audited(Counted(), sources={"other": Honest()}).verdict


def test_a_random_network_with_little_time_meets_an_attack_on_every_image() -> None:
    """Each pass takes 5 ms and eight make an answer: the time of 40 steps of PGD with one draw buys ten and more."""

    class Slow(Noisy):
        def forward(self, x: Tensor) -> Tensor:
            time.sleep(0.005)
            return super().forward(x)

    report = audited(Slow(), None, "3s")
    linf = report.worst_case["linf"]
    assert linf["untried"] == 0
    assert linf["correct"] < linf["n"]


@pytest.mark.parametrize(("seconds", "steps"), [(60.0, 10), (0.5, 5), (0.1, 1)])
def test_the_first_look_makes_as_many_steps_as_the_time_allows(tmp_path: Any, seconds: float, steps: int) -> None:
    from check_toys import make_audit

    from shconv.audit.probe import Probe

    held = make_audit(tmp_path, Honest())
    held.probe, held.until = Probe(0.0005, 0.0005), held.clock.spent + seconds
    first_look(held)
    row = held.ledger.attacks()[0]
    assert (row["attack"], row["threat"]) == (f"first look, PGD-{steps}", "linf")
