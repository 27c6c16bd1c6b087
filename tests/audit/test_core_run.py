"""A whole audit of toy checks: what it may be given, what it leaves behind, and that a stopped one goes on."""

import json
import os
import re
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from core_toys import EPS, Brightest, Shift, ToyCheck, attacking, colour_images
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from shconv import audit
from shconv.attacks.cost import Cost
from shconv.audit.audit import Audit
from shconv.audit.check import Check
from shconv.audit.clock import Clock
from shconv.audit.setting import FULL
from shconv.data.splits import ImageData, MemorySplit
from shconv.errors import InputError
from shconv.experiments.run_folder import RunFolder
from toys import CLASSES, colour_data, colours, processes

Rows = list[dict[str, Any]]


def run(folder: Path | None = None, checks: list[Check] | None = None, **options: Any) -> audit.Report:
    given: dict[str, Any] = {"budget": "full", "progress": False, "batch_size": 5, "folder": folder}
    chosen = [attacking(2, "step"), attacking(8, "side")] if checks is None else checks
    network = options.pop("network", Brightest())
    data = options.pop("data", None) or colour_images()
    return audit.run(network, data, options.pop("eps", EPS), checks=chosen, **{**given, **options})


def rows(folder: Path) -> Rows:
    """Without what a clock says."""
    lines = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    return [{**line, "seconds": None} for line in lines]


# ---- what it leaves behind


def test_rows_are_those_of_the_contract(tmp_path: Path) -> None:
    run(tmp_path, twin=Brightest(30.0))
    held = {row["id"]: row for row in rows(tmp_path)}
    assert list(held) == [
        "audit/model/seed0/attack/step",
        "audit/model/seed0/check/02-step",
        "audit/model/seed0/attack/side",
        "audit/model/seed0/check/08-side",
        "audit/twin/seed0/attack/step",
        "audit/twin/seed0/check/02-step",
        "audit/twin/seed0/verdict",
        "audit/model/seed0/verdict",
    ]
    attack = held["audit/model/seed0/attack/step"]
    assert {"model", "seed", "attack", "parameters", "route", "threat", "epsilon", "source", "n"} <= attack.keys()
    assert {"successes", "accuracy", "interval", "headline", "complete", "seconds"} <= attack.keys()
    with np.load(tmp_path / "outcomes" / "audit--model--seed0--attack--step.npz") as arrays:
        assert {"index", "attempted", "success", "queries"} <= set(arrays)
        assert arrays["success"].sum() == attack["successes"]
    verdict = held["audit/model/seed0/verdict"]
    assert {"n", "clean", "worst_case", "twin", "alarms", "text", "preflight"} <= verdict.keys()
    worst = verdict["worst_case"]["linf"]
    assert worst["accuracy"] == attack["accuracy"] == worst["correct"] / 24
    assert {row["experiment"] for row in held.values()} == {"audit"}


def test_the_report_holds_findings_worst_case_and_words(capsys: pytest.CaptureFixture[str]) -> None:
    report = run()
    assert [finding.check for finding in report.findings] == [2, 8]
    assert report.findings[0].numbers == {"found": 7}
    assert report.worst_case["linf"]["n"] == 24
    assert report.folder is None
    report.print()
    assert capsys.readouterr().out == report.verdict + "\n"


def test_arrays_of_a_finding_lie_where_the_figures_look_for_them(tmp_path: Path) -> None:
    class Drawn(ToyCheck):
        def run(self, audit: Audit) -> audit.Finding:
            return replace(super().run(audit), arrays={"epsilon": np.arange(3.0)}, figure="budget")

    report = run(tmp_path, [Drawn(4, "budget curve")])
    row = report.rows[0]
    assert row["array"] == "audit-model-seed0-budget.npz"
    with np.load(tmp_path / "arrays" / row["array"]) as arrays:
        assert arrays["epsilon"].tolist() == [0, 1, 2]
    assert report.findings[0].arrays["epsilon"].tolist() == [0, 1, 2]


