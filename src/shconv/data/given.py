"""A user's own images as a data set of ours: tensors, a torch Dataset, a DataLoader, a Hugging Face dataset, or the
command line's words. Images stay what they are: floats in [0, 1], or uint8; nothing is resized."""

import hashlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from operator import index as as_integer
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from shconv.data.datasets import load_data
from shconv.data.decode import to_eight_bits
from shconv.data.splits import ImageData, ImageSplit, MemorySplit, in_unit_range
from shconv.errors import InputError, raised
from shconv.numbers import plain

WANTED = (
    "want (images, labels), a torch Dataset of (image, label), a DataLoader, a Hugging Face dataset with an image and "
    'a label column, or words such as "demo" or "folder:PATH"'
)
IMAGE_COLUMNS = ("image", "img", "pixel_values", "images")
LABEL_COLUMNS = ("label", "labels", "fine_label", "target")
LOOKED_AT = 64  # items of a dataset, which may be slow to read
SMALL = 2**28  # bytes of images, all of which are looked at
MOST_CLASSES = 2**20


def as_data(data: Any, name: str = "own data") -> ImageData:
    """`data` as a test split. Classes are numbered where the data does not name them.

    Args:
        data: (images, labels): (N, C, H, W) floats in [0, 1] or uint8, and int64 (N,), as tensors or arrays, the
            labels also as a list; a Dataset or DataLoader of (image, label), each image a tensor (C, H, W) or a PIL
            image; a Hugging Face dataset; an ImageData or one of its splits; or what `shconv.data.load_data` takes.

    Raises:
        InputError: anything else, and images or labels that do not fit.
    """
    if isinstance(data, ImageData):
        return data
    if isinstance(data, str):
        return load_data(data, want_train=False)
    classes: Sequence[str] = ()
    if (
        isinstance(data, tuple | list)
        and len(data) == 2
        and isinstance(data[0], Tensor | np.ndarray)
        and isinstance(data[1], Tensor | np.ndarray | list | tuple)
    ):
        split: ImageSplit = _in_memory(*map(_tensor, ("images", "labels"), data))
    elif isinstance(data, DataLoader):
        split, classes = _of_loader(data), getattr(data.dataset, "classes", ())
    elif hasattr(data, "column_names") and hasattr(data, "features") and hasattr(data, "__len__"):
        split, classes = _of_columns(data)
    elif hasattr(data, "__getitem__") and hasattr(data, "__len__") and not isinstance(data, Mapping):
        split, classes = DatasetSplit(data), getattr(data, "classes", ())
    else:
        raise InputError(f"data: got {type(data).__name__}; {WANTED}")
    if not len(split):
        raise InputError("data: got no image; want at least one")
    labels = split.labels
    for label in map(int, labels.aminmax()):
        if not 0 <= label < MOST_CLASSES:
            raise InputError(f"labels: got {label}; want classes numbered from 0")
    count = max(int(labels.max()) + 1, len(classes), 2)
    names = [str(each) for each in classes] + [str(number) for number in range(len(classes), count)]
    channels, *_, side = split[0][0].shape
    return ImageData(name, tuple(names), None, split, side, "", 0, channels=channels, own=True)


def fingerprint(data: ImageData) -> dict[str, str]:
    """What a run folder keeps to know a user's own data again: a digest of the labels and of the images, of all where
    they take little memory, else of 64, spread evenly. {} for data that has a name."""
    if not data.own:
        return {}
    split = data.test
    sha = hashlib.sha256(split.labels.cpu().numpy().tobytes())
    small = isinstance(split, MemorySplit) and split.images.nbytes <= SMALL
    for at in range(len(split)) if small else _spread(len(split)):
        pixels = in_unit_range(split[at][0].detach()).cpu()  # as a network gets them
        sha.update(repr(tuple(pixels.shape)).encode())
        sha.update(pixels.contiguous().numpy().tobytes())
    return {"images_and_labels": sha.hexdigest()[:16]}


@dataclass(frozen=True, eq=False)
class DatasetSplit:
    """A dataset of (image, label) pairs, read when asked for."""

    dataset: Any

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        with _naming(f"item {index}"):
            item = self.dataset[index]
        return _pair(item, index)

    def take(self, kept: Sequence[int]) -> "DatasetSplit":
        """The same with the images at these places only."""
        return DatasetSplit(Subset(self.dataset, kept))

    @cached_property
    def labels(self) -> Tensor:
        """Those of all its items, which are read for it once; or its `targets` or `labels`, where items agree."""
        known = _known_labels(self.dataset)
        if known is not None and all(self[at][1] == int(known[at]) for at in _spread(len(self))):
            return known
        return torch.tensor([self[i][1] for i in range(len(self))], dtype=torch.int64)

    @property
    def names(self) -> Sequence[str]:
        """File names where the dataset has them, as torchvision's ImageFolder does, else places."""
        files = getattr(self.dataset, "samples", None)
        if isinstance(files, list) and len(files) == len(self) and isinstance(files[0][0], str):
            return [path for path, _ in files]
        return _Places(len(self))


@contextmanager
def _naming(what: str) -> Iterator[None]:
    """What a user's own code raises in here becomes an InputError that says where."""
    try:
        yield
    except (InputError, MemoryError):
        raise
    except Exception as error:
        raise InputError(f"data: {what} raised {raised(error)}") from error


