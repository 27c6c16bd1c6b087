"""Batches: their order, and that what an image becomes depends on (seed, epoch, index) alone."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from shconv.data import Batch, ImageSplit, evaluation_batches, load_data, loading, training_batches
from shconv.data.loading import WHOLE
from shconv.data.splits import FileSplit, MemorySplit
from shconv.data.transforms import AUGMENTATIONS
from shconv.errors import InputError

CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def memory_split(n: int, side: int = 12) -> MemorySplit:
    images = torch.randint(0, 256, (n, 3, side, side), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return MemorySplit(images, torch.arange(n) % 5, [str(i) for i in range(n)])


@pytest.fixture
def file_split(tmp_path: Path) -> FileSplit:
    rng = np.random.default_rng(0)
    (tmp_path / "test/a").mkdir(parents=True)
    for i in range(10):
        Image.fromarray(rng.integers(0, 256, (70 + i, 90, 3), np.uint8)).save(tmp_path / f"test/a/{i}.png")
    split = load_data(f"folder:{tmp_path}", image_size=32, want_train=False).test
    assert isinstance(split, FileSplit)
    return split


def by_index(batches: Iterable[Batch]) -> dict[int, Tensor]:
    return {i: image for batch in batches for i, image in zip(batch.index.tolist(), batch.images, strict=True)}


def same(a: dict[int, Tensor], b: dict[int, Tensor]) -> bool:
    return all(torch.equal(a[i], b[i]) for i in a.keys() & b.keys()) and len(a.keys() & b.keys()) > 0


@settings(max_examples=30, deadline=None)
@given(n=st.integers(1, 40), batch_size=st.integers(1, 12), seed=st.integers(0, 2**31), epoch=st.integers(0, 200))
def test_an_epoch_is_full_batches_of_different_images_and_len_counts_them(
    n: int, batch_size: int, seed: int, epoch: int
) -> None:
    split = memory_split(n, 4)
    batches = training_batches(split, "none", batch_size=batch_size, seed=seed, epoch=epoch)
    got = list(batches)
    assert len(got) == len(batches) == max(1, n // batch_size)
    assert all(len(batch.images) == min(n, batch_size) for batch in got)
    index = torch.cat([batch.index for batch in got])
    assert len(index.unique()) == len(index)
    assert index.dtype == torch.int64
    assert torch.equal(torch.cat([batch.labels for batch in got]), split.labels[index])
    assert torch.equal(torch.cat([batch.images for batch in got]), split.images[index])


def test_the_order_is_a_function_of_seed_and_epoch() -> None:
    def order(seed: int, epoch: int, augmentation: str = "none") -> list[int]:
        batches = training_batches(memory_split(50), augmentation, batch_size=10, seed=seed, epoch=epoch)
        return torch.cat([batch.index for batch in batches]).tolist()

    assert order(1, 2) == order(1, 2) == order(1, 2, "crop_flip")
    assert len({tuple(order(seed, epoch)) for seed in range(4) for epoch in range(4)}) == 16


@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
def test_augmentation_of_an_image_in_memory_is_independent_of_batch_and_workers(augmentation: str) -> None:
    split = memory_split(14)
    options: dict[str, Any] = {"seed": 3, "epoch": 4}
    alone = by_index(training_batches(split, augmentation, batch_size=14, **options))
    assert len(alone) == 14
    assert same(alone, by_index(training_batches(split, augmentation, batch_size=3, **options)))
    assert same(alone, by_index(training_batches(split, augmentation, batch_size=3, workers=2, **options)))


@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
def test_augmentation_of_an_image_file_is_independent_of_batch_and_workers(
    augmentation: str, file_split: FileSplit
) -> None:
    options: dict[str, Any] = {"seed": 3, "epoch": 4}
    alone = by_index(training_batches(file_split, augmentation, batch_size=10, **options))
    assert {image.shape for image in alone.values()} == {(3, 32, 32)}
    assert same(alone, by_index(training_batches(file_split, augmentation, batch_size=3, **options)))
    assert same(alone, by_index(training_batches(file_split, augmentation, batch_size=4, workers=2, **options)))


@pytest.mark.parametrize("augmentation", ["crop_flip", "resized_crop", "he2016"])
def test_augmentation_changes_with_the_epoch_and_with_the_seed(augmentation: str) -> None:
    split = memory_split(8)

    def epoch(seed: int, epoch: int) -> dict[int, Tensor]:
        return by_index(training_batches(split, augmentation, batch_size=8, seed=seed, epoch=epoch))

    assert same(epoch(0, 0), epoch(0, 0))
    assert not same(epoch(0, 0), epoch(0, 1))
    assert not same(epoch(0, 0), epoch(1, 0))


@pytest.mark.parametrize("augmentation", ["crop_flip", "resized_crop", "he2016"])
def test_equal_images_at_different_places_are_augmented_differently(augmentation: str) -> None:
    split = MemorySplit(memory_split(1).images.expand(20, -1, -1, -1), torch.zeros(20).long(), [""] * 20)
    (batch,) = training_batches(split, augmentation, batch_size=20, seed=0, epoch=0)
    assert len({image.numpy().tobytes() for image in batch.images}) > 10


@pytest.mark.parametrize("workers", [0, 2])
def test_skipping_batches_goes_on_as_if_they_had_been_taken(workers: int) -> None:
    options: dict[str, Any] = {"batch_size": 4, "seed": 0, "epoch": 1, "workers": workers}
    whole = list(training_batches(memory_split(23), "crop_flip", **options))
    for skip in (0, 2, 5):
        rest = training_batches(memory_split(23), "crop_flip", skip=skip, **options)
        assert len(rest) == 5 - skip
        for got, wanted in zip(rest, whole[skip:], strict=True):
            assert all(torch.equal(a, b) for a, b in zip(got, wanted, strict=True))


def test_an_epoch_can_be_gone_through_twice_and_gives_the_same() -> None:
    batches = training_batches(memory_split(12), "crop_flip", batch_size=4, seed=0, epoch=0)
    assert same(by_index(batches), by_index(batches))


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_gives_the_asked_images_in_the_asked_order(workers: int, file_split: FileSplit) -> None:
    asked = [7, 0, 3, 3, 9, 1, 2]
    for split in (memory_split(10), file_split):
        got = list(evaluation_batches(split, asked, 3, workers=workers))
        assert [len(batch.images) for batch in got] == [3, 3, 1]
        assert torch.cat([batch.index for batch in got]).tolist() == asked
        for batch in got:
            assert (batch.images.dtype, batch.labels.dtype, batch.index.dtype) == (
                torch.uint8,
                torch.int64,
                torch.int64,
            )
            for image, label, index in zip(batch.images, batch.labels, batch.index.tolist(), strict=True):
                assert torch.equal(image, split[index][0])
                assert label == split[index][1]


def test_indices_may_be_any_sequence_and_none_give_no_batch() -> None:
    split = memory_split(10)
    for indices in (range(4), np.arange(4), torch.arange(4), (0, 1, 2, 3)):
        (batch,) = evaluation_batches(split, indices, 8)
        assert batch.index.tolist() == [0, 1, 2, 3]
    assert list(evaluation_batches(split, [], 8)) == []


def test_files_train_at_224_and_are_tested_at_256_by_the_papers_preset(tmp_path: Path) -> None:
    for part in ("train", "test"):
        (tmp_path / part / "a").mkdir(parents=True)
        Image.new("RGB", (100, 90)).save(tmp_path / part / "a/0.png")
    data = load_data(f"folder:{tmp_path}", test_preset="paper")
    assert data.train is not None
    for augmentation in AUGMENTATIONS:
        (batch,) = training_batches(data.train, augmentation, batch_size=2, seed=0, epoch=0)
        assert batch.images.shape == (1, 3, 224, 224)
        (batch,) = training_batches(data.train, augmentation, batch_size=2, seed=0, epoch=0, image_size=40)
        assert batch.images.shape == (1, 3, 40, 40)
    (batch,) = evaluation_batches(data.test, [0], 2)
    assert batch.images.shape == (1, 3, 256, 256)


class GreyLevels:
    """A split of someone else's making: image i is all i."""

    labels = torch.arange(6)
    names = tuple("abcdef")

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return torch.full((3, 9, 9), index, dtype=torch.uint8), index


