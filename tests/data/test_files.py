"""Folders of images: what is read, in which order and size, and what is said where a folder cannot be used."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from shconv.data import files, load_data
from shconv.data.splits import FileSplit, MemorySplit
from shconv.errors import InputError


def picture(width: int, height: int, seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


def write(root: Path, files: dict[str, tuple[int, int]]) -> Path:
    """{path below root: (width, height)} -> random images there."""
    for seed, (name, (width, height)) in enumerate(files.items()):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        picture(width, height, seed).save(root / name)
    return root


def small_set(root: Path, side: int = 20, test: str = "test") -> Path:
    names = [f"{part}/{cls}/{i}.png" for part in ("train", test) for cls in ("ant", "bee") for i in range(3)]
    return write(root, dict.fromkeys(names, (side, side)))


def pixels(path: Path) -> torch.Tensor:
    return torch.from_numpy(np.asarray(Image.open(path)).copy()).permute(2, 0, 1)


def test_files_come_sorted_with_the_place_of_their_class_as_label(tmp_path: Path) -> None:
    names = ["b/2.png", "b/10.png", "a/z.png", "a/deeper/x.png", "猫/ネコ.png", "ß ü/é.png"]
    write(tmp_path, {f"{part}/{name}": (8, 8) for part in ("train", "val") for name in names})
    data = load_data(f"folder:{tmp_path}")
    assert data.classes == ("a", "b", "ß ü", "猫")
    for part, split in (("train", data.train), ("val", data.test)):
        assert list(split.names) == ["a/deeper/x.png", "a/z.png", "b/10.png", "b/2.png", "ß ü/é.png", "猫/ネコ.png"]
        assert split.labels.tolist() == [0, 0, 1, 1, 2, 3]
        assert split.labels.dtype == torch.int64
        for i, name in enumerate(split.names):
            image, label = split[i]
            assert torch.equal(image, pixels(tmp_path / part / name))
            assert label == split.labels[i]


def test_small_square_images_are_kept_in_memory_at_their_own_size(tmp_path: Path) -> None:
    data = load_data(f"folder:{small_set(tmp_path, 64)}")
    assert isinstance(data.train, MemorySplit)
    assert isinstance(data.test, MemorySplit)
    assert data.image_size == 64
    assert data.test.images.shape == (6, 3, 64, 64)


@pytest.mark.parametrize("sizes", [[(65, 65)], [(40, 30)], [(20, 20), (21, 21)]])
def test_other_images_are_224_or_the_papers_256_in_test_and_read_when_asked_for(
    tmp_path: Path, sizes: list[tuple[int, int]]
) -> None:
    write(tmp_path, {f"{part}/a/{i}.png": size for part in ("train", "test") for i, size in enumerate(sizes)})
    for preset, test_size in (("paper", 256), ("imagenet", 224), ("auto", 224)):
        data = load_data(f"folder:{tmp_path}", test_preset=preset)
        assert isinstance(data.train, FileSplit)
        assert isinstance(data.test, FileSplit)
        assert (data.image_size, data.train.train_size) == (test_size, 224)
        assert data.test[0][0].shape == (3, test_size, test_size)
        assert data.train.original(0).size == sizes[0]


def test_a_given_image_size_holds_for_training_and_test(tmp_path: Path) -> None:
    write(tmp_path, {"train/a/0.png": (100, 80), "test/a/0.png": (100, 80)})
    data = load_data(f"folder:{tmp_path}", image_size=48, test_preset="paper")
    assert isinstance(data.train, FileSplit)
    assert (data.image_size, data.train.train_size) == (48, 48)
    image = Image.open(tmp_path / "test/a/0.png").resize((56, 56), Image.Resampling.BILINEAR)  # 1.168 x 48
    assert torch.equal(data.test[0][0], torch.from_numpy(np.asarray(image)[4:52, 4:52].copy()).permute(2, 0, 1))


def test_in_memory_and_when_asked_for_are_the_same_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write(tmp_path, {f"test/a/{i}.png": (60 - i, 50) for i in range(4)})
    held = load_data(f"folder:{root}", image_size=40, want_train=False).test
    monkeypatch.setattr(files, "MEMORY_LIMIT", 0)
    read = load_data(f"folder:{root}", image_size=40, want_train=False).test
    assert isinstance(held, MemorySplit)
    assert isinstance(read, FileSplit)
    assert all(torch.equal(held[i][0], read[i][0]) for i in range(4))


def test_only_a_test_folder_will_do_without_training(tmp_path: Path) -> None:
    root = write(tmp_path, {"val/a/0.png": (8, 8)})
    data = load_data(f"folder:{root}", want_train=False)
    assert data.train is None
    assert len(data.test) == 1
    with pytest.raises(InputError, match=r"holds val; wanted train/"):
        load_data(f"folder:{root}")


@pytest.mark.parametrize("side", [20, 80])
def test_a_file_that_is_no_image_is_named_or_skipped_and_counted(tmp_path: Path, side: int) -> None:
    root = small_set(tmp_path, side)
    whole = (root / "test/ant/1.png").read_bytes()
    (root / "test/ant/1.png").write_bytes(whole[: len(whole) // 2])
    (root / "train/bee/notes.txt").write_text("not an image")
    with pytest.raises(InputError, match=r"notes\.txt"):
        load_data(f"folder:{root}")
    (root / "train/bee/notes.txt").rename(root / "train/bee/1.png")
    with pytest.raises(InputError, match=r"1\.png"):
        load_data(f"folder:{root}")
    data = load_data(f"folder:{root}", on_corrupt="skip")
    assert data.skipped == 2
    assert list(data.train.names) == ["ant/0.png", "ant/1.png", "ant/2.png", "bee/0.png", "bee/2.png"]
    assert data.train.labels.tolist() == [0, 0, 0, 1, 1]
    assert list(data.test.names) == ["ant/0.png", "ant/2.png", "bee/0.png", "bee/1.png", "bee/2.png"]
    if side == 20:
        for i, name in enumerate(data.test.names):
            assert torch.equal(data.test[i][0], pixels(root / "test" / name))


def test_of_many_large_files_a_broken_one_is_named_when_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = small_set(tmp_path, 80)
    whole = (root / "test/bee/1.png").read_bytes()
    (root / "test/bee/1.png").write_bytes(whole[: len(whole) // 2])
    monkeypatch.setattr(files, "VERIFY_LIMIT", 5)
    data = load_data(f"folder:{root}")
    assert data.test[3][0].shape == (3, 224, 224)
    with pytest.raises(InputError, match=r"bee/1\.png"):
        data.test[4]
    assert load_data(f"folder:{root}", on_corrupt="skip").skipped == 1


def test_a_class_of_broken_files_only_is_an_error_even_when_skipping(tmp_path: Path) -> None:
    root = small_set(tmp_path)
    for file in (root / "test/bee").iterdir():
        file.write_text("not an image")
    with pytest.raises(InputError, match=r"bee: none of its files"):
        load_data(f"folder:{root}", on_corrupt="skip")


def test_progress_counts_every_file_of_both_splits(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    load_data(f"folder:{small_set(tmp_path)}", progress=lambda done, total: seen.append((done, total)))
    assert seen == [(i, 12) for i in range(1, 13)]


def test_a_folder_that_is_missing_empty_or_a_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere is not there"):
        load_data(f"folder:{tmp_path / 'nowhere'}")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"file is not a folder"):
        load_data(f"folder:{tmp_path / 'file'}")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty holds none; wanted test/ or val/"):
        load_data(f"folder:{tmp_path / 'empty'}")
    (tmp_path / "empty/test").mkdir()
    (tmp_path / "empty/test/0.png").touch()
    with pytest.raises(InputError, match=r"test holds no class folders"):
        load_data(f"folder:{tmp_path / 'empty'}", want_train=False)


def test_class_folders_without_train_and_test_above_them_are_listed(tmp_path: Path) -> None:
    write(tmp_path, {f"{name}/0.png": (8, 8) for name in ("ant", "bee", "cow", "dog")})
    with pytest.raises(InputError, match=r"ant, bee, cow, \.\.\. \(4\); wanted test/ or val/"):
        load_data(f"folder:{tmp_path}")


def test_an_empty_class_is_named(tmp_path: Path) -> None:
    root = small_set(tmp_path)
    (root / "train/cow").mkdir()
    with pytest.raises(InputError, match=r"cow: the class is empty"):
        load_data(f"folder:{root}")


def test_classes_that_only_one_part_has_are_named(tmp_path: Path) -> None:
    root = small_set(tmp_path)
    write(root, {"train/cow/0.png": (20, 20), "test/dog/0.png": (20, 20)})
    with pytest.raises(InputError, match=r"only in train/: cow; only in test/: dog$"):
        load_data(f"folder:{root}")
    write(root, {"train/caf\u00e9/0.png": (20, 20), "test/cafe\u0301/0.png": (20, 20)})
    with pytest.raises(InputError, match=r"some look alike, but .* two ways \(NFC and NFD\)"):
        load_data(f"folder:{root}")


def test_an_empty_file_is_found_among_many_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = small_set(tmp_path, 80)
    monkeypatch.setattr(files, "VERIFY_LIMIT", 5)
    monkeypatch.setattr(files, "SAMPLE", 1)
    (root / "train/bee/1.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"bee/1\.png"):
        load_data(f"folder:{root}")
    assert load_data(f"folder:{root}", on_corrupt="skip").skipped == 1
    (root / "train/bee/1.png").unlink()
    (root / "train/bee/1.png").symlink_to(root / "nowhere.png")
    with pytest.raises(InputError, match=r"bee/1\.png: cannot be read \(No such file"):
        load_data(f"folder:{root}")


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    root = small_set(tmp_path / "data")
    (tmp_path / "elsewhere").mkdir()
    picture(20, 20, 99).save(tmp_path / "elsewhere" / "x.png")
    (root / "train/ant/more").symlink_to(tmp_path / "elsewhere")
    (root / "train/ant/linked.png").symlink_to(root / "train/ant/0.png")
    (root / "test/cow").symlink_to(root / "test/ant")
    (root / "train/cow").symlink_to(root / "test/cow")
    data = load_data(f"folder:{root}")
    assert data.classes == ("ant", "bee", "cow")
    assert list(data.train.names)[:5] == ["ant/0.png", "ant/1.png", "ant/2.png", "ant/linked.png", "ant/more/x.png"]
    (tmp_path / "elsewhere" / "round").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=r"more/round: this link leads back"):
        load_data(f"folder:{root}")


@pytest.mark.parametrize(("side", "kind"), [(20, MemorySplit), (65, FileSplit)])
def test_a_part_of_a_split_has_its_images_labels_and_names(tmp_path: Path, side: int, kind: type) -> None:
    whole = load_data(f"folder:{small_set(tmp_path, side)}").test
    assert isinstance(whole, kind)
    part = whole.take([4, 1])
    assert isinstance(part, kind)
    assert part.labels.tolist() == [int(whole.labels[i]) for i in (4, 1)]
    assert list(part.names) == [whole.names[i] for i in (4, 1)]
    for own, i in enumerate((4, 1)):
        assert torch.equal(part[own][0], whole[i][0])
        assert part[own][1] == whole[i][1]
