"""ImageNet (ILSVRC2012) in the forms people have it: class folders, a flat val/ with its ground truth, Parquet, tars.
Whatever the form, labels are the standard 0 to 999, and that is checked before anything is trained."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from shconv.data.ground_truth import list_flat_val
from shconv.data.imagenet_labels import ID, check_folders, check_labels
from shconv.data.listing import Listing, check_same_classes, list_split, some, visible_files, visible_folders
from shconv.data.parquet import index_parquet
from shconv.data.tars import index_tars
from shconv.errors import InputError

PARTS = {"train": "train", "val": "val", "validation": "val"}  # how shards and their folders are called
SIZES = {"train": 1_281_167, "val": 50_000}
KAGGLE = "ILSVRC/Data/CLS-LOC"
PART = re.compile(r"(?<![a-z])(train|validation|val)(?![a-z])")
ARCHIVE = re.compile(r"ILSVRC2012_img_.*|n\d{8}\.tar")  # as image-net.org gives them
SHARD_OF = re.compile(r"(\d+)-of-(\d+)")
SHARD = re.compile(r"(\d+)\D*$")


def list_imagenet(root: Path, want_train: bool, parquet_memory: float) -> tuple[Listing, Listing | None, str]:
    """(validation, training or None, a sentence that says what was checked) of the ImageNet at root.

    Raises InputError where it is in none of the forms, a shard is missing, or the labels are not ImageNet's.
    """
    if (root / KAGGLE).is_dir():
        root = root / KAGGLE
    parts = ("val", "train") if want_train else ("val",)
    if _in_folders(root):
        listings = [_list_folders(root, part) for part in parts]
        for listing in listings[1:]:
            check_same_classes(listing, listings[0])
        checks = [check_folders(listing) for listing in listings]
    else:
        shards = _find_shards(root, parts)
        listed = [_list_shards(root, shards[part], parquet_memory) for part in parts]
        listings, checks = _with_same_classes(root, [listing for listing, _ in listed]), [said for _, said in listed]
    return listings[0], listings[1] if want_train else None, _sentence(parts, listings, checks)


def _in_folders(root: Path) -> bool:
    """Whether train/ or val/ holds class folders or image files, not shards."""
    folders = [root / part for part in ("train", "val") if (root / part).is_dir()]
    return any(visible_folders(folder) or not _shards_in(folder) for folder in folders)


def _list_folders(root: Path, part: str) -> Listing:
    flat = part == "val" and (root / part).is_dir() and not visible_folders(root / part)
    return list_flat_val(root) if flat else list_split(root, (part,))


def _find_shards(root: Path, parts: Sequence[str]) -> dict[str, list[str]]:
    """The shards of each part, below root: Parquet files where there are any, else tars."""
    folders = [folder for folder in ("", "data", *PARTS) if (root / folder).is_dir()]
    found = [(folder, name) for folder in folders for name in _shards_in(root / folder)]
    for suffix in (".parquet", ".tar"):
        shards: dict[str, list[str]] = {"train": [], "val": []}
        for folder, name in found:
            word = PART.search(name.lower())
            part = PARTS.get(folder) or (PARTS[word[1]] if word else None)
            if part and name.endswith(suffix):
                shards[part].append(f"{folder}/{name}" if folder else name)
        if any(shards.values()):
            for part in parts:
                _check_complete(root, part, shards[part])
            return shards
    raise InputError(
        f"{root} holds {some(visible_folders(root) + visible_files(root))}; wanted train/ and val/ with a folder for "
        "each class (n01440764, ...), Parquet files (train-00000-of-00294.parquet, ...) or uncompressed WebDataset "
        "tars (train-000000.tar, ...)"
    )


def _shards_in(folder: Path) -> list[str]:
    names = visible_files(folder)
    return [name for name in names if name.endswith((".parquet", ".tar")) and not ARCHIVE.fullmatch(name)]


def _check_complete(root: Path, part: str, shards: Sequence[str]) -> None:
    """Raises InputError where a shard is missing, as far as their numbers tell."""
    if not shards:
        raise InputError(f"{root} has no shards whose names say that they are {part}; wanted some, as for the others")
    counted = [SHARD_OF.search(name) for name in shards]
    if all(counted):
        have = {int(match[1]) for match in counted if match}
        wanted = set(range(max(int(match[2]) for match in counted if match)))
    else:
        have = {int(match[1]) for match in map(SHARD.search, shards) if match}
        wanted = set(range(min(1, *have), max(have) + 1)) if len(have) > 1 else have
    if missing := sorted(wanted - have):
        raise InputError(f"{root}: of the shards such as {shards[0]} number {some(missing)} is missing")


def _list_shards(root: Path, shards: Sequence[str], parquet_memory: float) -> tuple[Listing, str]:
    if shards[0].endswith(".parquet"):
        files, labels, names = index_parquet(root, shards, parquet_memory)
        labels, classes, said = check_labels(files, labels, names)
        return Listing(files, classes, labels), said
    tars, labels = index_tars(root, shards)
    labels, classes, said = check_labels(tars, labels, None)
    empty = np.flatnonzero(tars.members[:, 2] == 0)
    return Listing(tars, classes, labels, tuple(empty.tolist())), said


def _with_same_classes(root: Path, listings: Sequence[Listing]) -> list[Listing]:
    """WordNet ids for all where one part has them. Raises InputError where validation and training call a class
    differently."""
    ids = next((listing.classes for listing in listings if ID.fullmatch(listing.classes[0])), None)
    if ids is not None:
        return [replace(listing, classes=ids) for listing in listings]
    for label, names in enumerate(zip(*(listing.classes for listing in listings), strict=True)):
        if len(set(names)) > 1:
            raise InputError(f"{root}: label {label} is {names[0]} in validation and {names[1]} in training")
    return list(listings)


def _sentence(parts: Sequence[str], listings: Sequence[Listing], checks: Sequence[str]) -> str:
    counts = {part: len(listing) for part, listing in zip(parts, listings, strict=True)}
    words = {"train": "training", "val": "validation"}
    sizes = " and ".join(f"{count:,} {words[part]}" for part, count in counts.items())
    standard = " and ".join(f"{SIZES[part]:,}" for part in counts)
    differs = any(count != SIZES[part] for part, count in counts.items())
    said = " and ".join(dict.fromkeys(checks))
    return f"Labels: {said}; {sizes} images" + (f", where ILSVRC2012 has {standard}." if differs else ".")
