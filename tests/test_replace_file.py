"""Files are replaced in one step: whatever goes wrong, the old one is there or the new one, never a part."""

import errno
import json
import os
from pathlib import Path

import pytest

from shconv.errors import InputError
from shconv.files import cache_folder, check_writable, replace_file, replace_json
from toys import processes


@pytest.mark.parametrize("old", [None, b"old"])
@pytest.mark.parametrize("content", [b"", b"new\n\x00", memoryview(b"view")])
def test_the_content_is_what_was_given_and_nothing_else_is_left(tmp_path: Path, old: bytes | None, content: bytes):
    path = tmp_path / "file"
    if old is not None:
        path.write_bytes(old)
    replace_file(path, content)
    assert path.read_bytes() == bytes(content)
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("fails", ["fsync", "replace"])
def test_a_failure_leaves_the_old_file_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, fails, full)
    with pytest.raises(OSError, match="No space left"):
        replace_file(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="no /dev/full")
def test_a_disk_that_is_full_while_writing_raises_an_os_error_that_names_the_file(tmp_path: Path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    (tmp_path / f"file.{os.getpid()}.tmp").symlink_to("/dev/full")
    with pytest.raises(OSError, match=f"No space left.*{path}"):
        replace_file(path, b"new")
    assert Path("/dev/full").is_char_device()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_processes_that_write_one_file_at_once_all_succeed_and_readers_see_a_whole_one(tmp_path: Path):
    path, contents = tmp_path / "file", [bytes([letter]) * 100_000 for letter in b"ab"]
    replace_file(path, contents[0])
    children = [processes().Process(target=_rewrite, args=(path, content)) for content in contents]
    for child in children:
        child.start()
    while any(child.is_alive() for child in children):
        assert path.read_bytes() in contents
    assert [child.exitcode for child in children] == [0, 0]
    assert os.listdir(tmp_path) == ["file"]


def _rewrite(path: Path, content: bytes) -> None:
    for _ in range(50):
        replace_file(path, content)


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        replace_file(tmp_path / "nowhere" / "file", b"new")


def test_json_comes_back_and_what_json_cannot_hold_leaves_the_old_file(tmp_path: Path):
    path = tmp_path / "file.json"
    replace_json(path, {"a": [1, None, "ü"]})
    assert json.loads(path.read_text()) == {"a": [1, None, "ü"]}
    with pytest.raises(TypeError):
        replace_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": [1, None, "ü"]}


def test_the_cache_folder_is_a_whole_path_whatever_the_environment_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A library without a folder in its name would be looked for elsewhere."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for named, found in {".": tmp_path, "here": tmp_path / "here", "~/there": tmp_path / "home" / "there"}.items():
        monkeypatch.setenv("SHCONV_CACHE", named)
        assert cache_folder() == found
    monkeypatch.delenv("SHCONV_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_folder() == tmp_path / "home" / ".cache" / "shconv"


def test_what_cannot_be_written_is_told_before_and_what_can_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "old").write_text("old")
    check_writable(tmp_path / "old")
    check_writable(tmp_path / "new" / "file")
    assert (tmp_path / "old").read_text() == "old"
    assert os.listdir(tmp_path / "new") == []
    for wrong in (tmp_path / "old" / "file", tmp_path):
        with pytest.raises(InputError, match=f"{wrong} cannot be written: "):
            check_writable(wrong)
