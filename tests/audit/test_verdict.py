"""The words that a verdict has for what was found, and the words it never has."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from core_toys import EPS, Brightest, Shift, ToyCheck, attacking, colour_images
from torch import Tensor

from shconv import audit
from shconv.audit.audit import Audit
from shconv.audit.checks import c12_worst_case
from shconv.audit.setting import FULL
from shconv.intervals import wilson
from shconv.paired import Paired

NO_EVIDENCE = "This is no evidence of robustness"


class Steady(Brightest):
    """Brightest, but one channel's bonus keeps its class right under any step: broken on fewer images."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.sub(0.5).mul(3).add(0.5).clamp(0, 1))


def run(checks: list[Any], **options: Any) -> audit.Report:
    network = options.pop("network", Brightest())
    return audit.run(network, colour_images(60), EPS, checks=checks, budget="full", progress=False, **options)


def verdict_row(report: audit.Report) -> dict[str, Any]:
    return next(row for row in report.rows if row["id"] == "audit/model/seed0/verdict")


def test_no_alarm_is_never_called_robustness() -> None:
    report = run([attacking(2, "step"), attacking(8, "side")])
    assert f"None of the 2 checks with an answer raised an alarm. {NO_EVIDENCE}" in report.verdict
    words = report.verdict.lower().replace(NO_EVIDENCE.lower(), "")
    assert "robust" not in words
    assert "upper bound" in words
    assert verdict_row(report)["alarms"] == []


def test_every_alarm_stands_with_its_numbers() -> None:
    report = run([attacking(2, "step", alarm=True), attacking(8, "side", alarm=False), attacking(9, "odd", alarm=True)])
    assert "2 of the 3 checks with an answer raised an alarm." in report.verdict
    assert "Alarm, check 2, step: step found 7 of 9." in report.verdict
    assert "Alarm, check 9, odd: odd found 7 of 9." in report.verdict
    assert "Alarm, check 8" not in report.verdict
    assert "No alarm: check 8, side." in report.verdict
    assert NO_EVIDENCE not in report.verdict
    assert "cannot be taken as evidence of robustness" in report.verdict
    assert verdict_row(report)["alarms"] == ["step", "odd"]


def test_without_a_check_that_tells_it_says_that_it_knows_nothing() -> None:
    report = run([attacking(2, "step", alarm=None), ToyCheck(1, "routes", why="has no SHC layer")])
    assert "this audit says nothing about masked gradients" in report.verdict
    assert NO_EVIDENCE not in report.verdict


def test_what_was_tried_and_what_was_not_is_named() -> None:
    checks = [
        attacking(2, "step"),
        attacking(6, "near", threat="l2"),
        ToyCheck(1, "routes", why="has no SHC layer"),
        ToyCheck(5, "transfer", why="no twin given"),
    ]
    text = run(checks, eps_l2=1.0).verdict
    assert "Tried: step, linf; near, l2." in text
    assert "Not tried: check 1, routes (has no SHC layer); check 5, transfer (no twin given)." in text


def test_with_no_attack_nothing_is_known() -> None:
    report = run([ToyCheck(8, "look")])
    assert "Worst case within L-infinity 0.15: no attack was tried, so nothing is known." in report.verdict
    assert "No attack was tried." in report.verdict
    for name in ("linf", "confident"):
        case = report.worst_case[name]
        assert (case["accuracy"], case["interval"], case["reason"]) == (None, None, "no attack was tried")


def test_the_worst_case_has_wilson_s_interval_over_all_and_over_the_confident() -> None:
    seen: list[Audit] = []
    checks = [attacking(2, "step"), ToyCheck(8, "look", seen.append), c12_worst_case]
    report = run(checks, effort=replace(FULL, standard_images=0))
    (about,) = seen
    case, confident = report.worst_case["linf"], report.worst_case["confident"]
    left = int(about.standing().sum())
    assert (case["correct"], case["n"], case["accuracy"]) == (left, 60, left / 60)
    assert case["interval"] == pytest.approx(wilson(left, 60))
    sure = about.confident
    assert (confident["correct"], confident["n"]) == (int((about.standing() & sure).sum()), int(sure.sum()))
    assert confident["interval"] == pytest.approx(wilson(confident["correct"], confident["n"]))
    assert confident["n"] < 60
    finding = report.findings[-1]
    assert (finding.check, finding.alarm) == (12, None)
    assert finding.numbers == report.worst_case
    assert f"correct on {left} of 60, {100 * left / 60:.1f} %" in finding.text
    worst, absent = finding.text.split(" AutoAttack ")
    assert worst in report.verdict
    assert absent == "was left out for lack of time."
    assert case["broken_by"] == {"step": 60 - left}


