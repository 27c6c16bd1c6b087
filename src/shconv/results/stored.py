"""What a run folder holds beside its rows: arrays that are read when asked for, the images' files and labels."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shconv.experiments.run_folder import Row, file_name, outcomes_in, whole


class Stored(Mapping[str, Mapping[str, NDArray[Any]]]):
    """The arrays of a folder's rows, by their ids, read when asked for."""

    def __init__(self, folder: Path, ids: Sequence[str]) -> None:
        self.folder, self.ids = folder, ids

    def __getitem__(self, id: str) -> Mapping[str, NDArray[Any]]:
        return outcomes_in(self.folder, id)

    def __iter__(self) -> Iterator[str]:
        return iter(self.ids)

    def __len__(self) -> int:
        return len(self.ids)


def stored_images(path: Path) -> tuple[list[int], list[str]]:
    """Label and file of every test image. Raises InputError where the file is damaged."""
    if not path.is_file():
        return [], []
    with whole(path), path.open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
        return [int(line["label"]) for line in lines], [line["file"] for line in lines]


def save_pngs(folder: Path, rows: Sequence[Row], outcomes: Mapping[str, Mapping[str, NDArray[Any]]]) -> None:
    """Adversarial images (C, H, W) in [0, 1], where rows kept them, as ROW/INDEX.png."""
    from PIL import Image

    for row in rows:
        found = outcomes[row["id"]]
        for place, image in zip(found["index"], found.get("adversarial", ()), strict=False):
            where = folder / file_name(row["id"])
            where.mkdir(parents=True, exist_ok=True)
            levels = (255 * image).round().astype(np.uint8).transpose(1, 2, 0)
            Image.fromarray(levels[:, :, 0] if levels.shape[2] == 1 else levels).save(where / f"{place}.png")
