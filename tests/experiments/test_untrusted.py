"""Row files and checkpoints that somebody else wrote: they run no code, and lead to no file outside the run folder."""

import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from shconv import report
from shconv.errors import InputError
from shconv.experiments.network import Network, Pair
from shconv.experiments.run_folder import RunFolder
from shconv.experiments.study import Counts, Study
from shconv.training import ModelConfig, load_checkpoint, save_checkpoint
from toys import colour_networks

PATHS = ("../../x", "/tmp/x", "..", "a/../../../b", "table1/../../..")


class Trap:
    """Makes a folder where it is unpickled."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.place),)


def files(root: Path) -> set[Path]:
    return {path for path in root.rglob("*") if path.is_file()}


@pytest.mark.parametrize("id", PATHS)
def test_a_row_that_is_called_a_path_is_kept_and_read_inside_the_run_folder(tmp_path, id):
    folder = RunFolder(tmp_path / "a" / "run")
    folder.path.mkdir(parents=True)
    folder.add({"id": id}, {"index": np.array([0]), "correct": np.array([True])})
    assert {path.parent for path in files(tmp_path)} == {folder.path, folder.path / "outcomes"}
    assert RunFolder(folder.path).outcomes(id)["correct"].tolist() == [True]


def test_a_report_of_rows_that_are_called_paths_writes_inside_the_run_folder(tmp_path):
    run = tmp_path / "a" / "b" / "run"
    run.mkdir(parents=True)
    rows = [
        {
            "id": f"{name}/{number}",
            "experiment": experiment,
            "model": name,
            "seed": 0,
            "attack": "clean" if number == 0 else name,
            "route": name,
            "n": 2,
            "accuracy": 0.5,
        }
        for number, experiment in enumerate(("table1", "table2", "../x"))
        for name in PATHS
    ]
    (run / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (run / "data.json").write_text(json.dumps({"name": "../../x", "classes": ["../x"], "image_size": 8, "note": ""}))
    report.write(run)
    written = files(tmp_path)
    assert run / "report.html" in written
    assert all(path.is_relative_to(run) for path in written)
    assert not list(Path("/tmp").glob("x*.csv"))


def test_outcomes_with_a_pickle_in_them_are_refused_and_run_nothing(tmp_path):
    folder = RunFolder(tmp_path)
    (tmp_path / "outcomes").mkdir()
    np.savez(tmp_path / "outcomes" / "a.npz", correct=np.array([Trap(tmp_path / "sprung")], dtype=object))
    with pytest.raises(InputError, match="missing or damaged"):
        folder.outcomes("a")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("write", ["pickle", "torch"])
def test_a_checkpoint_that_is_a_pickle_is_refused_and_runs_nothing(tmp_path, write):
    config = ModelConfig("plain10", 3, stem="small", width=4)
    save_checkpoint(tmp_path, config.build(), {"model": vars(config)})
    trap, file = {"conv": Trap(tmp_path / "sprung")}, tmp_path / "model.safetensors"
    if write == "pickle":
        file.write_bytes(pickle.dumps(trap))
    else:
        torch.save(trap, file)
    with pytest.raises(InputError, match="damaged"):
        load_checkpoint(tmp_path)
    assert not (tmp_path / "sprung").exists()


def test_a_network_that_is_called_a_path_leaves_its_files_in_the_run_folder(tmp_path, make_study):
    given = make_study()
    pair = Pair(tuple(Network("../../../x", 0, each) for each in colour_networks()[:1]))
    folder = RunFolder(tmp_path / "a" / "run")
    folder.path.mkdir(parents=True)
    study = Study(folder, given.data, (pair,), Counts(table3=2), 8, torch.device("cpu"), given.progress)
    before = files(tmp_path)
    study.selected(pair, 2)
    assert all(path.is_relative_to(folder.path) for path in files(tmp_path) - before)