def test_images_that_met_no_attack_are_counted_and_said() -> None:
    check = ToyCheck(2, "part", lambda audit: audit.attack("shift", Shift(EPS), on=audit.sample(40)))
    report = run([check])
    case, left = report.worst_case["linf"], 40 - report.rows[0]["successes"]
    assert (case["untried"], case["attacked"], case["left"]) == (20, 40, left)
    assert (case["accuracy"], case["interval"], case["correct"]) == (None, None, None)
    assert report.worst_case["confident"]["accuracy"] is None
    assert (
        f"No worst case within L-infinity 0.15: 40 of 60 correct images were attacked, and {left} of them are "
        "still correct. The other 20 were not attacked." in report.verdict
    )


def test_the_limit_of_confidence_is_the_one_asked_for() -> None:
    cases = {}
    for least in (0.5, 0.99):
        report = run([attacking(2, "step")], min_confidence=least)
        cases[least] = report.worst_case["confident"]
        assert f"with confidence above {least:g}: correct on" in report.verdict
        assert f"They belong to 3 of the 3 classes, {cases[least]['largest']} of them to one class." in report.verdict
    assert cases[0.99]["n"] < cases[0.5]["n"]


def test_a_network_with_nothing_left_is_called_that() -> None:
    class Dim(Brightest):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * 1e-3

    eps = 0.9
    report = audit.run(
        Dim(), colour_images(), eps, checks=[ToyCheck(2, "all", lambda a: a.attack("far", Shift(eps)))], progress=False
    )
    assert report.worst_case["linf"]["accuracy"] == 0
    assert "No image survived." in report.verdict


def test_the_twin_is_compared_image_by_image() -> None:
    standing: dict[str, np.ndarray] = {}

    def step(audit: Audit) -> None:
        audit.attack("shift", Shift(EPS))
        standing[audit.subject.name] = audit.standing()

    report = run([ToyCheck(2, "step", step)], twin=Steady(), twin_name="steady")
    twin = verdict_row(report)["twin"]
    counts = Paired.of(standing["model"], standing["steady"])
    assert counts.only_first + counts.only_second > 0
    assert (twin["n"], twin["only_network"], twin["only_twin"]) == (60, counts.only_first, counts.only_second)
    assert (twin["difference"], twin["p"]) == (counts.difference, counts.p)
    assert twin["interval"] == pytest.approx(counts.interval)
    assert twin["accuracy"] - twin["twin_accuracy"] == pytest.approx(twin["difference"])
    assert "Comparison with its twin steady, on the same 60 images" in report.verdict
    assert f"{100 * counts.difference:+.1f} points" in report.verdict


@pytest.mark.parametrize(
    ("network", "twin", "words"),
    [
        (Brightest(), Brightest(30.0), "model is not significantly different from its twin"),
        (Brightest(), "weak", "model is above its twin under these attacks"),
        ("weak", Brightest(), "model is below its twin under these attacks"),
    ],
)
def test_the_twin_s_words_follow_mcnemar(network: Any, twin: Any, words: str) -> None:
    def step(audit: Audit) -> None:
        weak = audit.subject.network.scale.item() == 1.0
        audit.attack("shift", Shift(EPS if weak else EPS / 10))

    pair = [Brightest(1.0) if each == "weak" else each for each in (network, twin)]
    report = run([ToyCheck(2, "step", step)], network=pair[0], twin=pair[1])
    assert words in report.verdict
    assert "not tried equally hard" not in report.verdict