def test_numbers_of_numpy_become_json(tmp_path: Path) -> None:
    class Numbered(ToyCheck):
        def run(self, audit: Audit) -> audit.Finding:
            return replace(super().run(audit), numbers={"a": np.float32(0.5), "b": np.arange(2), "c": np.int64(3)})

    assert run(tmp_path, [Numbered(8, "numbers")]).rows[0]["numbers"] == {"a": 0.5, "b": [0, 1], "c": 3}


# ---- the same again


def test_it_is_the_same_every_time_and_for_every_batch_size(tmp_path: Path) -> None:
    for name, batch_size in (("a", 5), ("b", 5), ("c", 24)):
        run(tmp_path / name, batch_size=batch_size)
    first, second, other = (rows(tmp_path / name) for name in "abc")
    assert first == second == other


def test_a_finished_audit_is_not_done_again(tmp_path: Path) -> None:
    calls: list[Any] = []
    checks = [ToyCheck(2, "step", lambda audit: audit.attack("shift", Shift(EPS, calls.append)))]
    before = run(tmp_path, checks)
    count = len(calls)
    after = run(tmp_path, checks)
    assert len(calls) == count
    assert (before.verdict, before.worst_case) == (after.verdict, after.worst_case)
    assert len(rows(tmp_path)) == 3


@pytest.mark.parametrize("stop_at", range(1, 11))
def test_a_stopped_audit_goes_on_and_ends_as_if_never_stopped(tmp_path: Path, stop_at: int) -> None:
    """Stopped before each batch in turn: of two attacks of one check, of one of the next, and of the twin's."""
    seen: list[list[int]] = []
    stopping = False

    def look(index: list[int]) -> None:
        if stopping and len(seen) == stop_at:
            raise KeyboardInterrupt
        seen.append(index)

    def two(audit: Audit) -> None:
        audit.attack("weak", Shift(0.8 * EPS, look))
        audit.attack("strong", Shift(EPS, look))

    checks = [ToyCheck(2, "two", two), ToyCheck(6, "one", lambda a: a.attack("l2", Shift(EPS, look), threat="l2"))]
    options: dict[str, Any] = {"twin": Brightest(30.0), "batch_size": 12}
    whole = run(tmp_path / "whole", checks, **options)
    wanted, stopping = [*seen], True
    assert len(wanted) > 10
    seen.clear()
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "stopped", checks, **options)
    stopping = False
    resumed = run(tmp_path / "stopped", checks, **options)
    assert seen == wanted
    assert rows(tmp_path / "stopped") == rows(tmp_path / "whole")
    assert (resumed.verdict, resumed.worst_case) == (whole.verdict, whole.worst_case)
    for file in (tmp_path / "whole" / "outcomes").iterdir():
        with np.load(file) as a, np.load(tmp_path / "stopped" / "outcomes" / file.name) as b:
            assert all(np.array_equal(a[name], b[name]) for name in a)
    assert list((tmp_path / "stopped" / "partial").iterdir()) == []


def killed(folder: Path) -> None:
    """An audit whose process is gone when the attack is at the eleventh image."""

    def die(index: list[int]) -> None:
        if index[0] == 10:
            os.kill(os.getpid(), signal.SIGKILL)

    run(folder, [ToyCheck(2, "step", lambda audit: audit.attack("shift", Shift(EPS, die)))])


def test_a_killed_audit_goes_on(tmp_path: Path) -> None:
    process = processes().Process(target=killed, args=(tmp_path / "killed",))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    seen: list[int] = []
    check = ToyCheck(2, "step", lambda audit: audit.attack("shift", Shift(EPS, seen.extend)))
    run(tmp_path / "killed", [check])
    assert seen == list(range(10, 24))
    seen.clear()
    run(tmp_path / "whole", [check])
    assert rows(tmp_path / "killed") == rows(tmp_path / "whole")


def test_what_a_kill_left_of_a_finished_attack_is_removed(tmp_path: Path) -> None:
    """Its row is in, and its file of the way there was not yet removed."""

    def stop(index: list[int]) -> None:
        if stopping and index[0] == 10:
            (under_way,) = (tmp_path / "partial").iterdir()
            under_way.rename(under_way.with_name(under_way.name.replace("second", "first")))
            raise KeyboardInterrupt

    def two(audit: Audit) -> None:
        audit.attack("first", Shift(EPS))
        audit.attack("second", Shift(EPS, stop))

    stopping = True
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, [ToyCheck(2, "two", two)])
    stopping = False
    run(tmp_path, [ToyCheck(2, "two", two)])
    assert list((tmp_path / "partial").iterdir()) == []


