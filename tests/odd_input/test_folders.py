"""Layouts of folders as systems and people leave them: what is an image, what is a class, and what is passed over."""

import io
import os
import tarfile
from pathlib import Path

import pytest
from test_names import PNG, write

from shconv.data import load_data
from shconv.data.listing import visible_files, visible_folders
from shconv.data.tars import index_tars
from shconv.data.unpack import unpack
from shconv.errors import InputError

FOLDERS = [
    "@eaDir", "__MACOSX", ".ipynb_checkpoints", "lost+found", "$RECYCLE.BIN", "$Recycle.Bin",
    "System Volume Information",
    "#recycle", "@Recycle", ".Trash-1000", ".git", ".thumbnails", ".Spotlight-V100", "__pycache__", "@tmp", "#snapshot",
]  # fmt: skip
FILES = [
    ".DS_Store", "Thumbs.db", "thumbs.db", "desktop.ini", "Desktop.ini", "ehthumbs.db", "._0.png", "Icon\r", ".nfs0001",
    ".directory",
]  # fmt: skip


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHCONV_CACHE", str(tmp_path_factory.mktemp("cache")))


def untouched(root: Path) -> None:
    """Nothing is there but the four images of two classes."""
    data = load_data(f"folder:{root}")
    assert data.train is not None
    assert data.classes == ("ant", "bee")
    assert list(data.train.names) == list(data.test.names) == ["ant/0.png", "bee/0.png"]
    assert data.skipped == 0


@pytest.mark.parametrize("content", ["SYNOPHOTO_THUMB_M.jpg", "0.png/x.png"])
@pytest.mark.parametrize("where", ["", "test", "train/ant", "test/bee"])
@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_that_a_system_leaves_is_no_class_and_holds_no_image(
    tmp_path: Path, name: str, where: str, content: str
) -> None:
    root = write(tmp_path, ["ant/0.png", "bee/0.png"])
    left = root / where / name / content
    left.parent.mkdir(parents=True)
    left.write_bytes(PNG if len(name) % 2 else b"no image")
    untouched(root)


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_a_system_leaves_is_no_image(tmp_path: Path, name: str) -> None:
    root = write(tmp_path, ["ant/0.png", "bee/0.png"])
    for where in ("", "train", "test", "train/ant", "test/bee"):
        (root / where / name).write_bytes(b"no image")
    untouched(root)


def test_a_class_of_nothing_but_such_files_is_empty(tmp_path: Path) -> None:
    root = write(tmp_path, ["ant/0.png", "bee/Thumbs.db", "bee/@eaDir/x.png"])
    with pytest.raises(InputError, match="bee: the class is empty"):
        load_data(f"folder:{root}")


@pytest.mark.parametrize("name", ["eaDir", "thumbs", "recycle", "MACOSX", "lost", "a.db", "x@eaDir"])
def test_a_name_that_is_only_like_one_of_those_is_a_class(tmp_path: Path, name: str) -> None:
    data = load_data(f"folder:{write(tmp_path, [f'{name}/0.png', 'zz/0.png'])}")
    assert set(data.classes) == {name, "zz"}


@pytest.mark.parametrize("name", FOLDERS)
def test_in_a_tar_they_are_no_images_either(tmp_path: Path, name: str) -> None:
    members = {"a/0.png": PNG, f"{name}/a/0.png": b"x", "a/._0.png": b"x", f"a/{name}/1.png": b"x", "./b/1.png": PNG}
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        for member, data in members.items():
            header = tarfile.TarInfo(member)
            header.size = len(data)
            tar.addfile(header, io.BytesIO(data))
    files, _ = index_tars(tmp_path, ["0.tar"])
    assert list(files.names) == ["0.tar/a/0.png", "0.tar/./b/1.png"]


def test_unpacking_passes_them_over(tmp_path: Path) -> None:
    for folder in FOLDERS:
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "train-00000-of-00001.parquet").touch()
    (tmp_path / "._train-00000-of-00001.parquet").touch()
    with pytest.raises(InputError, match="holds no Parquet files"):
        list(unpack(tmp_path, tmp_path / "target"))


def test_beside_the_shards_and_images_of_imagenet_they_count_for_nothing(tmp_path: Path) -> None:
    for name in [*FOLDERS, "val"]:
        (tmp_path / name).mkdir()
    for name in [*FILES, "._train-000.tar", "train-000.tar"]:
        (tmp_path / name).touch()
    assert visible_folders(tmp_path) == ["val"]
    assert visible_files(tmp_path) == ["train-000.tar"]


@pytest.mark.parametrize(
    "trouble",
    ["a link to nowhere", "a link in a circle", "a link to itself", "a pipe", "a folder called x.png", "an empty file"],
)
def test_what_is_no_file_of_pixels_is_named(tmp_path: Path, trouble: str) -> None:
    root = write(tmp_path, ["ant/0.png"])
    odd = root / "test/ant/x.png"
    if trouble == "a link to nowhere":
        odd.symlink_to(root / "gone")
    elif trouble == "a link in a circle":
        odd.symlink_to(root / "test/ant")
    elif trouble == "a link to itself":
        odd.symlink_to(odd)
    elif trouble == "a pipe":
        os.mkfifo(odd)
    elif trouble == "an empty file":
        odd.touch()
    else:
        odd.mkdir()  # an empty folder is nothing
        assert len(load_data(f"folder:{root}").test) == 1
        return
    with pytest.raises(InputError, match=r"x\.png"):
        load_data(f"folder:{root}")