def test_a_twin_that_was_not_tried_is_not_compared() -> None:
    def step(audit: Audit) -> None:
        if audit.subject.name == "model":
            audit.attack("shift", Shift(EPS))

    report = run([ToyCheck(2, "step", step)], twin=Brightest())
    assert "No comparison with the twin: no attack was tried on twin." in report.verdict
    assert "its twin under these attacks" not in report.verdict
    twin = verdict_row(report)["twin"]
    assert [twin[key] for key in ("difference", "interval", "p", "accuracy", "twin_accuracy")] == [None] * 5


def test_a_twin_that_was_tried_on_a_part_decides_nothing() -> None:
    def step(audit: Audit) -> None:
        audit.attack("shift", Shift(EPS), on=audit.correct if audit.subject.name == "model" else audit.sample(5))

    report = run([ToyCheck(2, "step", step)], twin=Brightest())
    assert "No comparison with the twin: 60 images of model and 60 images of twin had none" in report.verdict
    assert "its twin under these attacks" not in report.verdict
    assert (verdict_row(report)["twin"]["difference"], verdict_row(report)["twin"]["p"]) == (None, None)


def test_twins_are_compared_over_the_attacks_that_both_met() -> None:
    """What only one of them met, here examples made elsewhere and another attack, is a second number."""

    def step(audit: Audit) -> None:
        audit.attack("weak", Shift(EPS / 2))
        if audit.subject.name == "model":
            audit.attack("strong", Shift(EPS), source="elsewhere")
            audit.attack("other", Shift(EPS))

    report = run([ToyCheck(2, "step", step)], twin=Brightest())
    twin = verdict_row(report)["twin"]
    assert (twin["difference"], twin["p"], twin["attacks"], twin["left_out"]) == (0.0, 1.0, 1, ["other"])
    assert twin["accuracy"] == twin["twin_accuracy"] > report.worst_case["linf"]["accuracy"]
    assert (twin["all"]["network"]["attacks"], twin["all"]["twin"]["attacks"]) == (3, 1)
    assert "over the same 1 attack" in report.verdict
    assert "model is not significantly different from its twin" in report.verdict
    assert "Left out, because only one of them was attacked in full: other." in report.verdict
    shared = report.worst_case["linf"]["shared"]
    assert (shared["names"], shared["attacks"]) == (["weak", "other"], 2)


def test_an_attack_of_one_network_counts_where_the_other_had_nothing_left() -> None:
    def step(audit: Audit) -> None:
        audit.attack("all", Shift(EPS if audit.subject.name == "model" else 0.9))
        if audit.subject.name == "model":
            audit.attack("more", Shift(2 * EPS))

    report = audit.run(
        Brightest(), colour_images(60), 0.9, twin=Brightest(), checks=[ToyCheck(2, "s", step)], progress=False
    )
    twin = verdict_row(report)["twin"]
    assert (twin["twin_accuracy"], twin["left_out"], twin["attacks"]) == (0.0, [], 2)
    assert twin["accuracy"] == report.worst_case["linf"]["accuracy"]


def test_seeds_are_summed_up_by_mean_and_spread() -> None:
    def step(audit: Audit) -> None:
        audit.attack("shift", Shift(EPS * (1 - 0.3 * audit.subject.seed)))

    report = run([ToyCheck(2, "step", step)], seeds={1: Brightest(), 2: Brightest()})
    spread = verdict_row(report)["seeds"]
    values = np.array(list(spread["accuracy"].values()))
    assert len(set(values)) == 3
    assert spread["mean"] == pytest.approx(values.mean())
    assert spread["sd"] == pytest.approx(values.std(ddof=1))
    assert f"Over 3 training seeds, worst case within L-infinity: mean {100 * values.mean():.1f} %" in report.verdict


def test_examples_that_left_the_ball_are_said() -> None:
    report = run([ToyCheck(2, "far", lambda audit: audit.attack("far", Shift(3 * EPS)))])
    outside = report.rows[0]["outside"]
    assert outside > 0
    assert f"{outside} misclassified examples lay outside the ball or [0, 1] and did not count." in report.verdict
    assert report.worst_case["linf"]["accuracy"] == 1
