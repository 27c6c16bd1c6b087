"""`shconv reproduce` in miniature: stopped anywhere and given again, it ends where an uninterrupted run does."""

import contextlib
import errno
import gc
import itertools
import json
import os
import re
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from shconv.attacks.locsearch.search import Search
from shconv.cli import main, run
from shconv.experiments.run_folder import RunFolder
from shconv.training.progress import TrainingProgress
from toys import MINIATURE, processes

SECONDS = {"seconds", "images_per_second"}


@pytest.fixture(autouse=True)
def undrawn(monkeypatch: pytest.MonkeyPatch, on_the_cpu: None, hurried: None) -> None:
    """Tables and page are the report's own matter, and take seconds."""
    monkeypatch.setattr("shconv.commands.reproduce.conclude", lambda folder, progress: None)


@pytest.fixture(autouse=True)
def beside_the_pictures(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(pictures.parent)


@pytest.fixture(scope="module")
def whole(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run, without its report."""
    report = shutil.ignore_patterns("report.html", "tables", "figures")
    return Path(shutil.copytree(finished, tmp_path_factory.mktemp("whole") / "run", ignore=report))


def command(out: Path, *more: str) -> list[str]:
    return ["reproduce", "--data", "folder:colours", *MINIATURE, "--out", str(out), *more]


def reproduce(out: Path, *more: str) -> int:
    return run(command(out, *more))


def lines(path: Path) -> list[dict[str, Any]]:
    """A file of JSON lines, without what a clock says."""
    return [{k: v for k, v in json.loads(line).items() if k not in SECONDS} for line in path.read_text().splitlines()]


def arrays(folder: Path) -> dict[str, dict[str, list[Any]]]:
    held = {}
    for path in sorted(folder.glob("*/*.npz")):
        with np.load(path) as stored:
            held[f"{path.parent.name}/{path.name}"] = {name: stored[name].tolist() for name in stored}
    return held


def assert_same_run(ours: Path, theirs: Path) -> None:
    """Rows in order, per-image outcomes, selections, weights and training logs, all bit for bit."""
    assert lines(ours / "rows.jsonl") == lines(theirs / "rows.jsonl")
    assert arrays(ours) == arrays(theirs)
    names = sorted(str(path.relative_to(theirs)) for path in theirs.rglob("*") if path.is_file())
    assert sorted(str(path.relative_to(ours)) for path in ours.rglob("*") if path.is_file()) == names
    for name in names:
        if name.startswith("selection/") or name.endswith((".safetensors", "networks.json", "data.json")):
            assert (ours / name).read_bytes() == (theirs / name).read_bytes(), name
        if name.endswith("log.jsonl"):
            assert lines(ours / name) == lines(theirs / name)


def test_the_networks_know_their_classes_so_that_every_row_has_images(whole):
    rows = lines(whole / "rows.jsonl")
    assert {row["experiment"] for row in rows} == {"table1", "table2", "table3", "table4", "quasi_boundary"}
    assert min(row["n"] for row in rows) == 2
    assert len({row["id"] for row in rows}) == len(rows)


# ---- stopped


def trained(whole: Path, folder: Path) -> Path:
    """A run as it is when the networks are trained."""
    ignored = shutil.ignore_patterns("rows.jsonl", "*.npz", "selection")
    return Path(shutil.copytree(whole, folder / "run", ignore=ignored))


def stop_at(
    count: int,
    then: Callable[..., Any],
    before: bool = True,
    error: Callable[[], BaseException] = KeyboardInterrupt,
    ever_after: bool = False,
) -> Callable[..., Any]:
    """`then`, but raising at its count-th call (and ever after), before or after it does its work."""
    calls = itertools.count(1)

    def stopping(*arguments: Any, **named: Any) -> Any:
        call = next(calls)
        last = call == count or (ever_after and call > count)
        if last and before:
            raise error()
        result = then(*arguments, **named)
        if last:
            raise error()
        return result

    return stopping


# In the order of a run: each is counted from where the one before it stopped.
STOPS = {
    "in the first epochs": (TrainingProgress, "step", 12, True),
    "at the end of an epoch of the second network": (TrainingProgress, "epoch", 50, False),
    "before the first row": (RunFolder, "add", 1, True),
    "after a row of Table 2": (RunFolder, "add", 20, False),
    "in a search": (Search, "round", 3, False),
    "between a row's arrays and the row": (RunFolder, "save_arrays", 8, False),
    "before a figure": (RunFolder, "save_arrays", 23, True),
}


def test_stopped_anywhere_and_given_again_it_equals_an_uninterrupted_run(whole, tmp_path, monkeypatch, capsys):
    out, rows, printed = tmp_path / "run", [], []
    for place, (owner, name, count, before) in STOPS.items():
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, stop_at(count, getattr(owner, name), before))
            assert reproduce(out) == 130, place
        printed.append(capsys.readouterr().err.splitlines())
        assert printed[-1][-1] == "shconv: stopped; the same command continues from here", place
        rows.append(len(lines(out / "rows.jsonl")) if (out / "rows.jsonl").exists() else 0)
    assert rows == [0, 0, 0, 20, 42, 49, 71]
    assert printed[0][0].startswith("2 networks to train, ")
    assert printed[0][0].endswith(f"Everything is written to {out}.")
    assert printed[2][0].startswith("1 network to train, ")
    assert "2 of 2 networks are trained" in printed[2]
    assert reproduce(out) == 0
    assert_same_run(out, whole)


def test_a_disk_that_fills_up_is_named_and_nothing_written_is_lost(whole, tmp_path, monkeypatch, capsys):
    out = trained(whole, tmp_path)

    def full() -> OSError:
        return OSError(errno.ENOSPC, "No space left on device")

    for owner, name, count in ((os, "fsync", 5), (os, "fsync", 40), (RunFolder, "add", 30)):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, stop_at(count, getattr(owner, name), error=full, ever_after=True))
            assert reproduce(out) == 1
        said = capsys.readouterr().err.splitlines()[-1]
        assert re.fullmatch(
            r"shconv: the disk is full(: .*)?; what was written is intact, and the same command continues", said
        )
    kept = (out / "rows.jsonl").read_text()
    with (out / "rows.jsonl").open("a") as file:
        file.write('{"id": "table2/plain10/seed0/fg')  # as much of a row as there was room for
    assert reproduce(out) == 0
    assert (out / "rows.jsonl").read_text().startswith(kept)
    assert_same_run(out, whole)


def hearing(arguments: list[str], place: Path, errors: Path) -> None:
    """`shconv` in a process of its own that hears Ctrl-C, as a background job does not. What it raises in a callback of
    the tests' own tools would be lost."""
    gc.disable()
    gc.callbacks.clear()
    os.chdir(place)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ["ACCELERATE_USE_CPU"] = "1"
    torch.set_num_threads(1)  # as here: sums round differently over two
    with errors.open("w") as said, contextlib.redirect_stderr(said):
        main(arguments)


@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
def test_control_c_ends_a_process_in_one_line_and_the_same_command_goes_on(whole, tmp_path, capsys):
    out, errors = trained(whole, tmp_path), tmp_path / "errors"
    process = processes().Process(target=hearing, args=(command(out), Path.cwd(), errors))
    process.start()
    until = time.monotonic() + 100
    while not (out / "rows.jsonl").exists() or (out / "rows.jsonl").read_bytes().count(b"\n") < 5:
        assert process.is_alive()
        assert time.monotonic() < until
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGINT)
    process.join(60)
    said = errors.read_text()
    assert process.exitcode == 130, said
    assert "Traceback" not in said
    assert [line for line in said.splitlines() if line.startswith("shconv:")] == [said.splitlines()[-1]]
    assert said.splitlines()[-1] == "shconv: stopped; the same command continues from here"
    kept = (out / "rows.jsonl").read_text()
    assert 5 <= len(kept.splitlines()) < len(lines(whole / "rows.jsonl"))
    assert reproduce(out) == 0
    assert (out / "rows.jsonl").read_text().startswith(kept)
    assert_same_run(out, whole)


# ---- the same command with more to do


def test_a_finished_run_has_nothing_left_to_do(whole, tmp_path, monkeypatch):
    out = Path(shutil.copytree(whole, tmp_path / "run"))
    rows = (out / "rows.jsonl").read_bytes()
    monkeypatch.setattr("shconv.experiments.study.Study.measure", None)
    monkeypatch.setattr("shconv.training.job.Job.run", None)
    assert reproduce(out, "--workers", "1") == 0
    assert (out / "rows.jsonl").read_bytes() == rows


def test_another_seed_joins_the_rows_that_are_there(whole, tmp_path):
    out = Path(shutil.copytree(whole, tmp_path / "run"))
    first = (out / "rows.jsonl").read_text()
    assert reproduce(out, "--seeds", "0", "1") == 0
    assert (out / "rows.jsonl").read_text().startswith(first)
    rows = lines(out / "rows.jsonl")
    zero, one = ([row["id"].replace(f"seed{seed}", "") for row in rows if row["seed"] == seed] for seed in (0, 1))
    assert zero == one
    weights = [(out / "models" / f"plain10-seed{seed}" / "model.safetensors").read_bytes() for seed in (0, 1)]
    assert weights[0] == (whole / "models" / "plain10-seed0" / "model.safetensors").read_bytes() != weights[1]
    assert {path.name for path in (out / "selection").iterdir()} == {
        f"plain10+plain10_shc-seed{seed}-{wanted}.json" for seed in (0, 1) for wanted in (2, 8)
    }


def test_a_loss_that_is_not_finite_ends_in_one_line(tmp_path, capsys):
    options = ["--data", "folder:colours", "--width", "2", "--learning-rate", "1e30", "--out", str(tmp_path / "run")]
    assert run(["train", *options]) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("shconv: the loss is ")
    assert "try a lower learning rate" in said
