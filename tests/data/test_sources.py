"""Names in one buffer are the same strings; reading part of a file gives just that or says why not."""

import os
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shconv.data.sources import FolderFiles, Names, read_part
from shconv.errors import InputError

TEXTS = st.one_of(st.text(st.characters(exclude_categories=["Cs"])), st.binary().map(os.fsdecode))


@given(names=st.lists(TEXTS, max_size=8), data=st.data())
def test_names_are_the_strings_they_were_made_of(names: list[str], data: st.DataObject) -> None:
    held = pickle.loads(pickle.dumps(Names(names)))
    assert list(held) == names
    assert held[1:-1] == names[1:-1]
    kept = data.draw(st.lists(st.sampled_from(range(len(names))), unique=True)) if names else []
    assert list(held.take(kept)) == [names[i] for i in kept]
    assert all(held[-i] == names[-i] for i in range(1, len(names) + 1))
    for outside in (len(names), -len(names) - 1):
        with pytest.raises(IndexError):
            held[outside]


def test_a_part_of_a_file_is_read_whole_or_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(range(10)))
    assert read_part(tmp_path / "a", 3, 4) == bytes([3, 4, 5, 6])
    with pytest.raises(InputError, match=r"a: ends at byte 10; wanted 4 bytes from 8 on"):
        read_part(tmp_path / "a", 8, 4)
    with pytest.raises(InputError, match=r"b: cannot be read \(No such file"):
        read_part(tmp_path / "b", 0, 1)


def test_files_in_a_folder_are_read_by_their_place(tmp_path: Path) -> None:
    for name in ("x", "y", "z"):
        (tmp_path / name).write_text(name * 3)
    files = FolderFiles(tmp_path, Names(["z", "x", "y"]))
    assert [files.read(i) for i in range(len(files))] == [b"zzz", b"xxx", b"yyy"]
    assert files.take([2, 0]).read(0) == b"yyy"
    (tmp_path / "z").unlink()
    with pytest.raises(InputError, match=r"z: cannot be read"):
        files.read(0)
