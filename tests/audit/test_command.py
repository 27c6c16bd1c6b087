"""`shconv audit`: checkpoints and data in, a verdict on standard output and a run folder out."""

import json
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from core_toys import ToyCheck, attacking

from shconv.audit.checks import c12_worst_case
from shconv.cli import run
from shconv.commands.audit import AuditCommand
from shconv.training import ModelConfig, save_checkpoint
from toys import CLASSES, colour_folder

TOYS = (
    attacking(2, "strength", alarm=True),
    attacking(5, "transfer"),
    attacking(8, "gradients"),
    c12_worst_case,
)


@pytest.fixture(autouse=True)
def place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, on_the_cpu: None) -> None:
    """An empty folder, toy checks, no accelerator."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("shconv.audit.checks.CHECKS", TOYS, raising=False)


@pytest.fixture
def data(tmp_path: Path) -> str:
    return f"folder:{colour_folder(tmp_path / 'colours', train=1, test=8)}"


def checkpoint(name: str, seed: int = 0, model: str = "plain10", classes: tuple[str, ...] = CLASSES) -> Path:
    config = ModelConfig(model, len(classes), stem="small", width=4)
    torch.manual_seed(seed)
    network = config.build()
    torch.nn.init.constant_(network.fc.bias, 0.0)  # type: ignore[union-attr,arg-type]
    save_checkpoint(
        Path(name), network, {"model": vars(config), "data": {"classes": list(classes)}, "recipe": {}, "seed": seed}
    )
    return Path(name)


class Ended:
    def __init__(self, capfd: pytest.CaptureFixture[str], *arguments: object) -> None:
        capfd.readouterr()
        try:
            self.code = run([str(argument) for argument in arguments])
        except SystemExit as stopped:
            self.code = int(stopped.code or 0)
        self.out, self.err = capfd.readouterr()


def held(folder: Path) -> dict[str, Any]:
    return {row["id"]: row for row in map(json.loads, (folder / "rows.jsonl").read_text().splitlines())}


def test_help_lists_every_option(capfd: pytest.CaptureFixture[str]) -> None:
    ended = Ended(capfd, "audit", "--help")
    assert ended.code == 0
    for field in fields(AuditCommand):
        shown = "PATH" if field.name == "checkpoint" else f"--{field.name.replace('_', '-')}"
        assert shown in ended.out, field.name
    assert "audit" in Ended(capfd, "--help").out


def test_a_verdict_is_printed_and_a_report_written(capfd: pytest.CaptureFixture[str], data: str) -> None:
    ended = Ended(capfd, "audit", checkpoint("net"), "--data", data, "--budget", "90s")
    assert ended.code == 0, ended.err
    assert "plain10 on clean images: correct on" in ended.out
    assert "Alarm, check 2, strength" in ended.out
    assert re.search(r"budget 1:[0-2]\d", ended.err)  # 80 s less what went before the plan
    folder = Path("runs/audit-net")
    assert (folder / "report.html").is_file()
    assert {"config.toml", "data.json", "environment.json", "audit.json", "plan.json"} <= {
        f.name for f in folder.iterdir()
    }
    assert "audit/plain10/seed0/verdict" in held(folder)
    assert held(folder)["audit/plain10/seed0/attack/strength"]["epsilon"] == 8 / 255


def test_twin_seeds_and_sources_each_have_their_place(capfd: pytest.CaptureFixture[str], data: str) -> None:
    seen: dict[str, Any] = {}

    def look(audit: Any) -> None:
        seen[audit.subject.key] = (audit.twin and audit.twin.key, sorted(audit.seeds), sorted(audit.sources))

    import shconv.audit.checks as checks

    checks.CHECKS = (ToyCheck(5, "transfer", look),)  # put back by the fixture
    first, second = checkpoint("a", 0, "plain10_shc"), checkpoint("b", 1, "plain10_shc")
    twin, source = checkpoint("twin", 3), checkpoint("source", 2)
    options = ["--twin", twin, "--seeds", second, "--sources", source, "--out", "run", "--eps", "0.05", "--images", 20]
    ended = Ended(capfd, "audit", first, "--data", data, *options)
    assert ended.code == 0, ended.err
    assert seen["plain10_shc/seed0"] == ("plain10/seed3", ["plain10_shc/seed1"], ["plain10-source"])
    assert seen.keys() == {"plain10_shc/seed0", "plain10/seed3", "plain10_shc/seed1"}
    assert held(Path("run"))["audit/plain10_shc/seed0/verdict"]["n"] == 20


def test_a_twin_of_the_same_name_and_seed_is_told_apart_by_its_folder(
    capfd: pytest.CaptureFixture[str], data: str
) -> None:
    ended = Ended(capfd, "audit", checkpoint("a"), "--twin", checkpoint("defended", 0), "--data", data, "--out", "run")
    assert ended.code == 0, ended.err
    assert "audit/plain10-defended/seed0/verdict" in held(Path("run"))


def test_the_same_command_goes_on_and_its_config_is_one(capfd: pytest.CaptureFixture[str], data: str) -> None:
    command = ["audit", checkpoint("net"), "--data", data, "--out", "run"]
    first = Ended(capfd, *command)
    before = (Path("run") / "rows.jsonl").read_bytes()
    second = Ended(capfd, *command)
    third = Ended(capfd, "audit", "--config", "run/config.toml", "--out", "run", "net")
    assert (first.code, second.code, third.code) == (0, 0, 0), third.err
    assert first.out == second.out == third.out
    assert (Path("run") / "rows.jsonl").read_bytes() == before


REFUSED: dict[str, tuple[list[str], str]] = {
    "no checkpoint": (["nowhere"], "no checkpoint in nowhere"),
    "eps of pixels": (["net", "--eps", "8"], "eps: got 8; want at most 1"),
    "eps in words": (["net", "--eps", "much"], "eps: got 'much'"),
    "eps_l2 in words": (["net", "--eps-l2", "much"], "eps_l2: got 'much'"),
    "no time": (["net", "--budget", "now"], "budget: got 'now'"),
    "no images": (["net", "--images", "0"], "images must be at least 1, got 0"),
    "few images": (["net", "--images", "5"], "images: got 5; want at least 10"),
    "sure of all": (["net", "--min-confidence", "1"], "min_confidence must be at least 0 and below 1, got 1"),
    "no batch": (["net", "--batch-size", "0"], "batch_size must be at least 1"),
    "negative seed": (["net", "--attack-seed", "-1"], "attack_seed must be at least 0"),
    "other classes": (["other"], "other has 4 classes, folder:.* has 3"),
    "a twin of other classes": (["net", "--twin", "other"], "other has 4 classes"),
    "a seed of another network": (["net", "--seeds", "shc"], "shc is another network than net"),
    "the same seed": (["net", "--seeds", "again"], "again is of training seed 0, as is another"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_refused_in_a_line_or_two(capfd: pytest.CaptureFixture[str], data: str, case: str) -> None:
    arguments, message = REFUSED[case]
    checkpoint("net")
    checkpoint("again")
    checkpoint("shc", 1, "plain10_shc")
    checkpoint("other", classes=("a", "b", "c", "d"))
    ended = Ended(capfd, "audit", *arguments, "--data", data)
    assert ended.code == 2
    assert ended.out == ""
    assert ended.err.startswith("shconv: ")
    assert len(ended.err.splitlines()) <= 2
    assert re.search(message, ended.err), ended.err
    assert not [*Path("runs").glob("*/[!.]*")], "the folder is free for other options"