def test_a_damaged_file_of_a_stopped_attack_is_attacked_again(tmp_path: Path) -> None:
    def stop(index: list[int]) -> None:
        if index[0] == 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, [ToyCheck(2, "step", lambda audit: audit.attack("shift", Shift(EPS, stop)))])
    (partial,) = (tmp_path / "partial").iterdir()
    partial.write_bytes(partial.read_bytes()[:50])
    seen: list[int] = []
    run(tmp_path, [ToyCheck(2, "step", lambda audit: audit.attack("shift", Shift(EPS, seen.extend)))])
    assert seen == list(range(24))


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"eps": 0.2}, "eps ="),
        ({"eps_l2": 0.2}, "eps_l2 ="),
        ({"seed": 1}, "seed ="),
        ({"budget": "1h"}, "budget ="),
        ({"images": 20}, "images ="),
        ({"network": Brightest(21.0)}, "networks.network.weights ="),
        ({"twin": Brightest()}, "networks.twin ="),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_folder_is_about_one_question(tmp_path: Path, change: dict[str, Any], field: str) -> None:
    run(tmp_path)
    before = rows(tmp_path)
    with pytest.raises(InputError, match=field):
        run(tmp_path, **change)
    assert rows(tmp_path) == before


# ---- time


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """The audit's clock; tests turn it."""
    now = [0.0]
    monkeypatch.setattr("shconv.audit.clock.time.monotonic", lambda: now[0])
    return now


@pytest.mark.parametrize(("budget", "attacked"), [("7s", 1), ("20s", 10), ("32s", 40)])
def test_a_slow_network_is_attacked_as_far_as_the_time_goes(
    monkeypatch: pytest.MonkeyPatch, clock: list[float], budget: str, attacked: int
) -> None:
    """With a budget in which nothing can be attacked, with the one that the refusal names."""
    monkeypatch.setattr("shconv.audit.probe.time.perf_counter", lambda: clock[0])

    class Slow(Brightest):
        def forward(self, x: Tensor) -> Tensor:
            clock[0] += 0.1 * len(x)
            return super().forward(x)

    if budget == "7s":
        with pytest.raises(InputError, match=r"for 40 images, or fewer images: a pass takes 0\.1 s") as refused:
            audit.run(Slow(), colour_images(40), EPS, budget=budget, progress=False)
        budget = re.search(r"want at least (\d+s)", str(refused.value))[1]  # type: ignore[index]
        clock[0] = 0.0
    found = audit.run(Slow(), colour_images(40), EPS, budget=budget, progress=False)
    assert clock[0] <= float(budget[:-1])
    assert sum(row["n"] for row in found.rows if row["kind"] == "attack") >= attacked


def test_nothing_starts_after_the_deadline_and_that_is_said(tmp_path: Path, clock: list[float]) -> None:
    class Slow(Shift):
        def perturb(self, *arguments: Any) -> Any:
            made = super().perturb(*arguments)
            clock[0] += 81
            return made

    checks = [
        ToyCheck(2, "slow", lambda audit: audit.attack("shift", Slow(EPS)), passes=Cost(1000, 1000)),
        ToyCheck(6, "late", lambda audit: audit.attack("late", Slow(EPS))),
        ToyCheck(8, "side", lambda audit: clock.append(1.0)),
    ]
    report = run(tmp_path, checks, budget="90s")
    late = {finding.name: finding.not_run for finding in report.findings}
    assert late["slow"] == ""
    assert late["late"] == late["side"] == "left out: the time was used up before it"
    assert "Stopped early by the time budget: shift, linf (5 images)" in report.verdict
    assert "Not tried: check 6, late (left out: the time was used up before it)" in report.verdict
    assert clock == [81.0]


