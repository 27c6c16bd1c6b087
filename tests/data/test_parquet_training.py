"""Training from Parquet: batches hang on seed, epoch, batch size and window alone, and each row group is read once."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from imagenets import samples, write_parquet

from shconv.data import Batch, ImageData, evaluation_batches, files, load_data, parquet, training_batches
from shconv.data.splits import FileSplit
from shconv.errors import InputError
from shconv.training import ModelConfig, Recipe
from shconv.training.checkpoint import check_same_run, run_record

pytest.importorskip("pyarrow")
GROUPS = 12  # of a hundred images or fewer: three shards of 334 and 333


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parquet")
    for part in ("train", "validation"):
        write_parquet(folder, part, samples(part))
    return folder


@pytest.fixture
def data(root: Path, monkeypatch: pytest.MonkeyPatch) -> ImageData:
    return load(root, monkeypatch)


def load(root: Path, monkeypatch: pytest.MonkeyPatch, **options: Any) -> ImageData:
    monkeypatch.setattr(files, "MEMORY_LIMIT", 0)
    monkeypatch.setattr(files, "VERIFY_LIMIT", 0)
    return load_data(f"imagenet:{root}", image_size=8, **options)


def epoch(data: ImageData, **options: Any) -> list[Batch]:
    assert data.train is not None
    return list(training_batches(data.train, "crop_flip", **({"batch_size": 64, "seed": 1, "epoch": 2} | options)))


def equal(some: list[Batch], others: list[Batch]) -> bool:
    return len(some) == len(others) and all(
        torch.equal(a, b) for one, other in zip(some, others, strict=True) for a, b in zip(one, other, strict=True)
    )


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, int]]]:
    """The row groups read in this process, in their order."""
    read, original = [], parquet._row_group

    def noting(path: Path, changed: int, group: int) -> Any:
        read.append((path.name, group))
        return original(path, changed, group)

    parquet._row_groups.cache_clear()
    monkeypatch.setattr(parquet, "_row_group", noting)
    yield read
    parquet._row_groups.cache_clear()


def test_the_number_of_workers_and_going_on_in_mid_epoch_change_no_batch(data: ImageData) -> None:
    whole = epoch(data)
    assert [len(batch.images) for batch in whole] == [64] * 15
    assert equal(epoch(data, workers=2), whole)
    assert equal(epoch(data, workers=2, skip=11), whole[11:])
    assert epoch(data, workers=2, skip=15) == []


def test_the_shares_of_processes_make_each_batch_whole_with_more_workers_than_images_too(data: ImageData) -> None:
    whole = epoch(data, batch_size=4, skip=245)
    shares = [epoch(data, batch_size=4, skip=245, share=(rank, 3), workers=2) for rank in range(3)]
    for batch, *parts in zip(whole, *shares, strict=True):
        for wanted, *got in zip(batch, *parts, strict=True):
            assert torch.equal(torch.cat(got), wanted)


def test_images_have_their_labels_and_come_at_most_once(data: ImageData) -> None:
    assert data.train is not None
    index = torch.cat([batch.index for batch in epoch(data)])
    assert len(index.unique()) == 960
    for batch in epoch(data, workers=2, skip=14):
        assert torch.equal(batch.labels, data.train.labels[batch.index])


def test_an_epoch_reads_no_row_group_twice(data: ImageData, reads: list[tuple[str, int]]) -> None:
    assert len(epoch(data)) == 15
    assert GROUPS - 1 <= len(set(reads)) == len(reads)  # the last 40 images may be all of one


def test_processes_divide_the_row_groups(data: ImageData, reads: list[tuple[str, int]]) -> None:
    for rank in range(2):
        parquet._row_groups.cache_clear()
        epoch(data, share=(rank, 2))
    assert len(reads) <= GROUPS + 2


def test_evaluation_reads_each_row_group_once_and_in_order(data: ImageData, reads: list[tuple[str, int]]) -> None:
    index = torch.cat([batch.index for batch in evaluation_batches(data.test, range(1000), 64)])
    assert index.tolist() == list(range(1000))
    assert len(reads) == GROUPS
    assert reads == sorted(reads)


def test_the_window_follows_the_memory_and_is_at_least_one_group(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small, large = (load(root, monkeypatch, parquet_memory=memory).open_groups for memory in (1e-9, 0.001))
    assert small == 1
    assert large is not None
    assert load(root, monkeypatch, parquet_memory=0.002).open_groups in (2 * large, 2 * large + 1)
    for memory in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(InputError, match="parquet_memory"):
            load(root, monkeypatch, parquet_memory=memory)


def test_another_window_is_another_training(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = [
        run_record(ModelConfig("plain10", 1000), load(root, monkeypatch, parquet_memory=memory), Recipe(1, 64, 0.1), 0)
        for memory in (0.001, 0.002)
    ]
    check_same_run(root, records[0], records[0])
    with pytest.raises(InputError, match=r"data\.open_groups"):
        check_same_run(root, *records)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_shard_that_goes_away_is_named(workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for part in ("train", "validation"):
        write_parquet(tmp_path, part, samples(part))
    data = load(tmp_path, monkeypatch)
    shard = tmp_path / "data" / "train-00001-of-00003.parquet"
    shard.unlink()
    with pytest.raises(InputError, match=rf"{shard.name}: cannot be read \(No such file"):
        epoch(data, workers=workers)


def test_images_left_out_are_left_out_of_their_groups(data: ImageData) -> None:
    split = data.train
    assert isinstance(split, FileSplit)
    kept = split.files.take(range(0, 1000, 7))
    assert kept.groups is not None
    assert split.files.groups is not None
    assert len(kept.groups.of) == 143
    assert sorted(set(kept.groups.of.tolist())) == list(range(GROUPS))
