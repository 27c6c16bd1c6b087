"""ImageNet's validation images as they come from image-net.org, in one folder, and who says what they show:
torchvision's meta.bin, Kaggle's LOC_val_solution.csv or the development kit of ILSVRC2012."""

import csv
import re
from pathlib import Path

import numpy as np
import torch

from shconv.data.listing import Listing, some, visible_files
from shconv.data.sources import FolderFiles, Names, cannot_read
from shconv.errors import InputError

TORCHVISION, KAGGLE = "meta.bin", "LOC_val_solution.csv"
DEVKIT = "ILSVRC2012_devkit_t12/data"
NUMBER = re.compile(r"ILSVRC2012_val_(\d{8})\.JPEG")


def list_flat_val(root: Path) -> Listing:
    """root/val with images in it and no class folders. Raises InputError where nothing beside it says their classes."""
    folder = root / "val"
    ids = _ground_truth(root)
    classes = tuple(sorted(set(ids.values())))
    place = {wordnet_id: i for i, wordnet_id in enumerate(classes)}
    names = visible_files(folder)
    numbers = [NUMBER.fullmatch(name) for name in names]
    strange = [name for name, match in zip(names, numbers, strict=True) if not match or int(match[1]) not in ids]
    if strange or not names:
        wanted = f"ILSVRC2012_val_00000001.JPEG and so on, up to {max(ids):08d}"
        raise InputError(f"{folder} holds {some(strange)}; wanted {wanted}, or one folder a class")
    labels = np.array([place[ids[int(match[1])]] for match in numbers if match], np.int64)
    missing = [classes[i] for i in sorted(set(range(len(classes))) - set(labels.tolist()))]
    if missing:
        raise InputError(f"{folder} has no image of the class {some(missing)}; wanted all of ImageNet's")
    empty = tuple(i for i, name in enumerate(names) if (folder / name).stat().st_size == 0)
    return Listing(FolderFiles(folder, Names(names)), classes, labels, empty)


def _ground_truth(root: Path) -> dict[int, str]:
    """Number of a validation image -> WordNet id of what it shows."""
    readers = {
        root / TORCHVISION: _from_torchvision,
        **{folder / KAGGLE: _from_kaggle for folder in (root, *root.resolve().parents[:3])},
        root / DEVKIT: _from_devkit,
    }
    for path, read in readers.items():
        if path.exists():
            try:
                if ids := read(path):
                    return ids
                raise InputError(f"{path} holds no class of any image; wanted those of ImageNet's validation images")
            except InputError:
                raise
            except Exception as error:  # unpickling and parsing raise nearly anything
                raise cannot_read(path, error) from error
    raise InputError(
        f"{root / 'val'} holds files, no class folders, and nothing says their classes; wanted beside it {TORCHVISION} "
        f"(of torchvision.datasets.ImageNet), {KAGGLE} or {DEVKIT}, or the files in one folder a class"
    )


def _from_torchvision(path: Path) -> dict[int, str]:
    _, ids = torch.load(path, weights_only=True)
    return dict(enumerate(map(str, ids), 1))


def _from_kaggle(path: Path) -> dict[int, str]:
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {int(row["ImageId"].removeprefix("ILSVRC2012_val_")): row["PredictionString"].split()[0] for row in rows}


def _from_devkit(path: Path) -> dict[int, str]:
    from scipy.io import loadmat  # type: ignore[import-untyped]  # few need it

    synsets = loadmat(path / "meta.mat", squeeze_me=True)["synsets"]
    id_of = {int(synset["ILSVRC2012_ID"]): str(synset["WNID"]) for synset in synsets}
    numbers = (path / "ILSVRC2012_validation_ground_truth.txt").read_text().split()
    return {i: id_of[int(number)] for i, number in enumerate(numbers, 1)}
