"""Checkpoints given to evaluate, and a run folder given to report: the numbers are those of the run that made them."""

import contextlib
import csv
import io
import json
import os
import shutil
import socket
import subprocess
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from shconv import report
from shconv.attacks import DeepFool, Square
from shconv.cli import run
from shconv.commands.running import conclude
from shconv.experiments.progress import ExperimentProgress
from shconv.experiments.run_folder import RunFolder
from shconv.files import locked
from toys import colour_folder, processes

SAME = ["--table2-images", 8, "--table3-images", 2, "--batch-size", 8]
NAMES = ("plain10", "plain10_shc")


def rows(folder: Path) -> dict[str, dict[str, object]]:
    """Rows by id, without what a clock says."""
    lines = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    return {line["id"]: {**line, "seconds": None} for line in lines}


def checkpoint(run: Path, name: str) -> Path:
    return run / "models" / f"{name}-seed0"


# ---- evaluate


@pytest.mark.usefixtures("undrawn")
def test_a_pair_of_checkpoints_gives_the_rows_of_the_run_that_trained_them(shconv, finished, pictures):
    vanilla, shc = (checkpoint(finished, name) for name in NAMES)
    pair = ["evaluate", vanilla, "--twin", shc / "model.safetensors", "--data", f"folder:{pictures}", *SAME]
    assert shconv(*pair, "--out", "run").code == 0
    assert rows(Path("run")) == rows(finished)
    other = ["evaluate", shc, "--twin", vanilla, "--data", f"folder:{pictures}", *SAME, "--tables", 4]
    assert shconv(*other, "--out", "other").code == 0  # whichever is named first
    held = rows(Path("other"))
    assert held == {id: row for id, row in rows(finished).items() if id in held}
    assert {row["model"] for row in held.values()} == set(NAMES)
    for file in sorted((finished / "selection").iterdir()):
        assert (Path("run") / "selection" / file.name).read_bytes() == file.read_bytes()
    for file in sorted((finished / "arrays").iterdir()):
        with np.load(file) as ours, np.load(Path("run") / "arrays" / file.name) as theirs:
            assert all(np.array_equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("name", NAMES)
def test_a_checkpoint_alone_needs_no_twin_and_no_training_images(shconv, finished, pictures, tmp_path, name):
    shutil.copytree(pictures / "test", tmp_path / "here" / "only-test" / "test")
    ended = shconv("evaluate", checkpoint(finished, name), "--data", "folder:only-test", *SAME)
    assert ended.code == 0
    folder = Path("runs") / f"{name}-seed0-on-folder-only-test"
    held = rows(folder)
    assert {row["model"] for row in held.values()} == {name}
    wanted = {id: row for id, row in rows(finished).items() if row["model"] == name}
    assert held.keys() == wanted.keys()
    assert held[f"table1/{name}/seed0/clean"] == wanted[f"table1/{name}/seed0/clean"]


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    ("table", "experiments", "figures"),
    [
        (1, {"table1"}, ["figure2"]),
        (2, {"table1", "table2"}, []),  # the clean images of Table 1 are what is selected from
        (3, {"table1", "table3", "quasi_boundary"}, ["figure3_plain10-seed0"]),
        (4, {"table1", "table4"}, ["figure4_plain10_shc-seed0"]),
    ],
)
def test_one_table_comes_with_its_figure_and_nothing_else(shconv, finished, pictures, table, experiments, figures):
    vanilla, shc = (checkpoint(finished, name) for name in NAMES)
    ended = shconv(
        "evaluate", shc, "--twin", vanilla, "--data", f"folder:{pictures}", *SAME, "--tables", table, "--out", "run"
    )
    assert ended.code == 0
    assert {row["experiment"] for row in rows(Path("run")).values()} == experiments
    assert [file.stem for file in sorted(Path("run/arrays").glob("*"))] == figures


@pytest.mark.usefixtures("undrawn")
def test_another_checkpoint_in_the_same_run_folder_is_refused(shconv, finished, pictures):
    vanilla, shc = (checkpoint(finished, name) for name in NAMES)
    options = ["--data", f"folder:{pictures}", *SAME, "--tables", 1, "--out", "run"]
    assert shconv("evaluate", shc, *options).code == 0
    before = rows(Path("run"))
    assert "plain10_shc/seed0.pair" in shconv("evaluate", shc, "--twin", vanilla, *options).message
    other = Path(shutil.copytree(shc, "other"))
    tensors = safetensors.torch.load_file(other / "model.safetensors")
    tensors["fc.bias"] += 1
    safetensors.torch.save_file(tensors, other / "model.safetensors")
    assert "plain10_shc/seed0.weights" in shconv("evaluate", other, *options).message
    assert rows(Path("run")) == before


