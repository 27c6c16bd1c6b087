"""The number of workers: what is said, else what the cores of a process allow, none for data that need no reading."""

import os
from pathlib import Path

import pytest
from PIL import Image

from shconv.commands.options import DataOptions
from shconv.data import load_data, workers
from shconv.data.workers import FEW, MOST, automatic_workers
from shconv.experiments.progress import ExperimentProgress


@pytest.mark.parametrize(
    ("cores", "processes", "wanted"),
    [(1, 1, 1), (2, 1, 1), (4, 1, 3), (16, 1, MOST), (16, 8, 1), (96, 8, MOST), (48, 8, 5), (4, 8, 1)],
)
def test_a_process_has_workers_on_its_share_of_the_cores_but_one(
    cores: int, processes: int, wanted: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "usable_cores", lambda: cores)
    assert automatic_workers(FEW, processes) == wanted
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    assert automatic_workers(FEW) == wanted


def test_few_images_want_no_worker() -> None:
    assert automatic_workers(FEW - 1) == automatic_workers(0) == 0
    assert automatic_workers(FEW) > 0


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system does not tell")
def test_cores_that_this_process_may_not_use_do_not_count() -> None:
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert workers.usable_cores() == 1
    finally:
        os.sched_setaffinity(0, allowed)


def test_what_is_said_counts_and_otherwise_images_on_the_disk_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "usable_cores", lambda: 4)
    for part in ("train", "test"):
        (tmp_path / part / "a").mkdir(parents=True)
        for i in range(3):
            Image.new("RGB", (70, 80)).save(tmp_path / part / f"a/{i}.png")
    said: list[str] = []
    on_disk = DataOptions(data=f"folder:{tmp_path}")
    data = on_disk.load(ExperimentProgress(), want_train=True)
    assert on_disk.readers(data, 2, said.append) == 0
    monkeypatch.setattr(workers, "FEW", 3)
    assert on_disk.readers(data, 2, said.append) == 3
    assert on_disk.readers(load_data(on_disk.data, want_train=False), 2, said.append) == 3
    assert on_disk.readers(load_data(on_disk.data, image_size=8), 2, said.append) == 3
    assert DataOptions(workers=0).readers(data, 2, said.append) == 0
    assert DataOptions(workers=7).readers(data, 2, said.append) == 7
    in_memory = load_data("demo")
    assert DataOptions().readers(in_memory, 2, said.append) == 0
    assert DataOptions(workers=2).readers(in_memory, 2, said.append) == 2
    monkeypatch.setattr(workers, "shared_memory", lambda: (2**26, 10**6))
    assert said == []
    assert on_disk.readers(data, 1, said.append) == 2  # 6 batches of 3 x 224 x 224 bytes, not 8
    assert on_disk.readers(data, 2, said.append) == 0
    assert DataOptions(workers=7).readers(data, 2, said.append) == 7
    assert "".join(said[0].split(":")[:1]) == "2 and not 3 workers read images"
    assert said[1].startswith("no worker reads images: /dev/shm (64 MB, 0.9537 MB free) has no room for more batches")
    assert len(said) == 2


@pytest.mark.parametrize(("free", "wanted"), [(100, 3), (8, 3), (7, 2), (6, 2), (5, 1), (4, 1), (3, 0), (0, 0)])
def test_no_more_workers_than_shared_memory_has_room_for(
    free: int, wanted: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two batches ahead for each worker, one on its way and one in use."""
    monkeypatch.setattr(workers, "usable_cores", lambda: 4)
    monkeypatch.setattr(workers, "shared_memory", lambda: (200 * 1000, free * 1000))
    assert automatic_workers(FEW, batch_bytes=1000) == wanted
    monkeypatch.setattr(workers, "shared_memory", lambda: None)
    assert automatic_workers(FEW, batch_bytes=1000) == 3
