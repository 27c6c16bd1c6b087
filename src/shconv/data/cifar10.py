"""CIFAR-10 from a local copy in its python layout, cifar-10-batches-py; downloaded by torchvision only when asked to.
The batches are pickles: they are read by an unpickler that knows arrays and nothing else."""

import pickle
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch

from shconv.data.splits import MemorySplit
from shconv.errors import InputError

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
DEFAULT_FOLDER = "data"
LAYOUT = "cifar-10-batches-py"
BINARY = "cifar-10-batches-bin"
TRAIN_FILES = tuple(f"data_batch_{i}" for i in range(1, 6))
TEST_FILES = ("test_batch",)


def load_cifar10(path: str, *, download: bool, want_train: bool) -> tuple[MemorySplit | None, MemorySplit]:
    """(train, test), 50,000 and 10,000 images of 32 x 32.

    path: the folder that holds cifar-10-batches-py, or that folder itself; "" means ./data. Raises InputError if it is
    not there whole (unless download=True puts it there) or a file of it is no CIFAR-10 batch.
    """
    folder = Path(path or DEFAULT_FOLDER).expanduser()
    batches = folder if folder.name == LAYOUT else folder / LAYOUT
    if not batches.is_dir() and not download:
        for other in (folder, folder / BINARY):
            if (other / "data_batch_1.bin").is_file():
                raise InputError(f"{other} is CIFAR-10's binary layout; wanted its python layout, the folder {LAYOUT}")
        raise InputError(
            f"no CIFAR-10 at {batches}; give its place as cifar10:PATH, the folder with {LAYOUT}, "
            "or let it be downloaded there"
        )
    if download and not all((batches / name).is_file() for name in (*TRAIN_FILES, *TEST_FILES)):
        from torchvision.datasets import CIFAR10  # slow to import, needed only here

        try:
            CIFAR10(str(batches.parent), download=True)
        except (OSError, RuntimeError) as error:
            raise InputError(f"CIFAR-10 could not be downloaded to {batches.parent}: {error}") from error
    train = _read([batches / name for name in TRAIN_FILES]) if want_train else None
    return train, _read([batches / name for name in TEST_FILES])


def _read(files: Sequence[Path]) -> MemorySplit:
    parts = [_read_batch(file) for file in files]
    images = np.concatenate([images for images, _, _ in parts])
    labels = [label for _, labels, _ in parts for label in labels]
    names = [name for _, _, names in parts for name in names]
    return MemorySplit(torch.from_numpy(images), torch.tensor(labels), names)


def _read_batch(file: Path) -> tuple[np.ndarray[Any, np.dtype[np.uint8]], list[int], list[str]]:
    if not file.is_file():
        raise InputError(f"{file} is missing; wanted {TRAIN_FILES[0]} to {TRAIN_FILES[-1]} and {TEST_FILES[0]} there")
    try:
        with file.open("rb") as stream:
            batch = _ArrayUnpickler(stream, encoding="latin1").load()
        images = np.asarray(batch["data"], np.uint8).reshape(-1, 3, 32, 32)
        labels = [int(label) for label in batch["labels"]]
        names = [str(name) for name in batch.get("filenames", range(len(labels)))]
    except Exception as error:  # a broken pickle can raise nearly anything
        raise InputError(f"{file}: cannot be read as a CIFAR-10 batch ({error or type(error).__name__})") from error
    if not len(images) == len(labels) == len(names) or not set(labels) <= set(range(len(CLASSES))):
        raise InputError(f"{file}: {len(images)} images, {len(labels)} labels; wanted as many of both, labels 0 to 9")
    return images, labels, names


class _ArrayUnpickler(pickle.Unpickler):
    """Rebuilds numpy arrays and plain containers; anything else a pickle might call is refused."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in {("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")}:
            return getattr(import_module(module), name)
        if name in {"_reconstruct", "_frombuffer"} and module in {
            "numpy.core.multiarray",
            "numpy._core.multiarray",
            "numpy.core.numeric",
            "numpy._core.numeric",
        }:
            return getattr(import_module(module.replace("numpy.core", "numpy._core")), name)
        raise pickle.UnpicklingError(f"it holds {module}.{name}, which no CIFAR-10 batch does")
