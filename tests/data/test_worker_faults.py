"""Workers that die, hang or cannot hand over what they read: a line says so, nobody waits for ever, none is left."""

import ctypes
import errno
import multiprocessing
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from types import FrameType

import pytest
import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from shconv.data import Batch, evaluation_batches, training_batches
from shconv.data.splits import MemorySplit
from shconv.data.worker_processes import StoppedWaiting
from toys import processes

CLONE_NEWNS = 0x20000  # of Linux: mounts of its own


class Trouble:
    """Reading image 5 in a worker meets it."""

    labels = torch.arange(12)
    names = tuple("abcdefghijkl")

    def __init__(self, trouble: Callable[[], object]) -> None:
        self.trouble = trouble

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if index == 5 and get_worker_info() is not None:
            self.trouble()
        return torch.full((3, 9, 9), index, dtype=torch.uint8), index


def hang() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def raiser(error: Exception) -> Callable[[], object]:
    def fail() -> None:
        raise error

    return fail


@pytest.fixture(autouse=True)
def no_worker_is_left() -> Iterator[None]:
    yield
    assert multiprocessing.active_children() == []


LACKS = {
    "memory is too small": [
        MemoryError(),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: can't allocate memory: you tried to ..."),
    ],
    "shm .* is too small": [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("unable to allocate shared memory(shm) for file </torch_1_2_3>: No space left on device (28)"),
    ],
    "ulimit -n": [OSError(errno.EMFILE, "Too many open files"), RuntimeError("received: Too many open files (24)")],
}


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize(("said", "error"), [(said, error) for said, errors in LACKS.items() for error in errors])
def test_what_a_worker_lacks_is_one_line_with_the_remedy(said: str, error: Exception, workers: int) -> None:
    with pytest.raises(ChildProcessError, match=rf"{said}.*--workers 0.*the same command continues") as caught:
        list(evaluation_batches(Trouble(raiser(error)), range(12), 3, workers=workers))
    assert "\n" not in str(caught.value)


def test_another_error_of_a_worker_is_passed_on_as_it_is() -> None:
    with pytest.raises(ZeroDivisionError):
        list(evaluation_batches(Trouble(lambda: 1 // 0), range(12), 3, workers=2))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_batch_that_never_comes_is_waited_for_only_until_asked_to_stop(workers: int) -> None:
    asked: list[float] = []

    def stop() -> bool:
        asked.append(time.monotonic())
        return len(asked) == 2

    with pytest.raises(StoppedWaiting):
        list(evaluation_batches(Trouble(hang), range(12), 3, workers=workers, stop=stop))
    assert len(asked) == 2


def test_a_reason_to_stop_takes_nothing_from_one_whose_batches_come() -> None:
    got = list(evaluation_batches(Trouble(int), range(12), 3, workers=1, stop=lambda: True))
    assert torch.cat([batch.index for batch in got]).tolist() == list(range(12))


def test_an_error_from_a_signal_ends_the_wait_for_a_worker_that_hangs() -> None:
    def handler(number: int, frame: FrameType | None) -> None:
        raise SystemExit(75)

    before = signal.signal(signal.SIGUSR1, handler)
    timer = threading.Timer(1, os.kill, (os.getpid(), signal.SIGUSR1))
    try:
        timer.start()
        with pytest.raises(SystemExit):
            list(evaluation_batches(Trouble(hang), range(12), 3, workers=2))
    finally:
        timer.join()
        signal.signal(signal.SIGUSR1, before)


def with_little_shared_memory(size: int, told: Path) -> None:
    """In a process whose /dev/shm holds `size` bytes, its own: what is said of reading batches there, a line each."""
    split = MemorySplit(torch.zeros(64, 3, 64, 64, dtype=torch.uint8), torch.zeros(64).long(), ["0"] * 64)

    def say(batches: Iterator[Batch]) -> None:
        try:
            print(sum(1 for _ in batches))
        except ChildProcessError as error:
            print(error.strerror)

    assert ctypes.CDLL(None).unshare(CLONE_NEWNS) == 0
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", "/dev/shm"], check=True)
    with told.open("w") as file, redirect_stdout(file), redirect_stderr(file):
        for workers in (0, 1, 2):
            say(evaluation_batches(split, range(64), 32, workers=workers))
            for augmentation in ("crop_flip", "resized_crop"):
                say(training_batches(split, augmentation, batch_size=32, seed=0, epoch=0, workers=workers))
        say(evaluation_batches(split, range(64), 1, workers=1))
        Path("/dev/shm/full").write_bytes(bytes(size - 8192))
        with suppress(OSError):
            Path("/dev/shm/fuller").write_bytes(bytes(8192))
        say(evaluation_batches(split, range(64), 32, workers=1))


def may_mount() -> bool:
    if shutil.which("unshare") is None:
        return False
    mount = ["unshare", "-m", "mount", "-t", "tmpfs", "-o", "size=64k", "none", "/dev/shm"]
    return subprocess.run(mount, capture_output=True).returncode == 0


@pytest.mark.skipif(not may_mount(), reason="this user may mount no small /dev/shm")
def test_a_shared_memory_that_is_too_small_is_said_with_its_size(tmp_path: Path) -> None:
    size, told = 2**18, tmp_path / "told"  # bytes; a batch of 32 takes 393,216
    process = processes().Process(target=with_little_shared_memory, args=(size, told))
    process.start()
    process.join(120)
    assert process.exitcode == 0
    lines = told.read_text().splitlines()
    handed, started = (
        "a worker could not hand over the images that it read",
        "workers to read images could not be started",
    )
    assert len(lines) == 11, lines
    assert lines[:3] == ["2"] * 3
    assert lines[9] == "64"  # small batches fit
    for line, what in zip([*lines[3:9], lines[10]], [handed] * 6 + [started], strict=True):
        assert line.startswith(f"{what}: /dev/shm (0.25 MB, ")
        assert "--workers 0" in line
