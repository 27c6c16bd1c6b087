"""The cache of tar indices: it saves the walk and changes nothing, and nothing that is wrong with it does harm."""

import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from imagenets import add

from shconv.data import tars
from shconv.data.tars import TarFiles, index_tars
from shconv.errors import InputError

NAMES = ["a/x.png", "a/ÿ\udcff.png", "b/.hidden.png", "b/z.png"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "0.tar", {name: name.encode("utf-8", "surrogateescape") for name in NAMES} | {"a/x.cls": b"7"})
    write(tmp_path / "1.tar", {"empty.jpg": b"", "other.txt": b"no image", "empty.json": b'{"label": 3}'})
    write(tmp_path / "2.tar", {"nothing.txt": b"no image"})
    return tmp_path


def write(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            add(tar, name, data)


@pytest.fixture
def walked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The tar files that were walked."""
    names, walk = [], tars._walk

    def noting(path: Path) -> object:
        names.append(path.name)
        return walk(path)

    monkeypatch.setattr(tars, "_walk", noting)
    return names


def indices(folder: Path) -> tuple[TarFiles, list[int]]:
    files, labels = index_tars(folder, ["0.tar", "1.tar", "2.tar"])
    return files, labels.tolist()


def same(one: tuple[TarFiles, list[int]], other: tuple[TarFiles, list[int]]) -> bool:
    files, others = one[0], other[0]
    read = [each.read(i) for each in (files, others) for i in range(len(each))]
    alike = list(files.names) == list(others.names) and one[1] == other[1]
    return alike and np.array_equal(files.members, others.members) and read[: len(files)] == read[len(files) :]


def test_a_second_start_walks_no_file_and_gives_the_same(folder: Path, walked: list[str]) -> None:
    first = indices(folder)
    assert (list(first[0].names), first[1]) == (
        ["0.tar/a/x.png", "0.tar/a/ÿ\udcff.png", "0.tar/b/z.png", "1.tar/empty.jpg"],
        [7, -1, -1, 3],
    )
    assert walked == ["0.tar", "1.tar", "2.tar"]
    assert same(indices(folder), first)
    assert len(walked) == 3


def test_the_same_file_by_another_name_of_its_folder_is_known(folder: Path, walked: list[str]) -> None:
    indices(folder)
    (folder / "sub").mkdir()
    indices(folder / "sub" / "..")
    assert len(walked) == 3


def test_a_changed_file_is_walked_again(folder: Path, walked: list[str]) -> None:
    indices(folder)
    write(folder / "1.tar", {"new.jpg": b"abc"})
    assert list(indices(folder)[0].names)[3:] == ["1.tar/new.jpg"]
    before = (folder / "1.tar").stat()
    write(folder / "1.tar", {"now.jpg": b"abc"})  # of the same size
    os.utime(folder / "1.tar", ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert list(indices(folder)[0].names)[3:] == ["1.tar/now.jpg"]
    assert walked[3:] == ["1.tar", "1.tar"]


def test_entries_hold_no_pickle(folder: Path, cache: Path) -> None:
    indices(folder)
    for entry in cache.rglob("*.npz"):
        with np.load(entry, allow_pickle=False) as arrays:
            assert all(arrays[name].dtype.kind in "iu" for name in arrays.files)


def test_a_damaged_entry_is_made_anew(folder: Path, cache: Path, walked: list[str]) -> None:
    first = indices(folder)
    entries = sorted(cache.rglob("*.npz"))
    assert len(entries) == 3
    rng = np.random.default_rng(0)
    for damage in ("emptied", "cut", "flipped", "of another"):
        for entry in entries:
            content = bytearray(entry.read_bytes())
            if damage == "flipped":
                content[int(rng.integers(40, len(content) // 2))] ^= 255
            size = {"emptied": 0, "cut": len(content) // 2}.get(damage, len(content))
            entry.write_bytes(b"PK\3\4 not an entry" if damage == "of another" else bytes(content[:size]))
        assert same(indices(folder), first), damage
    count = len(walked)
    assert count >= 12
    assert same(indices(folder), first)
    assert len(walked) == count


def test_an_entry_that_contradicts_its_file_is_not_taken(folder: Path, cache: Path, walked: list[str]) -> None:
    first = indices(folder)
    for entry in cache.rglob("*.npz"):
        with np.load(entry) as stored:
            arrays = dict(stored)
        arrays["places"] = arrays["places"] + 10**6
        np.savez(entry, **arrays)
    assert same(indices(folder), first)
    assert walked[3:] == ["0.tar", "1.tar"]  # the last has no images to contradict


@pytest.mark.parametrize("cause", ["a file in its place", "no home"])
def test_an_unusable_cache_folder_is_no_error(
    cause: str, folder: Path, cache: Path, walked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if cause == "no home":
        for name in ("SHCONV_CACHE", "XDG_CACHE_HOME"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr(Path, "home", no_home)
    else:
        cache.write_text("")
    assert same(indices(folder), indices(folder))
    assert len(walked) == 6


def no_home() -> Path:
    raise RuntimeError("Could not determine home directory.")


def test_a_file_that_is_gone_is_named_though_its_index_is_known(folder: Path) -> None:
    indices(folder)
    (folder / "1.tar").unlink()
    with pytest.raises(InputError, match=r"1\.tar: cannot be read \(No such file"):
        indices(folder)


def test_a_file_that_cannot_be_used_leaves_no_entry(folder: Path, cache: Path) -> None:
    whole = (folder / "0.tar").read_bytes()
    (folder / "0.tar").write_bytes(whole[:1536])
    for _ in range(2):
        with pytest.raises(InputError, match=r"0\.tar"):
            indices(folder)
    assert list(cache.rglob("*.npz")) == []
