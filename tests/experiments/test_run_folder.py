"""A run folder: one process at a time, rows that survive whatever stops a run, and commands that must agree."""

import errno
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

from shconv.errors import InputError
from shconv.experiments.partial import Partial
from shconv.experiments.run_folder import Asked, RunFolder, file_name
from shconv.files import locked

ARRAYS = {"index": np.arange(3), "correct": np.array([True, False, True])}


def row(id: str, **fields: object) -> dict[str, object]:
    return {"id": id, "accuracy": 0.5, **fields}


# ---- rows


def test_rows_and_their_arrays_come_back(tmp_path: Path):
    folder = RunFolder(tmp_path)
    rows = [row("table1/m/seed0/clean", text="ü\u2028\n"), row("table1/m/seed0/noise", accuracy=None)]
    for each in rows:
        folder.add(each, ARRAYS)
    again = RunFolder(tmp_path)
    assert list(again.rows.values()) == rows == list(folder.rows.values())
    stored = again.outcomes("table1/m/seed0/noise")
    assert {name: values.tolist() for name, values in stored.items()} == {
        name: values.tolist() for name, values in ARRAYS.items()
    }
    assert (tmp_path / "outcomes" / "table1--m--seed0--clean.npz").is_file()


@pytest.mark.parametrize("half", ['{"id": "b', '{"id": "b"}', "\x00\x00", "{"])
def test_a_half_written_last_line_is_cut_and_the_next_row_starts_its_own(tmp_path: Path, half: str):
    RunFolder(tmp_path).add(row("a"), ARRAYS)
    whole = (tmp_path / "rows.jsonl").read_text()
    (tmp_path / "rows.jsonl").write_text(whole + half)
    folder = RunFolder(tmp_path)
    assert list(folder.rows) == ["a"]
    assert (tmp_path / "rows.jsonl").read_text() == whole
    folder.add(row("b"), ARRAYS)
    assert list(RunFolder(tmp_path).rows) == ["a", "b"]


@pytest.mark.parametrize("damaged", ["{", "[1]", '{"accuracy": 1}', "nonsense", '{"id": 3}', "", "\udcff"])
def test_a_damaged_line_between_others_is_named_and_nothing_is_changed(tmp_path: Path, damaged: str):
    lines = [json.dumps(row("a")), damaged, json.dumps(row("b"))]
    content = "".join(f"{line}\n" for line in lines).encode(errors="surrogateescape")
    (tmp_path / "rows.jsonl").write_bytes(content)
    with pytest.raises(InputError, match=r"rows\.jsonl, line 2 is damaged"):
        RunFolder(tmp_path)
    assert (tmp_path / "rows.jsonl").read_bytes() == content


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04 cut", b"text"])
def test_outcomes_that_cannot_be_read_are_named_with_a_way_out(tmp_path: Path, content: bytes | None):
    folder = RunFolder(tmp_path)
    folder.add(row("a/b"), ARRAYS)
    path = tmp_path / "outcomes" / "a--b.npz"
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(InputError, match=r"a--b\.npz is missing or damaged.*remove the row a/b"):
        folder.outcomes("a/b")


def test_a_full_disk_while_a_row_is_appended_keeps_the_rows_before_it(tmp_path: Path):
    folder = RunFolder(tmp_path)
    folder.add(row("a"), ARRAYS)
    rows = tmp_path / "rows.jsonl"
    kept = rows.rename(tmp_path / "kept")
    rows.symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left") as caught:
        folder.add(row("b"), ARRAYS)
    assert caught.value.errno == errno.ENOSPC
    assert list(folder.rows) == ["a"]
    rows.unlink()
    kept.rename(rows)
    again = RunFolder(tmp_path)
    again.add(row("b"), ARRAYS)
    assert list(RunFolder(tmp_path).rows) == ["a", "b"]


def test_arrays_are_replaced_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = RunFolder(tmp_path)
    folder.save_arrays("arrays/x", {"a": np.arange(3)})
    monkeypatch.setattr("os.fsync", _full)
    with pytest.raises(OSError, match="No space left"):
        folder.save_arrays("arrays/x", {"a": np.arange(1000)})
    with np.load(tmp_path / "arrays" / "x.npz") as arrays:
        assert arrays["a"].tolist() == [0, 1, 2]
    assert [path.name for path in (tmp_path / "arrays").iterdir()] == ["x.npz"]