def _known_labels(dataset: Any) -> Tensor | None:
    """What a dataset says of its labels, int64 (N,), where that are class numbers. An item may have another label:
    torchvision's `targets` are those before `target_transform`."""
    for held in (getattr(dataset, name, None) for name in ("targets", "labels")):
        if isinstance(held, Tensor | np.ndarray | list) and len(held) == len(dataset):
            try:
                labels = torch.as_tensor(held)
            except (ValueError, TypeError, RuntimeError):  # names of classes, or None
                continue
            if labels.dim() == 1 and not labels.is_floating_point() and labels.dtype != torch.bool:
                return labels.long()
    return None


def _spread(n: int) -> range:
    """Places of at most 64 of n items, from the first to near the last."""
    return range(0, n, max(1, -(-n // LOOKED_AT)))


class _Places(Sequence[str]):
    """ "0", "1", ... without a list of them."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: Any) -> Any:
        places = range(self.n)[index]
        return str(places) if isinstance(places, int) else [str(place) for place in places]


def _tensor(name: str, values: Any) -> Tensor:
    """Of an array too that is read-only, read backwards or in another order of bytes. Raises InputError for others."""
    if isinstance(values, np.ndarray) and (min(values.strides, default=1) < 0 or not values.dtype.isnative):
        values = np.ascontiguousarray(values, values.dtype.newbyteorder("="))
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # it is only read
            return torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError) as error:
        got = f"an array of {values.dtype}" if isinstance(values, np.ndarray) else f"a {type(values).__name__}"
        raise InputError(f"{name}: got {got}; want numbers") from error


def _in_memory(images: Tensor, labels: Tensor) -> MemorySplit:
    if images.dim() != 4 or not len(images):
        raise InputError(f"images: got shape {tuple(images.shape)}; want (N, C, H, W), at least one")
    if images.dtype != torch.uint8 and not images.is_floating_point():
        raise InputError(f"images: got {images.dtype}; want floats in [0, 1], or uint8")
    if labels.shape != images.shape[:1] or labels.is_floating_point() or labels.dtype == torch.bool:
        raise InputError(
            f"labels: got {labels.dtype} of shape {tuple(labels.shape)}; want int64 ({len(images)},), one an image"
        )
    return MemorySplit(images.detach().cpu(), labels.detach().cpu().long(), _Places(len(images)))


def _of_loader(loader: DataLoader[Any]) -> MemorySplit:
    """Every batch of it, in the order in which it gives them."""
    with _naming("the DataLoader"):
        given = list(loader)
    batches = []
    for batch in given:
        if not isinstance(batch, tuple | list) or len(batch) < 2 or not isinstance(batch[0], Tensor):
            raise InputError(f"data: the DataLoader gives {type(batch).__name__}; want batches (images, labels)")
        batches.append(_in_memory(batch[0], _tensor("labels", batch[1])))
    if not batches:
        raise InputError("data: the DataLoader gives no batch; want at least one image")
    if len(shapes := {tuple(batch.images.shape[1:]) for batch in batches}) > 1:
        raise InputError(f"data: the DataLoader gives images of shapes {sorted(shapes)}; want one shape")
    return _in_memory(torch.cat([batch.images for batch in batches]), torch.cat([batch.labels for batch in batches]))


def _of_columns(dataset: Any) -> tuple[DatasetSplit, Sequence[str]]:
    """A Hugging Face dataset: its column of images, and that of classes with their names."""
    kinds = {name: type(feature).__name__ for name, feature in dataset.features.items()}
    image = _column(kinds, "Image", IMAGE_COLUMNS)
    label = _column(kinds, "ClassLabel", LABEL_COLUMNS)
    if image is None or label is None:
        raise InputError(f"data: its columns are {', '.join(kinds)}; want one of images and one of class labels")
    return DatasetSplit(_Columns(dataset, image, label)), getattr(dataset.features[label], "names", ())


def _column(kinds: Mapping[str, str], kind: str, usual: Sequence[str]) -> str | None:
    typed = [name for name, each in kinds.items() if each == kind]
    named = [name for name in usual if name in kinds]
    return next(iter([*typed, *named]), None)


@dataclass(frozen=True, eq=False)
class _Columns:
    dataset: Any
    image: str
    label: str

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        item = self.dataset[index]
        if missing := {self.image, self.label} - item.keys():  # after a transform
            raise InputError(f"data: item {index} holds {', '.join(item)}; want {', '.join(sorted(missing))} too")
        return item[self.image], item[self.label]

    @property
    def labels(self) -> list[int]:
        return list(self.dataset[self.label])


def _class(given: Any, index: int) -> int:
    """The number of a class, from whatever is exactly one."""
    value = plain(given)
    try:
        if isinstance(value, str) or (isinstance(value, float) and value.is_integer()):
            value = int(value)
        return as_integer(value)
    except (TypeError, ValueError) as error:
        got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor | np.ndarray) else f"{value!r:.40}"
        raise InputError(f"data: item {index} has the label {got}; want the number of a class") from error


def _pair(item: Any, index: int) -> tuple[Tensor, int]:
    try:
        image, given = item[0], item[1]
    except (TypeError, KeyError, IndexError) as error:
        raise InputError(f"data: item {index} is a {type(item).__name__}; want a pair (image, label)") from error
    label = _class(given, index)
    if isinstance(image, Image.Image):
        try:
            kept = to_eight_bits(image)
        except ValueError as error:
            raise InputError(f"data: image {index} has {error}") from error
        return torch.from_numpy(np.atleast_3d(np.array(kept))).permute(2, 0, 1), label
    tensor = _tensor(f"data: image {index}", image)
    if tensor.dim() != 3:
        raise InputError(f"data: image {index} has shape {tuple(tensor.shape)}; want (C, H, W)")
    return tensor, label
