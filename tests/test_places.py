"""What lies at a path is said in words, and a result goes to no folder of another kind."""

import os
from pathlib import Path

import pytest

from shconv.errors import InputError, near
from shconv.folders import CHECKPOINT, RUN, check_out, what_is_at


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A run with a checkpoint."""
    (tmp_path / "run" / "models" / "net-seed0").mkdir(parents=True)
    (tmp_path / "run" / "rows.jsonl").touch()
    (tmp_path / "run" / "models" / "net-seed0" / "config.json").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.txt").touch()
    return tmp_path


def test_what_lies_at_a_path_is_said_with_where_to_go_from_there(place: Path) -> None:
    checkpoint = place / "run" / "models" / "net-seed0"
    assert what_is_at(place / "run") == f"is the folder of a run; its checkpoints: {checkpoint}"
    assert what_is_at(checkpoint) == "is a checkpoint"
    assert what_is_at(checkpoint.parent) == f"holds checkpoints: {checkpoint}"
    assert what_is_at(place) == f"holds folders of runs: {place / 'run'}"
    assert what_is_at(place / "empty") == "is an empty folder"
    assert what_is_at(place / "file.txt") == "is a file"
    assert what_is_at(place / "emty") == "is not there; did you mean empty?"
    assert what_is_at(place / "no" / "where") == "is not there"


def test_a_result_goes_to_a_new_folder_or_one_of_its_kind(place: Path) -> None:
    for folder, kind in ((place / "run", RUN), (place / "empty", RUN), (place / "new" / "er", CHECKPOINT)):
        check_out(folder, kind)
    with pytest.raises(InputError, match="run is the folder of a run; what is made here needs another folder"):
        check_out(place / "run", CHECKPOINT)
    with pytest.raises(InputError, match=r"file\.txt is a file; a folder is wanted"):
        check_out(place / "file.txt" / "below", RUN)


def test_a_link_to_nowhere_is_no_place_for_a_result(place: Path) -> None:
    (place / "link").symlink_to("gone")
    with pytest.raises(InputError, match=r"link is a link to gone, which is not there"):
        check_out(place / "link", RUN)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_refused_at_once(place: Path) -> None:
    (place / "empty").chmod(0o500)
    with pytest.raises(InputError, match=r"cannot be written: no permission to write in .*empty"):
        check_out(place / "empty" / "new", RUN)


def test_a_name_is_near_by_spelling_beginning_or_initials_in_any_case() -> None:
    known = ["--learning-rate", "--eps", "--data"]
    assert near("--lr", known) == "did you mean --learning-rate?"
    assert near("--epsilon", known) == "did you mean --eps?"
    assert near("--DATA_", known) == "did you mean --data?"
    assert near("--quite-another", known, otherwise="none") == "none"
    assert near("a", ["b", "c"]) == "choose from b, c"
    assert near("ab", ["abc"], listed=True) == "did you mean abc? choose from abc"
    assert near("name1", [f"name{i}" for i in range(10, 40)], listed=True).endswith("?")