def test_each_check_has_its_part_of_the_time_left(tmp_path: Path, clock: list[float]) -> None:
    left: list[float] = []

    def spend(seconds: float) -> Any:
        def act(audit: Audit) -> None:
            left.append(audit.remaining())
            clock[0] += seconds

        return act

    costs = {"a": (10, 5.0), "b": (20, 50.0), "c": (10, 0.0)}  # shares of 80 s: 20, 40, 20
    run(tmp_path, [ToyCheck(5, name, spend(s), passes=Cost(n, n)) for name, (n, s) in costs.items()], budget="90s")
    assert left == pytest.approx([20, (80 - 5) * 2 / 3, 80 - 55], abs=0.1)


def test_time_spent_before_a_stop_counts(tmp_path: Path, clock: list[float]) -> None:
    def slow(index: list[int]) -> None:
        clock[0] += 30
        if clock[0] == 60:
            raise KeyboardInterrupt

    checks = [ToyCheck(2, "slow", lambda audit: audit.attack("shift", Shift(EPS, slow)))]
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, checks, budget="90s")
    assert json.loads((tmp_path / "clock.json").read_bytes())["spent"] == 30
    place = RunFolder(tmp_path)
    assert Clock(place, 90.0).left() == 80 - 30
    clock[0] = 1000.0
    run(tmp_path, checks, budget="90s")
    assert clock[0] == 1030.0  # one more batch of 30 s; another does not fit into the 20 s that are left of 80


def test_a_stopped_audit_keeps_its_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(audit: Audit) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, [ToyCheck(2, "step", stop)], effort=replace(FULL, restarts=3))
    efforts = []
    run(tmp_path, [ToyCheck(2, "step", lambda audit: efforts.append(audit.effort.restarts))])
    assert efforts == [3]


# ---- what it may be given


def test_the_twin_and_other_seeds_meet_the_headline_s_attacks_only(tmp_path: Path) -> None:
    met: list[tuple[str, str]] = []

    def check(number: int) -> Check:
        return ToyCheck(number, f"c{number}", lambda audit: met.append((audit.subject.key, f"c{number}")))

    options = {"twin": Brightest(30.0), "seeds": {1: Brightest(10.0)}, "sources": {"other": Brightest(5.0)}}
    report = run(tmp_path, [check(number) for number in (1, 3, 5, 8, 11)], **options)
    assert [name for key, name in met if key == "model/seed0"] == ["c1", "c3", "c5", "c8", "c11"]
    for key in ("twin/seed0", "model/seed1"):
        assert [name for other, name in met if other == key] == ["c1", "c5"]
    assert "other/seed0" not in dict(met)
    verdict = next(row for row in report.rows if row["id"] == "audit/model/seed0/verdict")
    assert verdict["twin"]["name"] == "twin"
    assert verdict["seeds"]["accuracy"] == {}
    assert verdict["seeds"]["left_out"] == dict.fromkeys(("seed0", "seed1"), "no attack was tried")


def test_every_check_sees_twin_sources_and_seeds() -> None:
    seen: dict[str, Any] = {}

    def look(audit: Audit) -> None:
        seen[audit.subject.key] = (
            audit.twin.name if audit.twin else None,
            list(audit.sources),
            list(audit.seeds),
        )

    run(
        checks=[ToyCheck(5, "transfer", look)],
        twin=Brightest(30.0),
        seeds={1: Brightest(10.0)},
        sources={"other": Brightest(5.0)},
    )
    assert seen["model/seed0"] == ("twin", ["other"], ["model/seed1"])
    assert seen["twin/seed0"] == (None, ["model/seed0"], [])


def test_test_images_of_a_data_set_are_taken_by_a_seeded_choice() -> None:
    labels = [0] * 20 + [1] * 20 + [2] * 20  # as folders give them
    split = MemorySplit(colours(labels, least=20), torch.tensor(labels), [str(i) for i in range(60)])
    data = ImageData("colours", CLASSES, None, split, 8, "", 0)
    seen: list[tuple[list[int], set[int]]] = []

    def look(audit: Audit) -> None:
        assert torch.equal(audit.images, split.images[audit.index].float() / 255)
        assert torch.equal(audit.labels, split.labels[audit.index])
        seen.append((audit.index.tolist(), set(audit.labels.tolist())))

    for given, images in ((data, 30), (data, 30), (split, 30), (data, None)):
        run(checks=[ToyCheck(2, "look", look)], data=given, images=images)
    assert seen[0] == seen[1] == seen[2]
    assert len(seen[0][0]) == 30
    assert seen[0][1] == {0, 1, 2}
    assert seen[3][0] == list(range(60))