@pytest.mark.parametrize("augmentation", ["none", "resized_crop"])
def test_any_split_will_do(augmentation: str) -> None:
    split: ImageSplit = GreyLevels()
    for image_size in (None, 5):
        batches = list(
            training_batches(split, augmentation, batch_size=3, seed=0, epoch=0, image_size=image_size)
        ) + list(evaluation_batches(split, range(6), 4))
        for batch in batches:
            assert torch.equal(batch.images[:, 0, 0, 0].long(), batch.index)
            assert torch.equal(batch.labels, batch.index)
        assert batches[0].images.shape[-1] == (image_size or 9)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_file_is_named_in_one_line_wherever_it_is_read(workers: int, file_split: FileSplit) -> None:
    (file_split.folder / file_split.names[4]).write_text("not an image")
    good = list(evaluation_batches(file_split, [0, 1, 2], 3, workers=workers))
    assert len(good) == 1
    with pytest.raises(InputError, match=r"4\.png: cannot be read") as caught:
        list(evaluation_batches(file_split, range(10), 3, workers=workers))
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=r"4\.png"):
        list(training_batches(file_split, "resized_crop", batch_size=5, seed=0, epoch=0, workers=workers))


@pytest.mark.parametrize("workers", [0, 1])
def test_the_global_random_states_are_left_alone(workers: int) -> None:
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    for augmentation in AUGMENTATIONS:
        list(training_batches(memory_split(6), augmentation, batch_size=3, seed=0, epoch=0, workers=workers))
    list(evaluation_batches(memory_split(6), range(6), 3, workers=workers))
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)


