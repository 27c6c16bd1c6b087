"""Batches by index lists, read in this process or by workers, each worker a batch or a part of every batch."""

import atexit
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor

from shconv.data.handover import BatchReader
from shconv.data.order import share_of
from shconv.data.splits import Batch
from shconv.data.worker_failures import naming_dead_workers
from shconv.data.worker_processes import Workers
from shconv.data.workers import AHEAD


def never() -> bool:
    """No reason to stop."""
    return False


class Batches(Iterable[Batch]):
    """Batches of the given index lists, in their order; can be iterated again and then gives the same.

    images: index list -> uint8 (B, 3, H, W). Without workers the lists may be int64 tensors, where the labels are.
    parts: into how many each batch is cut, where there are workers: as many then read it, each always the same part.
    stop: asked while there is no batch; StoppedWaiting where it says so.
    """

    def __init__(
        self,
        labels: Tensor,
        images: Callable[[Any], Tensor],
        batches: Sequence[list[int]] | Sequence[Tensor],
        workers: int,
        pinned: bool,
        parts: int = 1,
        stop: Callable[[], bool] = never,
    ) -> None:
        self._reader = BatchReader(labels, images)
        self._batches, self._workers, self._pinned, self._parts = batches, workers, pinned, parts
        self._stop = stop

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Generator[Batch]:
        batches = self._read()
        _UNDER_WAY.add(batches)
        return batches

    def _read(self) -> Generator[Batch]:
        if self._workers == 0 or len(self._batches) == 0:
            yield from map(self._reader.read, self._batches)
            return
        parts = self._parts
        with naming_dead_workers():
            workers = Workers(
                self._reader,
                self._stop,
                batch_sampler=[index[share_of(len(index), k, parts)] for index in self._batches for k in range(parts)],
                num_workers=min(self._workers, len(self._batches)) if parts == 1 else parts,  # they get parts in turn
                prefetch_factor=AHEAD if parts == 1 else 2 * AHEAD,
                pin_memory=self._pinned and parts == 1,
            )
            try:
                for _ in self._batches:
                    yield _joined([workers.receive() for _ in range(parts)], self._pinned)
            finally:
                workers.end()


def _joined(parts: Sequence[Batch], pinned: bool) -> Batch:
    if len(parts) == 1:
        return parts[0]
    pinned = pinned and torch.cuda.is_available()
    n = sum(len(part.labels) for part in parts)
    whole = Batch(*(each.new_empty(n, *each.shape[1:], pin_memory=pinned) for each in parts[0]))
    for each, place in zip(zip(*parts, strict=True), whole, strict=True):
        torch.cat(each, out=place)
    return whole


_UNDER_WAY: WeakSet[Generator[Batch]] = WeakSet()


@atexit.register
def _end_workers() -> None:
    """Python waits for them when it ends, after a SIGTERM that they do not hear."""
    for batches in list(_UNDER_WAY):
        batches.close()