@pytest.mark.usefixtures("undrawn")
def test_a_data_set_that_has_changed_since_is_refused(shconv, finished, tmp_path):
    """Rows of a run are about the images that were there when it began."""
    data = colour_folder(tmp_path / "colours")
    options = ["--data", f"folder:{data}", *SAME, "--tables", 1, "--out", "run"]
    assert shconv("evaluate", checkpoint(finished, "plain10"), *options).code == 0
    Image.new("RGB", (8, 8)).save(data / "test" / "red" / "new.png")
    message = shconv("evaluate", checkpoint(finished, "plain10"), *options).message
    assert "run holds a run with test_images = 18, asked for is 19" in message


# ---- several processes


def evaluated(place: dict[str, str], arguments: list[str], out: Path, err: Path) -> None:
    """One of several processes, as torchrun would start it."""
    os.environ.update(place, ACCELERATE_USE_CPU="1", OMP_NUM_THREADS="1")
    torch.set_num_threads(1)
    with (
        out.open("w") as said,
        err.open("w") as told,
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(told),
    ):
        code = run(arguments)
    os._exit(code)


def together(folder: Path, *arguments: object) -> "list[subprocess.CompletedProcess[str]]":
    """How each of two processes of one `shconv` ended."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    started = []
    for rank in ("0", "1"):
        mine = (place | {"RANK": rank, "LOCAL_RANK": rank}, list(map(str, arguments)))
        said = (folder / f"out{rank}", folder / f"err{rank}")
        started.append((processes().Process(target=evaluated, args=(*mine, *said)), *said))
        started[-1][0].start()
    for process, *_ in started:
        process.join()
    return [
        subprocess.CompletedProcess([], process.exitcode, out.read_text(), err.read_text())
        for process, out, err in started
    ]


def contents(folder: Path) -> dict[str, bytes]:
    """The bytes of every array of the outcomes and figures."""
    found = {}
    for file in sorted([*folder.glob("outcomes/*"), *folder.glob("arrays/*")]):
        with np.load(file) as arrays:
            found |= {f"{file.name}/{name}": arrays[name].tobytes() for name in arrays.files}
    return found


def test_two_processes_give_exactly_the_rows_of_one(finished, pictures, tmp_path):
    vanilla, shc = (checkpoint(finished, name) for name in NAMES)
    data, out = f"folder:{pictures}", tmp_path / "run"
    first, second = together(tmp_path, "evaluate", shc, "--twin", vanilla, "--data", data, *SAME, "--out", out)
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert rows(out) == rows(finished)
    assert contents(out) == contents(finished)
    assert len((out / "rows.jsonl").read_text().splitlines()) == len(rows(finished))
    assert first.stdout.count("Table 1. Gaussian noise") == 1
    assert first.stderr.count("table1/plain10/seed0/clean:") == 1
    assert second.stdout == second.stderr == ""  # one of them speaks
    assert not (out / "partial").exists()


def test_what_one_process_refuses_ends_all_of_them(finished, pictures, tmp_path):
    out = tmp_path / "run"
    with locked(out):
        asked = ("evaluate", checkpoint(finished, "plain10"), "--data", f"folder:{pictures}", "--out", out)
        first, second = together(tmp_path, *asked)
    assert (first.returncode, second.returncode) == (2, 2)
    assert f"shconv: {out} is in use by another process" in first.stderr
    assert not (out / "rows.jsonl").exists()


def changed(folder: Path, **changes: object) -> Path:
    """A checkpoint with other values in its config.json; a dot leads one level down."""
    config = json.loads((folder / "config.json").read_text())
    for name, value in changes.items():
        *above, last = name.split("__")
        inner = config
        for each in above:
            inner = inner[each]
        inner[last] = value
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture
def shc(copied: Path) -> Path:
    """A checkpoint that may be changed."""
    return checkpoint(copied, "plain10_shc")


def test_a_checkpoint_of_another_architecture_is_refused_with_the_keys(shconv, shc, pictures):
    data = ["--data", f"folder:{pictures}"]
    message = shconv("evaluate", changed(shc, model__name="plain10"), *data).message
    assert "is not a plain10: missing none; unexpected" in message
    assert ".hyper." in message
    message = shconv("evaluate", changed(shc, model__name="resnet18"), *data).message
    assert "is not a resnet18: missing " in message
    assert "layer1.0" in message
    assert "other shapes" in shconv("evaluate", changed(shc, model__name="plain10_shc", model__width=5), *data).message


def test_a_checkpoint_for_other_classes_is_refused(shconv, shc, tmp_path):
    more = colour_folder(tmp_path / "more", classes=("blue", "green", "red", "white"))
    assert "has 3 classes" in shconv("evaluate", shc, "--data", f"folder:{more}").message
    other = colour_folder(tmp_path / "other", classes=("blue", "grey", "red"))
    message = shconv("evaluate", shc, "--data", f"folder:{other}").message
    assert "calls class 1 'green'" in message
    assert "calls it 'grey'" in message


def test_a_checkpoint_for_other_channels_is_refused(shconv, shc, pictures):
    tensors = safetensors.torch.load_file(shc / "model.safetensors")
    tensors["conv1.weight"] = tensors["conv1.weight"][:, :2].contiguous()
    safetensors.torch.save_file(tensors, shc / "model.safetensors")
    message = shconv("evaluate", changed(shc, model__in_channels=2), "--data", f"folder:{pictures}").message
    assert "takes images of 2 channels" in message


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 1}, "plain10/seed0 and plain10_shc/seed1 are no pair"),
        ({"model__name": "plain10"}, None),
    ],
)
def test_two_checkpoints_that_are_no_pair_are_refused(shconv, finished, shc, pictures, changes, message):
    data = ["--data", f"folder:{pictures}"]
    vanilla = checkpoint(finished, "plain10")
    if message is None:  # the same network twice
        shc, message = vanilla, "the twin is the network itself: wanted NAME and NAME_shc of the same seed"
    else:
        changed(shc, **changes)
    assert message in shconv("evaluate", vanilla, "--twin", shc, *data).message
    assert list(Path.cwd().iterdir()) == []


def test_an_unfinished_checkpoint_is_refused(shconv, tmp_path):
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "state.pt").write_bytes(b"")
    assert "its training is not finished" in shconv("evaluate", tmp_path / "half").message


# ---- report


def test_a_report_is_drawn_again_from_the_folder_alone(shconv, copied):
    tables = {file.name: file.read_bytes() for file in (copied / "tables").iterdir()}
    for gone in ("tables", "figures", "models"):
        shutil.rmtree(copied / gone)
    (copied / "report.html").unlink()
    ended = shconv("report", copied)
    assert ended.code == 0
    for word in ("Table 1. Gaussian noise", "Table 2", "Table 3", "Table 4", "Plain-10-SHC"):
        assert word in ended.out
    assert ended.out.splitlines()[-1] == f"The report: {copied}/report.html"
    again = {file.name: file.read_bytes() for file in (copied / "tables").iterdir()}
    assert {name: again[name] for name in tables if name.startswith("table")} == {
        name: content for name, content in tables.items() if name.startswith("table")
    }
    assert (copied / "report.html").stat().st_size > 10_000
    assert {file.name for file in (copied / "figures").iterdir()} >= {"figure2.png", "routes.png"}


def test_a_folder_without_rows_has_no_report(shconv, tmp_path):
    assert "Wanted: a folder that shconv reproduce" in shconv("report", tmp_path).message


# ---- the warning


@pytest.mark.parametrize(("right", "warned"), [(18, False), (17, True)])
def test_an_shc_network_more_than_three_points_behind_its_twin_is_warned_of(copied, monkeypatch, capsys, right, warned):
    """Of 18 clean images the twin knows all."""
    monkeypatch.setattr(report, "write", lambda run, console: Path("page"))
    with RunFolder.opened(copied) as folder:
        for name, correct in (("plain10", 18), ("plain10_shc", right)):
            row = folder.rows[f"table1/{name}/seed0/clean"]
            arrays = folder.outcomes(row["id"]) | {"correct": np.arange(18) < correct}
            folder.add(row | {"accuracy": correct / 18}, arrays)
        conclude(folder, ExperimentProgress())
    said = capsys.readouterr()
    assert ("warning: Plain-10-SHC (seed 0) is 5.6 points below its twin on clean images" in said.err) == warned
    assert "warning:" not in said.out


def test_all_attacks_join_table_2_where_they_are_asked_for(shconv, finished, pictures, monkeypatch):
    some = {"deepfool": DeepFool(), "square": Square(0.03, queries=5)}
    monkeypatch.setattr("shconv.commands.options.others", some.copy)
    network = finished / "models" / "plain10-seed0"
    run = ("evaluate", network, "--data", f"folder:{pictures}", "--tables", 2, "--table2-images", 4, "--out", "all")
    for more in ((), ("--attacks", "all")):  # also added to a folder that has the paper's
        ended = shconv(*run, *more)
        assert ended.code == 0, ended.err
        table = Path("all/tables/table2_others.csv")
        assert table.exists() == bool(more)
        assert ('id="table2_others"' in Path("all/report.html").read_text()) == bool(more)
    lines = list(csv.DictReader(io.StringIO(table.read_text())))
    assert [line["attack"] for line in lines] == ["deepfool", "square"]
    assert float(lines[0]["median_l2"]) > 0
    assert Path("all/figures/distances.svg").exists()
    message = shconv(*run, "--attacks", "all", "--attack", "fgsm").message
    assert "--attacks all adds to the paper's Table 2, which --attack and --standard replace" in message
