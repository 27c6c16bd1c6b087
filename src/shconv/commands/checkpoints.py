"""Networks that a command is given, as folders or as functions of a user's: loaded, named, checked against images."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, Self

import torch
from torch import nn

from shconv.commands.own_objects import is_object, own_result
from shconv.data import ImageData
from shconv.errors import InputError
from shconv.experiments.network import Network
from shconv.experiments.own_attacks import check_fit
from shconv.models import all_models
from shconv.pretrained import Config, load_network
from shconv.training.checkpoint import CONFIG, MODEL
from shconv.training.state import STATE


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A network in eval mode on the CPU, with how it is built and all of its config.json."""

    path: Path
    model: nn.Module
    config: Config | None  # None for what a user's function returned
    info: dict[str, Any]
    name: str  # the one given, or else the network's own

    @classmethod
    def load(cls, path: Path, name: str = "") -> Self:
        """Raises InputError as `load_network` does, and where a function returns no network."""
        if is_own(path):
            return cls(path, own_network("network", str(path)), None, {}, name or str(path).rpartition(":")[2])
        if str(path) in all_models() and not path.exists():
            raise InputError(f"{path} is a network's name; wanted: a folder that shconv train --model {path} wrote")
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
        return self.name if is_own(self.path) else f"{self.name}-{folder_of(self.path).name}"

    def check_fits(self, data: ImageData, say: Callable[[str], object], own_data: bool = False) -> None:
        """Raises InputError where it is not for such images: other classes, or channels.

        own_data: the images are a user's, whose classes have no names to agree in.
        """
        if self.config is None or own_data:
            for warning in check_fit([Network(self.name, 0, self.model)], data, torch.device("cpu")):
                say(warning)
            return
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


def own_network(option: str, text: str) -> nn.Module:
    """What the function at module:function returns, in eval mode. Raises InputError where it returns no module."""
    network = own_result(option, text)
    if not isinstance(network, nn.Module):
        raise InputError(f"{option} {text}: got {type(network).__name__}; want a torch.nn.Module")
    return network.eval()


def is_checkpoint(path: Path) -> bool:
    """Is it a network, or what Checkpoint.load says more of than that it is none?"""
    held = folder_of(path)
    return is_own(path) or str(path) in all_models() or any((held / name).exists() for name in (CONFIG, MODEL, STATE))


def is_own(path: Path) -> bool:
    """Is it a user's function, module:function, and no folder?"""
    return is_object(str(path)) and not path.exists()


def folder_of(path: Path) -> Path:
    """A checkpoint's folder, given itself or by its file of weights."""
    return (path.parent if path.suffix == ".safetensors" else path).resolve()


def as_file(path: Path) -> str:
    """A network's name as that of a folder: the checkpoint's, or the function's."""
    return str(path).rpartition(":")[2] if is_own(path) else folder_of(path).name
