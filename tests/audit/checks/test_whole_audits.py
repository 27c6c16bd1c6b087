"""Whole audits of networks that plain attacks by gradient tell nothing about, and what is done before the plan."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from check_toys import EPS, SMALL, Honest, Noisy, blind, make_audit, toy_images
from torch import Tensor, nn

from shconv import audit
from shconv.attacks import PGD
from shconv.audit.probe import Probe, measure
from shconv.audit.session import first_look
from shconv.audit.subject import Subject

FEW = replace(
    SMALL.without_gradient(), square_queries=100, hard_label_images=2, hard_label_steps=5, sign_draws=50, targets=1
)
IMAGES = toy_images(12)


def audited(network: nn.Module, **more: Any) -> audit.Report:
    return audit.run(network.eval(), IMAGES, EPS, budget="full", effort=FEW, progress=False, **more)


def right(network: nn.Module) -> int:
    """After a white box that sees a true gradient."""
    x, y = IMAGES
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
    assert met["Square"] == 12
    assert met["boundary attack"] > 0
    assert "Give a source network" in report.verdict
    beside = audited(Counted(), sources={"other": Honest()})
    assert "Give a source network" not in beside.verdict
    assert beside.worst_case["linf"]["correct"] < report.worst_case["linf"]["correct"]


class Counting(Noisy):
    """A random network that counts the images it sees; a clock that a test reads goes a second for each."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = 0

    def forward(self, x: Tensor) -> Tensor:
        self.seen += len(x)
        return super().forward(x)


def test_the_first_look_at_a_random_network_takes_one_draw_at_each_step(tmp_path: Path) -> None:
    network = Counting()
    held = make_audit(tmp_path, network)
    judging = 8 * 20  # eight draws in one batch shape
    network.seen = 0
    attack = PGD(EPS, steps=10)
    held.attack("one draw", attack, model=held.subject.one_draw)
    one, network.seen = network.seen, 0
    held.attack("eight draws", attack, on=held.correct)
    assert one - 2 * judging <= 12 * 40
    assert network.seen - 2 * judging >= 8 * 11 * 20
    first_look(held)
    rows = {row["attack"]: row["parameters"]["draws"] for row in held.ledger.attacks()}
    assert rows == {"one draw": 1, "eight draws": 8, "first look, PGD-10": 1, "first look, PGD-50": 1}


def test_measuring_the_speed_ends_with_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = toy_images()
    network = Counting()
    subject = Subject("net", network.eval(), x, y)
    monkeypatch.setattr("shconv.audit.probe.time.perf_counter", lambda: float(network.seen))
    for seconds in (0.0, 200.0, 1e9):
        network.seen = 0
        speed = measure(subject, x, y, seconds)
        assert network.seen <= max(1.5 * seconds, 8 * 2 * 2)
        assert (speed.forward + speed.forward_pass, speed.backward) == (8.0, 0.0)


@pytest.mark.parametrize(("seconds", "steps"), [(1e6, 10), (50.0, 5), (1.0, 1)])
def test_the_first_look_makes_as_many_steps_as_the_time_allows(tmp_path: Path, seconds: float, steps: int) -> None:
    held = make_audit(tmp_path, Honest())
    held.probe, held.until = Probe(0.05, 0.05), held.clock.spent + seconds
    first_look(held)
    row = held.ledger.attacks()[0]
    assert (row["attack"], row["threat"]) == (f"first look, PGD-{steps}", "linf")


class Pair(Honest):
    """Only the first two classes."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)[:, :2]


def test_two_classes_are_enough_for_an_audit() -> None:
    """Both the attacks compared and those of the worst case take the margin as loss there, on other images."""
    x, y = toy_images(40)
    few = replace(FEW, compared_images=8, standard_images=0)
    report = audit.run(Pair().eval(), (x[y < 2], y[y < 2]), EPS, budget="full", effort=few, progress=False)
    assert 0 < report.worst_case["linf"]["correct"] < 20
    assert not any(finding.alarm for finding in report.findings)
