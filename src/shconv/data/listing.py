"""What lies where: the class folders and files of a split, in sorted order, and whether they can be used together.
Nothing is decoded here."""

import os
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from shconv.errors import InputError

SYSTEM_FILES = {"Thumbs.db", "desktop.ini"}  # hidden where they come from, though no dot says so
IMAGENET_CLASSES = 1000
WNID = re.compile(r"n\d{8}")


@dataclass(frozen=True)
class Listing:
    """The files of one split: names below folder, grouped by class, each with the place of its class."""

    folder: Path
    classes: tuple[str, ...]
    names: list[str]
    labels: list[int]

    def __len__(self) -> int:
        return len(self.names)

    def paths(self) -> list[Path]:
        return [self.folder / name for name in self.names]

    def without(self, broken: Collection[int]) -> "Listing":
        """The same without the files at these places. Raises InputError if a class has none left."""
        kept = [i for i in range(len(self)) if i not in broken]
        labels = [self.labels[i] for i in kept]
        for label in sorted(set(range(len(self.classes))) - set(labels)):
            raise InputError(f"{self.folder / self.classes[label]}: none of its files can be read as an image")
        return Listing(self.folder, self.classes, [self.names[i] for i in kept], labels)


def list_split(root: Path, choices: tuple[str, ...]) -> Listing:
    """The files of the first of `choices` that is a folder below root: one folder a class, files at any depth in it.

    Hidden files and folders are passed over. Raises InputError if there is no such folder, no class or an empty one.
    """
    folder = next((root / choice for choice in choices if (root / choice).is_dir()), None)
    if folder is None:
        wanted = " or ".join(f"{choice}/" for choice in choices)
        raise InputError(f"{root} holds {_some(_visible_folders(root))}; wanted {wanted} with one folder a class in it")
    classes = tuple(_visible_folders(folder))
    if not classes:
        raise InputError(f"{folder} holds no class folders; wanted one folder a class with its images")
    names: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        files = _files_below(folder, name)
        if not files:
            raise InputError(f"{folder / name}: the class is empty; wanted at least one image")
        names += files
        labels += [label] * len(files)
    return Listing(folder, classes, names, labels)


def check_same_classes(train: Listing, test: Listing) -> None:
    """Raises InputError where the class folders of train and test differ."""
    only_train = sorted(set(train.classes) - set(test.classes))
    only_test = sorted(set(test.classes) - set(train.classes))
    if only_train or only_test:
        raise InputError(
            f"the classes of {train.folder} and {test.folder} differ; only in {train.folder.name}/: "
            f"{_some(only_train)}; only in {test.folder.name}/: {_some(only_test)}"
        )


def check_imagenet(listing: Listing) -> None:
    """Raises InputError unless the classes are 1000 WordNet ids; sorted, they are ImageNet's labels 0 to 999."""
    ids = [name for name in listing.classes if WNID.fullmatch(name)]
    if len(ids) != IMAGENET_CLASSES or len(listing.classes) != IMAGENET_CLASSES:
        raise InputError(
            f"{listing.folder} holds {len(listing.classes)} class folders ({_some(listing.classes)}), {len(ids)} of "
            f"them named as n01440764 is; ImageNet wants {IMAGENET_CLASSES} such. For other classes: folder:PATH"
        )


def _visible_folders(folder: Path) -> list[str]:
    return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))


def _files_below(folder: Path, name: str) -> list[str]:
    files: list[str] = []
    for parent, folders, here in os.walk(folder / name, followlinks=True):
        folders[:] = [entry for entry in folders if not entry.startswith(".")]
        below = Path(parent).relative_to(folder)
        files += [(below / file).as_posix() for file in here if not file.startswith(".") and file not in SYSTEM_FILES]
    return sorted(files)


def _some(names: Collection[str]) -> str:
    first = ", ".join(list(names)[:3])
    return f"{first}, ... ({len(names)})" if len(names) > 3 else first or "none"
