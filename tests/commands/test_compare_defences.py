"""`shconv compare --defences ...`: trained, attacked, audited, priced, on one table; stopped and gone on; refused."""

import csv
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from shconv.experiments.run_folder import RunFolder
from shconv.rivals import plan, prices, wanted

FEW = ["--width", 2, "--images", 12, "--budget", "1s", "--out", "table"]


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short audits, two images for LocSearchAdv however slow the machine is, and no process for a step's memory."""
    monkeypatch.setattr(plan, "SHORTEST_AUDIT", 0.3)
    monkeypatch.setattr(plan.Plan, "with_searches", lambda self, *of: replace(self, searched=2))
    monkeypatch.setattr(prices, "peaks", lambda trials: {name: 1000 * (1 + len(name)) for name in trials})


def lines() -> dict[str, dict[str, str]]:
    with Path("table/rivals.csv").open(newline="") as file:
        return {line["network"]: line for line in csv.DictReader(file)}


def verdict(name: str) -> dict[str, Any]:
    rows = RunFolder(Path(f"table/audits/{name}-seed0"), writes=False).rows.values()
    return next(row for row in rows if row.get("kind") == "verdict")


def test_rows_are_trained_attacked_audited_and_priced_and_further_ones_join_them(shconv, pictures):
    command = ("compare", "--data", f"folder:{pictures}", *FEW, "--defences")
    ended = shconv(*command, "shc", "goodfellow")
    assert ended.code == 0, ended.err
    assert "3 of 3 networks are trained" in ended.err
    assert ended.err.count("may be too few to learn") == 1  # and not for each network again
    assert set(lines()) == {"plain10", "plain10_shc", "plain10-goodfellow"}
    for name, line in lines().items():
        empty = {each for each, value in line.items() if not value}
        assert {each for each in empty if "worst" not in each} <= {"layer", "alarms"}, name
        assert name in ended.out
        for title, threat in (("worst case L∞", "linf"), ("worst case L2", "l2")):  # short audits may leave images out
            case = verdict(name)["worst_case"].get(threat, {"accuracy": None})
            assert line[title] == ("" if case["accuracy"] is None else str(case["accuracy"]))
            assert not line[title] or float(line[f"{title}_low"]) <= float(line[title]) <= float(line["clean"])
    own = lines()["plain10"]
    assert [float(own[f"{each}_over_vanilla"]) for each in ("training", "memory", "inference")] == [1] * 3
    assert (lines()["plain10_shc"]["layer"], lines()["plain10-goodfellow"]["defence"]) == ("shc", "goodfellow")
    rows, kept = set(RunFolder(Path("table"), writes=False).rows), json.loads(Path(f"table/{wanted.PLAN}").read_text())
    times = {path: os.stat(path).st_mtime_ns for path in Path("table").glob("*/*/model.safetensors")}
    ended = shconv(*command, "ensemble")
    assert ended.code == 0, ended.err
    assert set(lines()) == {"plain10", "plain10_shc", "plain10-goodfellow", "plain10-ensemble"}
    assert Path("table/models/plain10_matched-seed0/config.json").exists()
    assert rows < set(RunFolder(Path("table"), writes=False).rows)
    assert json.loads(Path(f"table/{wanted.PLAN}").read_text()) == kept
    assert all(os.stat(path).st_mtime_ns == then for path, then in times.items())


REFUSED = {
    "unknown": (["--defences", "shd"], "--defences: got 'shd'; did you mean shc"),
    "not vanilla": (["--defences", "all", "--networks", "plain10_shc"], "unknown vanilla network 'plain10_shc'"),
    "no time": (["--defences", "all", "--budget", "soon"], "budget: got 'soon'"),
    "folders": (["somewhere", "--defences", "all"], "--defences trains its own networks"),
    "without": (["somewhere", "--width", "3"], "--width goes with --defences"),
    "seeds": (["--defences", "all", "--seeds", "1", "1"], "different seeds of at least 0, got [1, 1]"),
}


@pytest.mark.parametrize(("arguments", "message"), REFUSED.values(), ids=REFUSED)
def test_what_makes_no_sense_is_refused_before_anything_is_written(shconv, arguments, message):
    assert message in shconv("compare", "--data", "folder:unread", *arguments).message
    assert list(Path.cwd().iterdir()) == []
