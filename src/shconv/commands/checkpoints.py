"""Checkpoints that a command is given: loaded, under a name, and checked against the images."""

from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, Self

from torch import nn

from shconv.data import ImageData
from shconv.errors import InputError
from shconv.pretrained import Config, load_network


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A network in eval mode on the CPU, with how it is built and all of its config.json."""

    path: Path
    model: nn.Module
    config: Config
    info: dict[str, Any]
    name: str  # the one given, or else the network's own

    @classmethod
    def load(cls, path: Path, name: str = "") -> Self:
        """Raises InputError as `load_network` does."""
        model, config, info = load_network(path)
        return cls(path, model, config, info, name or config.name)

    @property
    def seed(self) -> int:
        """Of its training. Raises InputError where its config.json, which may be anybody's, holds none."""
        seed = self.info.get("seed", 0)
        if type(seed) is not int or seed < 0:
            raise InputError(f"{self.path} has the seed {seed!r}; wanted an integer of at least 0")
        return seed

    @property
    def name_and_folder(self) -> str:
        """What tells it from another one of its name."""
        return f"{self.name}-{folder_of(self.path).name}"

    def check_fits(self, data: ImageData) -> None:
        """Raises InputError where it is not for such images: other classes, or channels."""
        if self.config.num_classes != len(data.classes):
            raise InputError(f"{self.path} has {self.config.num_classes} classes, {data.name} has {len(data.classes)}")
        if self.config.in_channels != data.channels:
            raise InputError(
                f"{self.path} takes images of {self.config.in_channels} channels; those of {data.name} have "
                f"{data.channels}"
            )
        about = self.info.get("data")
        trained_on = about.get("classes", data.classes) if isinstance(about, dict) else data.classes
        for number, (there, here) in enumerate(zip_longest(trained_on, data.classes)):
            if there != here:
                raise InputError(
                    f"{self.path} calls class {number} {there!r}, {data.name} calls it {here!r}: wanted the same"
                )


def folder_of(path: Path) -> Path:
    """A checkpoint's folder, given itself or by its file of weights."""
    return (path.parent if path.suffix == ".safetensors" else path).resolve()
