"""What a worker runs, and how a batch comes from it: packed in the worker, its tensors in shared memory, and taken over
without waiting for a worker that does not answer."""

import pickle
import threading
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.reduction import ForkingPickler
from queue import SimpleQueue
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from shconv.data.splits import Batch
from shconv.data.worker_failures import failure, lack_of
from shconv.errors import InputError

LOOK_EVERY = 0.5  # seconds between two looks at whether to go on waiting


class BatchReader(Dataset[Batch]):
    """What a DataLoader worker runs: a list of indices -> what it hands over."""

    def __init__(self, labels: Tensor, images: Callable[[Any], Tensor]) -> None:
        self.labels, self.images = labels, images

    def read(self, index: list[int] | Tensor) -> Batch:
        if isinstance(index, Tensor):
            return Batch(self.images(index), self.labels.index_select(0, index), index)
        return Batch(self.images(index), self.labels[index], torch.tensor(index))

    def __getitems__(self, index: list[int]) -> "Packed | Exception":
        # Packed here, since what fails in the loader's own thread is lost, and the main process would wait for ever.
        # Raised here, an error would arrive wrapped in a traceback; so it travels as a value and is raised outside.
        try:
            return Packed(bytes(ForkingPickler.dumps(self.read(index))))
        except InputError as error:
            return error
        except Exception as error:
            if (lack := lack_of(error)) is None:
                raise
            return failure("a worker could not hand over the images that it read", lack)


@dataclass(frozen=True)
class Packed:
    """A batch on its way: the tensors lie in shared memory, this says where."""

    data: bytes

    def unpacked(self, pinned: bool = False) -> Batch | Exception:
        try:
            batch: Batch = pickle.loads(self.data)
            return Batch(*(each.pin_memory() for each in batch)) if pinned else batch
        except Exception as error:
            lack = lack_of(error)
            return error if lack is None else failure("images from a worker could not be received", lack)

    def taken(self) -> Callable[[], Batch | Exception]:
        """What gives it, or raises Empty after a moment. Its worker is asked for the memory, and may not answer."""
        taken: SimpleQueue[Batch | Exception] = SimpleQueue()
        threading.Thread(target=lambda: taken.put(self.unpacked()), daemon=True).start()
        return lambda: taken.get(timeout=LOOK_EVERY)

    def pin_memory(self) -> Batch | Exception:
        """The loader calls it in a thread of its own, where it pins."""
        return self.unpacked(pinned=True)
