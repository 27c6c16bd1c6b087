"""Reading a run folder: what is damaged is named, what was half written is skipped and said."""

import json

import numpy as np
import pytest

import shconv
from shconv.errors import InputError
from shconv.intervals import wilson
from shconv.report import load_run


def one_row(run_folder, **fields):
    run_folder.add("table1", "resnet18", "clean", (7, 10), **fields)
    return run_folder


def test_a_missing_folder_and_a_folder_without_rows_are_told_apart(tmp_path):
    with pytest.raises(InputError, match=r"nowhere is not there\. Wanted: a folder that shconv reproduce"):
        load_run(tmp_path / "nowhere")
    (tmp_path / "config.toml").touch()
    with pytest.raises(InputError, match=r"no results yet: its rows\.jsonl is missing"):
        load_run(tmp_path)
    (tmp_path / "rows.jsonl").write_text("\n")
    with pytest.raises(InputError, match="no whole row"):
        load_run(tmp_path)


def test_a_whole_run_is_read_as_it_was_written(run_folder):
    one_row(run_folder, index=[3, 1, 2, 5, 4, 9, 8, 7, 6, 0], extra_field="kept")
    run_folder.trained("resnet18", 0, [0.5, 0.6], parameters=11)
    run = load_run(run_folder.save())
    row = run.rows[0]
    assert (row.model, row.accuracy, row.n, row.interval) == ("resnet18", 0.7, 10, wilson(7, 10))
    assert row.extra == {"extra_field": "kept"}
    outcomes = run.outcomes[row.id]
    assert outcomes.index.tolist() == list(range(10))
    assert outcomes.correct.tolist() == [False, True, True, True, True, True, False, False, True, True]
    assert run.data.is_demo
    assert not run.data.is_imagenet
    assert run.config["attack"] == {"epsilon": 0.02}
    assert run.trained[0].parameters == 11  # running statistics are not parameters
    assert [record["test_accuracy"] for record in run.trained[0].log] == [0.5, 0.6]
    assert run.notes == ()


@pytest.mark.parametrize("damage", ["{broken", "[1, 2]", "\x00\x00", '{"id": "a"}'])
def test_a_damaged_line_is_named_by_its_number(run_folder, damage):
    path = one_row(run_folder).save() / "rows.jsonl"
    path.write_text(f"\n{damage}\n{path.read_text()}")
    with pytest.raises(InputError, match="line 2 is damaged"):
        load_run(run_folder.folder)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("accuracy", 1.5, "share in 0..1"),
        ("accuracy", None, "missing although n is 10"),
        ("accuracy", "0.5", "not a number"),
        ("n", -1, "not a count"),
        ("seed", 0.5, "not a count"),
        ("model", 3, "not a str"),
        ("parameters", [], "not a dict"),
        ("interval", [0.1], "not two numbers"),
    ],
)
def test_a_wrong_field_is_named(run_folder, field, value, words):
    row = one_row(run_folder).rows[0]
    row[field] = value
    with pytest.raises(InputError, match=rf'line 1 is damaged: "{field}".*{words}'):
        load_run(run_folder.save())


def test_a_half_written_last_line_is_left_out_and_said(run_folder):
    path = one_row(run_folder).save() / "rows.jsonl"
    path.write_text(path.read_text() + '{"id": "table1/re')
    run = load_run(run_folder.folder)
    assert len(run.rows) == 1
    assert "line 2 was only half written" in run.notes[0]


def test_a_whole_last_line_without_its_newline_counts(run_folder):
    path = one_row(run_folder).save() / "rows.jsonl"
    path.write_text(path.read_text().rstrip("\n"))
    run = load_run(run_folder.folder)
    assert len(run.rows) == 1
    assert run.notes == ()


def test_a_row_written_again_replaces_the_first(run_folder):
    one_row(run_folder)
    run_folder.add("table1", "resnet18", "clean", (4, 10))
    run = load_run(run_folder.save())
    assert [row.accuracy for row in run.rows] == [0.4]
    assert "1 rows were written again" in run.notes[0]


def test_outcomes_that_disagree_with_their_row_are_left_out_and_said(run_folder):
    one_row(run_folder).rows[0]["accuracy"] = 0.6
    run = load_run(run_folder.save())
    assert run.outcomes == {}
    assert "disagree" in run.notes[0]


def test_damaged_outcomes_are_named(run_folder):
    folder = one_row(run_folder).save()
    path = next((folder / "outcomes").iterdir())
    for damage in (b"PK\x03\x04 not an archive", bytes(99), b""):
        path.write_bytes(damage)
        with pytest.raises(InputError, match=path.name.replace(".", r"\.") + " is damaged: it is no whole .npz file"):
            load_run(folder)
    np.savez(path, index=[1, 1], correct=[True, True])
    with pytest.raises(InputError, match="one index and one outcome"):
        load_run(folder)


@pytest.mark.parametrize("name", ["data.json", "environment.json", "config.toml"])
def test_other_files_are_named_when_damaged_and_noted_when_missing(run_folder, name):
    folder = one_row(run_folder).save()
    (folder / name).write_text("{ = ")
    with pytest.raises(InputError, match=name.replace(".", r"\.")):
        load_run(folder)
    (folder / name).unlink()
    assert load_run(folder).notes == (f"Missing from the run folder: {name}.",)


def test_a_row_without_images_has_no_accuracy(run_folder):
    run_folder.add("table2", "resnet18", "fgsm", [], objective="least_likely", route="both")
    run_folder.rows[0]["accuracy"] = float("nan")
    run = load_run(run_folder.save())
    assert run.rows[0].accuracy is None
    assert run.rows[0].interval is None


def test_a_missing_interval_is_wilsons(run_folder):
    one_row(run_folder).rows[0].pop("interval")
    assert load_run(run_folder.save()).rows[0].interval == wilson(7, 10)


def test_imagenet_is_only_the_whole_of_it(run_folder):
    one_row(run_folder)
    run_folder.on_imagenet()
    assert load_run(run_folder.save()).data.is_imagenet
    run_folder.data["classes"] = run_folder.data["classes"][:10]
    assert not load_run(run_folder.save()).data.is_imagenet


def test_a_selection_is_read_and_a_damaged_one_is_named(run_folder):
    folder = one_row(run_folder).save()
    path = folder / "selection" / "resnet18-seed0.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"pair": ["a", "a_shc"], "seed": 0, "wanted": 5000, "found": 3, "index": [1, 2, 3]}))
    assert load_run(folder).selections[0].found == 3
    path.write_text("{}")
    with pytest.raises(InputError, match=r"resnet18-seed0\.json is damaged"):
        load_run(folder)


@pytest.mark.parametrize("field", ["rcd_mean", "linf", "accuracy"])
def test_nan_is_damage_that_names_the_line(run_folder, field):
    one_row(run_folder).rows[0][field] = float("nan")
    with pytest.raises(InputError, match=f'rows.jsonl, line 1 is damaged: "{field}" is nan'):
        load_run(run_folder.save())
    with pytest.raises(InputError, match=f'rows.jsonl, line 1 is damaged: "{field}" is nan'):
        shconv.results.load(run_folder.folder)
