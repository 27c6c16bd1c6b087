"""What lies in folders: the class folders and files of a split, in sorted order, and whether they can be used together.
Nothing is decoded here."""

import os
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from unicodedata import normalize

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from shconv.data.hidden import is_hidden
from shconv.data.sources import FolderFiles, ImageFiles, Names, cannot_read
from shconv.errors import InputError


@dataclass(frozen=True, eq=False)
class Listing:
    """The images of one split with the place of the class of each."""

    files: ImageFiles
    classes: tuple[str, ...]
    labels: NDArray[np.int64]  # (N,)
    doubtful: tuple[int, ...] = ()  # images to look at before all others: empty files, unknown suffixes

    def __len__(self) -> int:
        return len(self.labels)

    def without(self, broken: Collection[int]) -> "Listing":
        """The same without the images at these places. Raises InputError if a class has none left."""
        kept = [i for i in range(len(self)) if i not in broken]
        labels = self.labels[kept]
        for label in sorted(set(range(len(self.classes))) - set(labels.tolist())):
            name = self.files.folder / self.classes[label]
            raise InputError(f"{name}: none of its files can be read as an image")
        return Listing(self.files.take(kept), self.classes, labels)


def list_split(root: Path, choices: tuple[str, ...]) -> Listing:
    """The files of the first of `choices` that is a folder below root: one folder a class, files at any depth in it.

    Hidden files and folders, and those that systems leave behind, are passed over.
    Raises InputError if there is no such folder, no class or an empty one.
    """
    folder = next((root / choice for choice in choices if (root / choice).is_dir()), None)
    if folder is None:
        wanted = " or ".join(f"{choice}/" for choice in choices)
        raise InputError(f"{root} holds {some(visible_folders(root))}; wanted {wanted} with one folder a class in it")
    classes = tuple(visible_folders(folder))
    if not classes:
        raise InputError(f"{folder} holds no class folders; wanted one folder a class with its images")
    names: list[str] = []
    labels: list[int] = []
    doubtful: list[int] = []
    for label, name in enumerate(classes):
        found = sorted(_files_below(folder, name))
        if not found:
            raise InputError(f"{folder / name}: the class is empty; wanted at least one image")
        doubtful += [len(names) + i for i, (file, size) in enumerate(found) if size == 0 or not _known_suffix(file)]
        names += [file for file, _ in found]
        labels += [label] * len(found)
    return Listing(FolderFiles(folder, Names(names)), classes, np.array(labels, np.int64), tuple(doubtful))


def check_same_classes(train: Listing, test: Listing) -> None:
    """Raises InputError where the classes of train and test differ, naming the first that only one has."""
    only_train = sorted(set(train.classes) - set(test.classes))
    only_test = sorted(set(test.classes) - set(train.classes))
    if only_train or only_test:
        alike = {normalize("NFC", name) for name in only_train} & {normalize("NFC", name) for name in only_test}
        raise InputError(
            f"the classes of {train.files.folder} and {test.files.folder} differ; only in {train.files.folder.name}/: "
            f"{some(only_train)}; only in {test.files.folder.name}/: {some(only_test)}"
            + ("; some look alike, but their accents are encoded in two ways (NFC and NFD)" if alike else "")
        )


def visible_folders(folder: Path) -> list[str]:
    """The names of the folders in it, sorted."""
    return sorted(entry.name for entry in _visible(folder) if _holds(entry.is_dir))


def visible_files(folder: Path) -> list[str]:
    """The names of the files in it, sorted."""
    return sorted(entry.name for entry in _visible(folder) if _holds(entry.is_file))


def some(names: Collection[object]) -> str:
    """The first three of them, and how many there are."""
    first = ", ".join(map(str, list(names)[:3]))
    return f"{first}, ... ({len(names)})" if len(names) > 3 else first or "none"


def _files_below(folder: Path, name: str, above: Sequence[str] = ()) -> Iterator[tuple[str, int]]:
    """(path below folder, bytes) of the files in folder/name at any depth. Links are followed, but not in circles; one
    that leads nowhere counts as an empty file."""
    here = os.path.realpath(folder / name)
    if here in above:
        raise InputError(f"{folder / name}: this link leads back to a folder that it is in")
    for entry in _visible(folder / name):
        below = f"{name}/{entry.name}"
        if _holds(entry.is_dir):
            yield from _files_below(folder, below, (*above, here))
        else:
            yield below, entry.stat().st_size if _holds(entry.is_file) else 0


def _visible(folder: Path) -> "list[os.DirEntry[str]]":
    """Raises InputError for a folder that cannot be read."""
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not is_hidden(entry.name)]
    except OSError as error:
        raise cannot_read(folder, error) from error


def _holds(test: Callable[[], bool]) -> bool:
    """Of an entry; nothing holds of a link that leads to itself."""
    try:
        return test()
    except OSError:
        return False


def _known_suffix(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in Image.registered_extensions()