def _full(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_ids_become_file_names_that_differ():
    ids = ["table1/m/seed0/clean", "table1/m/seed0/gaussian/sigma0.1", "table1/m/seed0/gaussian/sigma0.2"]
    assert len({file_name(id) for id in ids}) == 3
    assert not any("/" in file_name(id) for id in ids)


# ---- lock


def test_a_folder_in_use_is_refused_and_free_again_afterwards(tmp_path: Path):
    path = tmp_path / "deep" / "run"
    with RunFolder.opened(path):
        with pytest.raises(InputError, match="in use by another process"), RunFolder.opened(path):
            pass
        with RunFolder.opened(tmp_path / "other"):
            pass
    with pytest.raises(KeyError), RunFolder.opened(path):
        raise KeyError
    with RunFolder.opened(path):
        pass


def test_another_process_keeps_the_folder_until_it_ends(tmp_path: Path):
    code = "import sys, filelock\nwith filelock.FileLock(sys.argv[1] + '/.lock'): print('mine', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "mine\n"
        with pytest.raises(InputError, match="in use"), locked(tmp_path):
            pass
        other.kill()  # as a crash does, without a word
    with locked(tmp_path):
        pass


@pytest.mark.parametrize("anew", [False, True])
def test_nothing_is_written_where_the_folder_was_moved_or_is_another_runs_by_now(tmp_path: Path, anew: bool):
    """A run whose folder was moved would end with a report of the rows that came later."""
    path = tmp_path / "run"
    with RunFolder.opened(path) as folder:
        (path / ".lock").rename(tmp_path / "lock")
        folder.add({"id": "a"}, {"x": np.zeros(2)})
        (tmp_path / "lock").rename(path / ".lock")
        path.rename(tmp_path / "moved")
        if anew:
            path.mkdir()
            (path / ".lock").touch()
        for write in (
            lambda: folder.add({"id": "b"}, {"x": np.zeros(2)}),
            lambda: folder.save_json("facts.json", {}),
            lambda: folder.settle(Asked({})),
        ):
            with pytest.raises(InputError, match="run was moved or removed meanwhile; wanted: back in its place"):
                write()
        if not anew:
            with pytest.raises(FileNotFoundError):
                Partial(path / "partial" / "1", np.arange(2), 2).add(0, {"x": np.zeros(2)}, 1.0)
        assert [each.name for each in path.glob("*")] == [".lock"] * anew
    with RunFolder.opened(tmp_path / "moved") as folder:
        assert list(folder.rows) == ["a"]


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_disk_without_locks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int):
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(pytest.importorskip("fcntl"), "flock", refuse)
    with pytest.raises(InputError, match=f"run cannot be locked .{os.strerror(number)}"), locked(tmp_path / "run"):
        pass