@pytest.mark.parametrize(
    "wrong",
    [
        {"augmentation": "cutout"},
        {"batch_size": 0},
        {"seed": -1},
        {"epoch": -1},
        {"workers": -1},
        {"image_size": 0},
        {"skip": 3},
        {"skip": -1},
    ],
)
def test_unusable_training_arguments_are_named(wrong: dict[str, Any]) -> None:
    options = {"augmentation": "none", "batch_size": 4, "seed": 0, "epoch": 0} | wrong
    with pytest.raises(InputError, match=next(iter(wrong))):
        training_batches(memory_split(10), **options)


@pytest.mark.parametrize("index", [-1, 10])
def test_an_index_outside_the_split_is_named(index: int) -> None:
    with pytest.raises(InputError, match=f"image {index} .*0 to 9"):
        evaluation_batches(memory_split(10), [0, index], 4)


class Deadly:
    """Reading image 5 in a worker kills that worker."""

    labels = torch.arange(12)
    names = tuple("abcdefghijkl")

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if index == 5 and torch.utils.data.get_worker_info() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        return torch.full((3, 9, 9), index, dtype=torch.uint8), index


def test_a_worker_that_dies_is_named_and_so_is_what_to_do() -> None:
    with pytest.raises(ChildProcessError, match=r"worker \(pid.* \d+\).*; the same command continues"):
        list(evaluation_batches(Deadly(), range(12), 3, workers=1))
    assert len(list(evaluation_batches(Deadly(), range(12), 3))) == 4


class Signalled(Deadly):
    """Reading image 5 in a worker sends it what a scheduler and Ctrl-C send to every process of a job."""

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if index == 5:
            assert torch.utils.data.get_worker_info() is not None
            for number in (signal.SIGTERM, signal.SIGINT):
                os.kill(os.getpid(), number)
        return torch.full((3, 9, 9), index, dtype=torch.uint8), index


def test_a_worker_leaves_signals_to_the_main_process() -> None:
    batches = evaluation_batches(Signalled(), range(12), 3, workers=1)
    assert torch.cat([batch.index for batch in batches]).tolist() == list(range(12))


@pytest.mark.parametrize("count", [2, 3])
def test_the_shares_of_a_batch_make_it_whole(count: int) -> None:
    options: dict[str, Any] = {"batch_size": 7, "seed": 0, "epoch": 1}
    whole = list(training_batches(memory_split(23), "crop_flip", **options))
    shares = [list(training_batches(memory_split(23), "crop_flip", share=(k, count), **options)) for k in range(count)]
    for batch, *parts in zip(whole, *shares, strict=True):
        for wanted, *got in zip(batch, *parts, strict=True):
            assert torch.equal(torch.cat(got), wanted)


def test_a_program_that_ends_amid_an_epoch_takes_its_workers_with_it() -> None:
    code = """
import torch
from shconv.data import training_batches
from shconv.data.splits import MemorySplit
split = MemorySplit(torch.zeros(64, 3, 8, 8, dtype=torch.uint8), torch.zeros(64, dtype=torch.int64), ["0"] * 64)
batches = iter(training_batches(split, "none", batch_size=2, seed=0, epoch=0, workers=2))
next(batches)
raise SystemExit(3)
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 3


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=CUDA)])
@pytest.mark.parametrize("augmentation", WHOLE)
def test_batches_made_on_the_device_are_those_made_on_the_cpu(augmentation: str, device: str) -> None:
    split = memory_split(23)
    options: dict[str, Any] = {"batch_size": 5, "seed": 2, "epoch": 3, "skip": 1, "share": (1, 2)}
    wanted = list(training_batches(split, augmentation, workers=2, **options))  # by index lists, in workers
    for each in (split, split.on(device)):
        got = list(training_batches(each, augmentation, **options))
        assert len(got) == len(wanted) == 3
        for a, b in zip(got, wanted, strict=True):
            assert all(torch.equal(x.cpu(), y) for x, y in zip(a, b, strict=True))


def test_a_resident_split_is_read_by_no_worker_and_evaluated_in_the_order_asked_for() -> None:
    split = memory_split(10)
    order = [3, 1, 4, 1, 5]
    wanted = list(evaluation_batches(split, order, 2))
    got = list(evaluation_batches(split.on("cpu"), order, 2, workers=7))
    assert [len(batch.labels) for batch in got] == [2, 2, 1]
    for a, b in zip(got, wanted, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    assert list(evaluation_batches(split.on("cpu"), [], 2)) == []


def test_only_a_gpu_that_can_augment_a_whole_batch_gets_the_images(monkeypatch: pytest.MonkeyPatch) -> None:
    split, gpu = memory_split(4), torch.device("cuda")
    monkeypatch.setattr(MemorySplit, "on", lambda self, device: (self, device))
    assert loading.near(split, torch.device("cpu"), "crop_flip") is split
    assert loading.near(split, gpu, "resized_crop") is split
    assert loading.near(split, gpu, "crop_flip") == (split, gpu)
    assert loading.near(split, gpu) == (split, gpu)
    monkeypatch.setattr(loading, "MOST_RESIDENT", split.images.nbytes - 1)
    assert loading.near(split, gpu) is split
