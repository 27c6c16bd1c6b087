"""CIFAR-10 is read from its python layout, written here with random pixels; a pickle can do nothing but hold arrays."""

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from shconv.data import load_data
from shconv.errors import InputError

FILES = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
PER_FILE = 12


def write_batch(file: Path, seed: int, **changed: Any) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    batch = {
        "batch_label": file.name,
        "labels": rng.integers(0, 10, PER_FILE).tolist(),
        "data": rng.integers(0, 256, (PER_FILE, 3072), np.uint8),
        "filenames": [f"{file.name}_{i}.png" for i in range(PER_FILE)],
    } | changed
    file.write_bytes(pickle.dumps(batch, protocol=2))
    return batch


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for seed, name in enumerate(FILES):
        write_batch(folder / name, seed)
    return folder


def test_pixels_labels_and_names_are_those_of_the_files_in_order(layout: Path) -> None:
    data = load_data(f"cifar10:{layout.parent}")
    batches = [write_batch(layout / name, seed) for seed, name in enumerate(FILES)]
    for split, wanted in ((data.train, batches[:5]), (data.test, batches[5:])):
        pixels = np.concatenate([batch["data"] for batch in wanted])
        assert len(split) == len(pixels)
        assert split.labels.tolist() == [label for batch in wanted for label in batch["labels"]]
        assert split.labels.dtype == torch.int64
        assert list(split.names) == [name for batch in wanted for name in batch["filenames"]]
        for i in range(len(split)):
            image, label = split[i]
            assert label == split.labels[i]
            # A row of the file: 1024 values of red, then green, then blue, each row by row.
            assert image.dtype == torch.uint8
            assert np.array_equal(image[1, 2], pixels[i, 1024 + 2 * 32 : 1024 + 3 * 32])
            assert np.array_equal(image.flatten(), pixels[i])
    assert data.image_size == 32
    assert data.classes[3] == "cat"
    assert len(data.classes) == 10
    assert data.name == f"cifar10:{layout.parent}"
    assert data.note == ""


def test_the_layouts_own_folder_is_as_good_and_without_one_it_is_data(
    layout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(load_data(f"cifar10:{layout}").test) == PER_FILE
    layout.parent.joinpath("data").mkdir()
    layout.rename(layout.parent / "data" / layout.name)
    monkeypatch.chdir(layout.parent)
    assert len(load_data("cifar10").test) == PER_FILE


def test_without_training_the_training_files_need_not_be_there(layout: Path) -> None:
    for name in FILES[:5]:
        (layout / name).unlink()
    data = load_data(f"cifar10:{layout}", want_train=False)
    assert data.train is None
    assert len(data.test) == PER_FILE
    with pytest.raises(InputError, match="data_batch_1 is missing"):
        load_data(f"cifar10:{layout}")


def test_where_there_is_no_copy_the_error_says_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cifar-10-batches-py.*cifar10:PATH"):
        load_data(f"cifar10:{tmp_path}")


def test_download_is_left_to_torchvision_and_a_failed_one_is_an_input_error(
    layout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, bool]] = []

    def download(root: str, download: bool) -> None:
        asked.append((root, download))
        if len(asked) == 2:
            raise RuntimeError("no route")
        layout.rename(Path(root) / "cifar-10-batches-py")

    monkeypatch.setattr("torchvision.datasets.CIFAR10", download)
    assert len(load_data(f"cifar10:{layout.parent}", download=True).test) == PER_FILE
    assert asked == []
    elsewhere = layout.parent / "elsewhere"
    elsewhere.mkdir()
    assert len(load_data(f"cifar10:{elsewhere}", download=True).test) == PER_FILE
    (elsewhere / "cifar-10-batches-py" / "data_batch_3").rename(layout.parent / "kept")  # a download that was stopped
    with pytest.raises(InputError, match="no route"):
        load_data(f"cifar10:{elsewhere}", download=True)
    assert asked == [(str(elsewhere), True)] * 2


@pytest.mark.parametrize(
    "changed",
    [{"labels": [10] * PER_FILE}, {"labels": [0]}, {"data": np.zeros((PER_FILE, 100), np.uint8)}, {"filenames": []}],
)
def test_a_batch_that_is_not_cifars_is_named(layout: Path, changed: dict[str, Any]) -> None:
    write_batch(layout / "data_batch_3", 0, **changed)
    with pytest.raises(InputError, match="data_batch_3"):
        load_data(f"cifar10:{layout}")


@pytest.mark.parametrize("content", [b"", b"not a pickle", b"\x80\x02]."])
def test_a_file_that_is_no_batch_is_named(layout: Path, content: bytes) -> None:
    (layout / "test_batch").write_bytes(content)
    with pytest.raises(InputError, match="test_batch"):
        load_data(f"cifar10:{layout}")


def test_a_pickle_that_would_run_a_command_is_refused_before_it_does(layout: Path, tmp_path: Path) -> None:
    class Command:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "made"),)

    (layout / "test_batch").write_bytes(pickle.dumps(Command()))
    with pytest.raises(InputError, match=r"mkdir.*no CIFAR-10 batch"):
        load_data(f"cifar10:{layout}")
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("place", ["", "cifar-10-batches-bin"])
def test_the_binary_layout_is_named_and_what_is_wanted_instead(tmp_path: Path, place: str) -> None:
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    (folder / "data_batch_1.bin").write_bytes(bytes(3073))
    with pytest.raises(InputError, match="is CIFAR-10's binary layout; wanted its python layout"):
        load_data(f"cifar10:{tmp_path / place}")
