"""Are these ImageNet's 1000 classes in their standard order? WordNet ids in names settle it, class names nearly do.
The standard order is that of the sorted ids, so one digest of the sorted list stands for both."""

import re
from collections.abc import Iterable, Sequence
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from shconv.data.listing import Listing, some
from shconv.data.sources import UNLABELLED, ImageFiles
from shconv.errors import InputError

CLASSES = 1000
# SHA-256 of ILSVRC2012's WordNet ids, sorted, one a line without a last line end.
IDS_SHA256 = "385e0240499426c022b773be1ae4da780f057b89c9694c7f47199f62746b6edd"
ID = re.compile(r"(?<![a-zA-Z0-9])n\d{8}(?!\d)")
ALIKE = 0.9  # of the names; in another order hardly any agree


def check_folders(listing: Listing) -> str:
    """What was checked. Raises InputError unless the class folders are ImageNet's."""
    ids = [name for name in listing.classes if ID.fullmatch(name)]
    if len(ids) != CLASSES or len(listing.classes) != CLASSES:
        raise InputError(
            f"{listing.files.folder} holds {len(listing.classes)} class folders ({some(listing.classes)}), {len(ids)} "
            f"of them named as n01440764 is; ImageNet wants {CLASSES} such. For other classes: folder:PATH"
        )
    _check_ids(listing.files, listing.classes)
    return "the places of the class folders, which are ILSVRC2012's 1000 WordNet ids, in sorted order"


def check_labels(
    files: ImageFiles, labels: NDArray[np.int64], names: Sequence[str] | None
) -> tuple[NDArray[np.int64], tuple[str, ...], str]:
    """(labels, classes, what was checked) of images in shards.

    labels: (N,), -1 where none is given; where none is given at all they are taken from WordNet ids in the names of the
    files. names: of the classes, where known. Raises InputError where they are not the standard 1000 in their order.
    """
    if not len(files):
        raise InputError(
            f"{files.folder}: its shards hold no images; wanted some of each of ImageNet's {CLASSES} classes"
        )
    ids = _ids(files.names)
    if ids is not None and (labels == UNLABELLED).all():
        place = {wordnet_id: i for i, wordnet_id in enumerate(sorted(set(ids)))}
        labels = np.array([place[wordnet_id] for wordnet_id in ids], np.int64)
    _check_range(files, labels)
    if ids is not None:
        return labels, _classes_by_id(files, labels, ids), "the places of the WordNet ids in the files' names, sorted"
    if names is not None:
        _check_names(files, names)
        return labels, tuple(names), "as stored; the names of their classes are ImageNet's"
    numbers = tuple(map(str, range(CLASSES)))
    return labels, numbers, "0 to 999 as stored; nothing says which classes they mean"


def _ids(names: Iterable[str]) -> list[str] | None:
    """The last WordNet id in each name, or None where one has none."""
    ids = []
    for name in names:
        found = ID.findall(name)
        if not found:
            return None
        ids.append(found[-1])
    return ids


def _check_range(files: ImageFiles, labels: NDArray[np.int64]) -> None:
    outside = np.flatnonzero((labels < 0) | (labels >= CLASSES))
    if len(outside):
        label, name = labels[outside[0]], files.folder / files.names[int(outside[0])]
        said = "has no label" if label == UNLABELLED else f"has the label {label}"
        raise InputError(f"{name} {said} (and {len(outside) - 1:,} more are so); wanted 0 to {CLASSES - 1}")
    missing = np.flatnonzero(np.bincount(labels, minlength=CLASSES) == 0).tolist()
    if missing:
        raise InputError(
            f"{files.folder}: {files.names[0]} and the others hold {CLASSES - len(missing)} classes; there is no image "
            f"of label {some(missing)}. ImageNet has {CLASSES}"
        )


def _classes_by_id(files: ImageFiles, labels: NDArray[np.int64], ids: Sequence[str]) -> tuple[str, ...]:
    by_label: dict[int, str] = {}
    for i, (label, wordnet_id) in enumerate(zip(labels.tolist(), ids, strict=True)):
        if by_label.setdefault(label, wordnet_id) != wordnet_id:
            name = files.folder / files.names[i]
            raise InputError(f"{name} has the label {label}, as {by_label[label]} has; wanted a label for each class")
    classes = tuple(by_label[label] for label in range(CLASSES))
    _check_ids(files, classes)
    return classes


def _check_ids(files: ImageFiles, classes: Sequence[str]) -> None:
    """classes: one a label, in the order of the labels."""
    wanted = sorted(classes)
    if sha256("\n".join(wanted).encode()).hexdigest() != IDS_SHA256:
        raise InputError(f"{files.folder}: its {CLASSES} WordNet ids ({some(wanted)}) are not those of ILSVRC2012")
    for label, (got, want) in enumerate(zip(classes, wanted, strict=True)):
        if got != want:
            raise InputError(
                f"{files.folder}: label {label} is {got}; in ImageNet's order, which is sorted, it is {want}"
            )


def _check_names(files: ImageFiles, names: Sequence[str]) -> None:
    from torchvision.models import ResNet18_Weights  # slow to import, needed only here

    if len(names) != CLASSES:
        raise InputError(f"{files.folder}: the label has {len(names)} classes ({some(names)}); ImageNet has {CLASSES}")
    known: list[str] = ResNet18_Weights.DEFAULT.meta["categories"]
    other = [i for i, (name, word) in enumerate(zip(names, known, strict=True)) if word.lower() not in name.lower()]
    if len(other) > (1 - ALIKE) * CLASSES:
        i = other[0]
        raise InputError(
            f"{files.folder}: {len(other)} of {CLASSES} class names are not ImageNet's; label {i} is {names[i]!r}, "
            f"which torchvision calls {known[i]!r}"
        )