def test_a_file_is_no_run_folder(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file is a file; wanted a folder"), RunFolder.opened(tmp_path / "file"):
        pass


# ---- options and facts


def test_options_are_stored_as_toml_without_those_that_are_none(tmp_path: Path):
    RunFolder(tmp_path).settle(Asked({"width": 16, "models": ("a", "b"), "epochs": None, "full": False}))
    stored = tomllib.loads((tmp_path / "config.toml").read_text())
    assert stored == {"width": 16, "models": ["a", "b"], "full": False}


@pytest.mark.parametrize(
    ("then", "message"),
    [
        ({"width": 8, "seeds": (0,)}, r"width = 16, asked for is 8"),
        ({"seeds": (0,)}, r"width = 16, asked for is None"),
        ({"width": 16, "seeds": (0,), "epochs": 3}, r"epochs = None, asked for is 3"),
    ],
)
def test_an_option_that_differs_is_named_and_the_stored_ones_stay(
    tmp_path: Path, then: dict[str, object], message: str
):
    folder = RunFolder(tmp_path)
    folder.settle(Asked({"width": 16, "seeds": (0,)}))
    before = (tmp_path / "config.toml").read_text()
    with pytest.raises(InputError, match=message):
        folder.settle(Asked(then, free=("seeds",)))
    assert (tmp_path / "config.toml").read_text() == before


def test_a_free_option_may_change_and_come_and_go(tmp_path: Path):
    folder = RunFolder(tmp_path)
    folder.settle(Asked({"width": 16, "seeds": (0,), "out": "here"}))
    folder.settle(Asked({"width": 16, "seeds": (0, 1), "workers": 2}, free=("seeds", "workers", "out")))
    assert tomllib.loads((tmp_path / "config.toml").read_text()) == {"width": 16, "seeds": [0, 1], "workers": 2}


@pytest.mark.parametrize("usual", [{"grey": False}, {"grey": True}, {"grey": None}, {}])
def test_an_option_that_a_folder_does_not_know_counts_as_its_default(tmp_path: Path, usual: dict[str, object]):
    folder = RunFolder(tmp_path)
    folder.settle(Asked({"width": 16}))
    later = Asked({"width": 16, "grey": False}, usual)
    if usual.get("grey") is False:
        assert not later.is_refused(tmp_path)
        folder.settle(later)
        assert tomllib.loads((tmp_path / "config.toml").read_text()) == {"width": 16, "grey": False}
        return
    assert later.is_refused(tmp_path)
    with pytest.raises(InputError, match=f"grey = {usual.get('grey')}, asked for is False"):
        folder.settle(later)
    assert tomllib.loads((tmp_path / "config.toml").read_text()) == {"width": 16}


def test_a_fact_that_a_file_lacks_counts_as_its_usual_value(tmp_path: Path):
    folder = RunFolder(tmp_path)
    folder.settle_json("audit.json", {"eps": 0.1})
    with pytest.raises(InputError, match="seed = 0, asked for is 1"):
        folder.settle_json("audit.json", {"eps": 0.1, "seed": 1}, usual={"seed": 0})
    folder.settle_json("audit.json", {"eps": 0.1, "seed": 0}, usual={"seed": 0})
    assert json.loads((tmp_path / "audit.json").read_text()) == {"eps": 0.1, "seed": 0}


@pytest.mark.parametrize("name", ["config.toml", "data.json"])
def test_a_damaged_record_is_named(tmp_path: Path, name: str):
    (tmp_path / name).write_text("{ half")
    folder = RunFolder(tmp_path)
    with pytest.raises(InputError, match=rf"{name} is damaged"):
        folder.settle(Asked({"width": 16})) if name == "config.toml" else folder.settle_json(name, {"classes": ("a",)})


def test_facts_must_agree_with_those_of_an_earlier_command(tmp_path: Path):
    folder = RunFolder(tmp_path)
    folder.settle_json("data.json", {"classes": ("a", "b"), "test_images": 5})
    folder.settle_json("data.json", {"classes": ("a", "b"), "test_images": 5})
    with pytest.raises(InputError, match=r"classes\[1\] = 'b', asked for is 'c'"):
        folder.settle_json("data.json", {"classes": ("a", "c"), "test_images": 5})
    with pytest.raises(InputError, match="skipped = None, asked for is 1"):
        folder.settle_json("data.json", {"classes": ("a", "b"), "test_images": 5, "skipped": 1})


def test_a_fact_inside_a_record_of_an_earlier_version_may_be_missing(tmp_path: Path):
    folder = RunFolder(tmp_path)
    folder.settle_json("networks.json", {"a": {"weights": "1"}}, grows=True)
    new = {"a": {"weights": "1", "settings": "2"}, "b": {"weights": "3", "settings": "4"}}
    for _ in range(2):
        folder.settle_json("networks.json", new, grows=True, later=("settings",))
    with pytest.raises(InputError, match=r"b\.settings = '4', asked for is '5'"):
        folder.settle_json("networks.json", {"b": {"weights": "3", "settings": "5"}}, grows=True, later=("settings",))


def test_a_folder_of_other_files_or_labels_is_refused(tmp_path: Path):
    folder = RunFolder(tmp_path)
    folder.save_images(("/old/a.png", "/old/b.png"), np.array([0, 1]))
    folder.save_images(("/new/a.png", "/new/b.png"), np.array([0, 1]))  # moved
    for names, labels in ((("a.png", "b.png"), [1, 0]), (("b.png", "a.png"), [0, 1])):
        with pytest.raises(InputError, match=r"images.csv has other files or labels"):
            folder.save_images(names, np.array(labels))


def test_facts_that_grow_keep_the_old_ones(tmp_path: Path):
    folder = RunFolder(tmp_path)
    folder.settle_json("networks.json", {"a": "1"}, grows=True)
    folder.settle_json("networks.json", {"b": "2"}, grows=True)
    assert json.loads((tmp_path / "networks.json").read_text()) == {"a": "1", "b": "2"}
    with pytest.raises(InputError, match="a = '1', asked for is '3'"):
        folder.settle_json("networks.json", {"a": "3", "c": "4"}, grows=True)
    assert json.loads((tmp_path / "networks.json").read_text()) == {"a": "1", "b": "2"}