def test_the_usual_l2_radius_is_half_at_eight_of_255_on_small_images() -> None:
    x = torch.rand(12, 3, 32, 32)
    network = Brightest()
    radii = []
    run(
        data=(x, network(x).argmax(1)),
        eps="8/255",
        checks=[ToyCheck(2, "look", lambda a: radii.append(a.setting.eps_l2))],
    )
    assert radii == pytest.approx([0.5])


X, Y = colour_images()
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "eps of pixels": ({"eps": 8}, "eps: got 8; want at most 1"),
    "no eps": ({"eps": 0}, "eps: got 0; want a number > 0"),
    "negative eps": ({"eps": -0.1}, "eps: got -0.1"),
    "eps in words": ({"eps": "much"}, "eps: got 'much'; want a number .* 8/255"),
    "eps over nothing": ({"eps": "8/0"}, "eps: got '8/0'"),
    "eps is NaN": ({"eps": float("nan")}, "eps: got nan"),
    "negative eps_l2": ({"eps_l2": -1}, "eps_l2: got -1"),
    "no time": ({"budget": "0m"}, "budget: got '0m'"),
    "time in words": ({"budget": "soon"}, "budget: got 'soon'; want a time such as 90s, 5m or 1h, or full"),
    "negative seed": ({"seed": -1}, "seed: got -1"),
    "no batch": ({"batch_size": 0}, "batch_size: got 0"),
    "8-bit images": ({"data": ((X * 255).byte(), Y)}, "images.float"),
    "images in [0, 255]": ({"data": (X * 255, Y)}, "normalisation belongs inside"),
    "labels as numbers": ({"data": (X, Y.float())}, "labels: got .* want an int64"),
    "labels of other images": ({"data": (X, Y[:-1])}, "labels: got"),
    "a list": ({"data": ([1], [2])}, "want .images, labels., both tensors or arrays"),
    "too few images": ({"data": (X[:9], Y[:9])}, "images: got 9; want at least 10"),
    "too few chosen": ({"images": 3}, "images: got 3; want at least 10"),
    "none chosen": ({"images": 0}, "images must be at least 1"),
    "another number of classes": (
        {"data": replace(colour_data(30), classes=("a", "b", "c", "d"))},
        "model has 3 classes, colours has 4: want the same",
    ),
    "a twin of other classes": (
        {"twin": nn.Sequential(Brightest(), nn.Linear(3, 5))},
        "twin has 5 classes, model has 3: want the same",
    ),
    "two of one name": ({"twin": Brightest(), "twin_name": "model"}, "network and twin are both model"),
    "its own seed again": ({"seeds": {0: Brightest()}}, "seeds: got 0 again"),
    "a slash in the name": ({"name": "a/b"}, "without a slash"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_used_is_refused_before_anything_is_written(case: str, tmp_path: Path) -> None:
    options, message = REFUSED[case]
    with pytest.raises(InputError, match=message):
        run(tmp_path / "run", **options)
    assert not (tmp_path / "run" / "rows.jsonl").exists()


# ---- the first look


@pytest.mark.parametrize("stop_at", range(6))
def test_a_first_look_breaks_what_breaks_easily_and_a_stop_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_at: int
) -> None:
    """Stopped at each attack in turn: the first look's two, and three of the checks."""
    standing: list[int] = []

    def two(audit: Audit) -> None:
        standing.append(int(audit.standing().sum()))
        audit.attack("shift", Shift(EPS))
        audit.attack("again", Shift(EPS), threat="l2")

    checks = (ToyCheck(2, "two", two), attacking(6, "step"))
    monkeypatch.setattr("shconv.audit.checks.CHECKS", checks, raising=False)
    given: dict[str, Any] = {"eps_l2": 3.0, "budget": "full", "progress": False}
    whole = audit.run(Brightest(), colour_images(), EPS, folder=tmp_path / "whole", **given)
    looked = [row for row in whole.rows if row["kind"] == "attack" and row["checked_by"] == "first look"]
    assert [row["threat"] for row in looked] == ["linf", "l2"]
    assert standing == [24 - looked[0]["successes"]]
    assert looked[0]["successes"] > 0

    attack, calls = Audit.attack, 0

    def stopping(self: Audit, *arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == stop_at + 1:
            raise KeyboardInterrupt
        return attack(self, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Audit, "attack", stopping)
        if stop_at < 5:
            with pytest.raises(KeyboardInterrupt):
                audit.run(Brightest(), colour_images(), EPS, folder=tmp_path / "stopped", **given)
    audit.run(Brightest(), colour_images(), EPS, folder=tmp_path / "stopped", **given)
    assert rows(tmp_path / "stopped") == rows(tmp_path / "whole")


@pytest.mark.parametrize("alarm", [False, True])
def test_a_check_that_was_cut_short_may_raise_an_alarm_but_not_say_there_is_none(
    clock: list[float], alarm: bool
) -> None:
    def slow(index: list[int]) -> None:
        clock[0] += 70

    report = run(checks=[ToyCheck(2, "slow", lambda a: a.attack("shift", Shift(EPS, slow)), alarm)], budget="90s")
    (finding,) = report.findings
    assert finding.alarm is (True if alarm else None)
    assert ("it has no answer" in finding.text) is not alarm


def test_an_attack_that_takes_far_too_long_is_ended_in_its_midst(tmp_path: Path, clock: list[float]) -> None:
    class Endless(Shift):
        def perturb(self, model: Any, *arguments: Any) -> Any:
            while clock[0] < 1000:
                model(arguments[0])
                clock[0] += 1
            return super().perturb(model, *arguments)

    checks = [
        ToyCheck(2, "endless", lambda audit: audit.attack("endless", Endless(EPS)), passes=Cost(99, 99)),
        ToyCheck(8, "looping", lambda audit: Endless(EPS).run(audit.subject.model, audit.images, audit.labels)),
    ]
    report = run(tmp_path, checks, budget="90s")
    assert clock == [80.0]
    assert report.rows[0]["n"] == 0
    assert not report.rows[0]["complete"]
    unfinished = "left unfinished: the time was used up while it ran"
    assert f"Not tried: check 8, looping ({unfinished}); for lack of time, endless, linf." in report.verdict


class Detached(Brightest):
    """No gradient reaches the image."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.detach())


@pytest.mark.parametrize(("epsilon", "left"), [(None, None), (0.0, 24), (0.3, 0)])
def test_images_that_survive_attacks_along_no_gradient_are_no_worst_case(epsilon: float | None, left: int) -> None:
    """epsilon: of an attack that needs no gradient; None: there is none."""
    checks: list[Check] = [attacking(2, "strength", 0.3)]
    if epsilon is not None:
        checks.append(ToyCheck(6, "shift", lambda audit: audit.attack("shift", Shift(epsilon))))
    report = audit.run(Detached(), colour_images(), 0.3, budget="full", effort=FULL, checks=checks, progress=False)
    case = report.worst_case["linf"]
    assert case["correct"] == left
    assert (case["accuracy"] is None) == (epsilon is None)
    said = "only attacks by gradient were tried, and the gradient is 0 on most images, so nothing is known."
    assert (said in report.verdict) == (epsilon is None)


def test_images_may_come_as_for_an_evaluation() -> None:
    x, y = colour_images()
    given = [(x, y), (x.numpy(), y.numpy()), TensorDataset(x, y), DataLoader(TensorDataset(x, y), batch_size=7)]
    how: dict[str, Any] = {"budget": "full", "effort": FULL, "checks": [attacking(2, "strength")], "progress": False}
    cases = [audit.run(Brightest(), data, EPS, **how).worst_case for data in given]
    assert all(case == cases[0] for case in cases)
