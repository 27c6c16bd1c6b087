"""A folder of an earlier version, which did not know every option: those count as their defaults."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import shconv as package
from shconv.attacks import FGSM
from shconv.attacks.cost import Cost
from shconv.audit.findings import Finding
from shconv.commands.audit import AuditCommand
from shconv.commands.compare import Compare
from shconv.commands.config_file import usual
from shconv.commands.evaluate import Evaluate
from shconv.commands.reproduce import Reproduce
from shconv.errors import InputError
from shconv.toml import read_toml, to_toml
from toys import colour_networks, colours

KINDS: dict[str, Any] = {"reproduce": Reproduce, "evaluate": Evaluate, "compare": Compare, "audit": AuditCommand}
CHECK = SimpleNamespace(
    NUMBER=8,
    NAME="gradients",
    SOURCE="",
    cost=lambda audit: Cost(1),
    run=lambda audit: Finding(False, "Nothing."),
)


@pytest.fixture(params=KINDS)
def kind(request, monkeypatch, pictures) -> str:
    monkeypatch.setattr("shconv.audit.checks.CHECKS", (CHECK,))
    monkeypatch.setattr("shconv.commands.audit.report.write", lambda folder: folder)
    monkeypatch.setattr("shconv.commands.reproduce.conclude", lambda folder, progress: None)
    monkeypatch.chdir(pictures.parent)  # as the finished run was
    return str(request.param)


def command(kind: str, finished: Path, copied: Path) -> tuple[list[object], Path]:
    """What makes, or goes on with, a folder of the kind, and the folder."""
    out = copied if kind == "reproduce" else copied.parent / "out"
    few = ["--data", "folder:colours", "--batch-size", 8, "--out", out]
    if kind == "reproduce":
        counts = ["--table2-images", 8, "--table3-images", 2, "--epochs", 40]
        return [kind, "--models", "plain10", "--width", 4, *counts, *few], out
    networks = [finished / "models" / f"{name}-seed0" for name in ("plain10", "plain10_shc")]
    return {
        "audit": [kind, networks[0], "--images", 12, *few],
        "evaluate": [kind, networks[0], "--attack", "fgsm", *few],
        "compare": [kind, *networks, "--attack", "fgsm", *few],
    }[kind], out


def forget(folder: Path, *names: str) -> None:
    """Leave options out of config.toml, as a version without them wrote it."""
    stored = {name: value for name, value in read_toml(folder / "config.toml").items() if name not in names}
    (folder / "config.toml").write_text(to_toml(stored))


def leave_out(path: Path, part: Callable[[dict[str, Any]], dict[str, Any]], *names: str) -> None:
    stored = json.loads(path.read_text())
    for name in names:
        del part(stored)[name]
    path.write_text(json.dumps(stored))


def test_a_folder_goes_on_though_it_does_not_know_options_that_are_at_their_defaults(shconv, kind, finished, copied):
    asked, folder = command(kind, finished, copied)
    assert shconv(*asked).code == 0
    stored, rows = read_toml(folder / "config.toml"), (folder / "rows.jsonl").read_bytes()
    defaults = usual(KINDS[kind])
    plain = [name for name, value in stored.items() if value == defaults.get(name)]
    assert {"on_corrupt", "min_confidence", "attack_seed"} <= {*plain}
    forget(folder, *plain)
    if kind == "reproduce":
        (folder / "config.toml").write_text((folder / "config.toml").read_text() + "tensorboard = false\n")
    if kind == "audit":
        leave_out(folder / "audit.json", lambda facts: facts, "seed", "min_confidence")
        leave_out(folder / "plan.json", lambda plan: plan["effort"], "patience", "mixtures")
    ended = shconv(*asked)
    assert ended.code == 0, ended.err
    assert (folder / "rows.jsonl").read_bytes() == rows
    assert read_toml(folder / "config.toml") == stored


def test_an_option_that_the_folder_does_not_know_is_refused_at_another_value(shconv, kind, finished, copied):
    asked, folder = command(kind, finished, copied)
    assert shconv(*asked).code == 0
    forget(folder, "batch_size")
    before = (folder / "config.toml").read_bytes()
    usually = usual(KINDS[kind])["batch_size"]
    assert f"holds a run with batch_size = {usually}, asked for is 8" in shconv(*asked).message
    assert (folder / "config.toml").read_bytes() == before


def test_a_usual_folder_of_an_earlier_version_is_taken_up_and_no_other_one_made(shconv, pictures, finished):
    networks = [finished / "models" / f"{name}-seed0" for name in ("plain10", "plain10_shc")]
    asked = ["compare", *networks, "--data", f"folder:{pictures}", "--attack", "fgsm"]
    assert shconv(*asked).code == 0
    forget(Path("runs/comparison"), "on_corrupt", "batch_size")
    assert shconv(*asked).code == 0
    assert [path.name for path in Path("runs").iterdir()] == ["comparison"]


def test_a_folder_of_the_call_goes_on_too_and_so_do_attacks_with_fewer_fields(tmp_path):
    data = colours([0, 1, 2] * 4).float() / 255, torch.tensor([0, 1, 2] * 4)
    how: dict[str, Any] = {"batch_size": 12, "folder": tmp_path, "progress": False}
    first = package.evaluate(colour_networks()[0], data, {"one": FGSM(0.1)}, **how)
    rows = (tmp_path / "rows.jsonl").read_bytes()
    forget(tmp_path, "routes", "seed")
    path = tmp_path / "attacks.json"
    assert json.loads(path.read_text())["one"].startswith("FGSM(objective='least_likely', ")
    path.write_text(json.dumps({"one": "FGSM(epsilon=0.1)"}))
    again = package.evaluate(colour_networks()[0], data, {"one": FGSM(0.1)}, **how)
    assert (tmp_path / "rows.jsonl").read_bytes() == rows
    assert len(first.rows()) == len(again.rows())
    with pytest.raises(InputError, match="one = "):
        package.evaluate(colour_networks()[0], data, {"one": FGSM(0.1, objective="untargeted")}, **how)
    forget(tmp_path, "routes")
    with pytest.raises(InputError, match=r"routes\[0\] = 'both', asked for is 'convolution'"):
        package.evaluate(colour_networks()[0], data, {"one": FGSM(0.1)}, routes=["convolution"], **how)
