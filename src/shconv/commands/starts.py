"""What a fine-tuning starts from: a network of timm or torchvision, a file of weights, or a checkpoint of ours."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from shconv.data import ImageData
from shconv.errors import InputError
from shconv.folders import what_is_at
from shconv.models.normalize import Normalization
from shconv.pretrained import ConvertedConfig
from shconv.pretrained.converted import LIBRARIES, create_vanilla, library_and_name
from shconv.pretrained.folder import CONVERTED, Config
from shconv.pretrained.own import network_of, shc_of
from shconv.pretrained.state_file import read_weights
from shconv.pretrained.weights import for_classes, imagenet_rows, network_with
from shconv.training.checkpoint import load_info


@dataclass(frozen=True)
class Start:
    """The options --from, --arch, --where and --normalize."""

    source: str
    arch: str | None
    where: tuple[str, ...]
    normalize: str

    def check(self) -> None:
        """Raises InputError for options that do not go together, and where there is no such file or network."""
        if self.is_ours:
            own = {"arch": None, "where": ("3",), "normalize": "auto"}
            if other := [name for name, usual in own.items() if getattr(self, name) != usual]:
                raise InputError(
                    f"{self.source} is a checkpoint of shconv: leave out --{other[0]}, the checkpoint says it"
                )
            return
        ConvertedConfig(self.network, 1, self.kinds)
        if not self.from_library and not Path(self.source).is_file():
            wanted = "wanted: one, a checkpoint folder, or timm:NAME or torchvision:NAME"
            raise InputError(f"there is no file {self.source}; {wanted}")

    @property
    def beside(self) -> dict[str, Any]:
        """The config.json beside a file of weights, where the file is a checkpoint's of ours."""
        return {} if self.from_library else load_info(self._place) or {}

    @property
    def _place(self) -> Path:
        """The folder that the source is or lies in."""
        place = Path(self.source)
        return place if place.is_dir() else place.parent

    @property
    def is_ours(self) -> bool:
        """A checkpoint folder, or its file of weights where no --arch says that it is another network's."""
        place = Path(self.source)
        return not self.from_library and bool(
            place.is_dir() or (self.arch is None and {"model", CONVERTED} & self.beside.keys())
        )

    @property
    def from_library(self) -> bool:
        return self.source.startswith(tuple(f"{library}:" for library in LIBRARIES))

    @property
    def network(self) -> str:
        """timm:NAME or torchvision:NAME. Raises InputError where it is not said, or said twice."""
        if self.from_library:
            if self.arch is not None:
                raise InputError(f"--arch is for a file of weights; {self.source} names its network")
            library_and_name(self.source)
            return self.source
        if self.arch is None and Path(self.source).is_file():
            raise InputError(f"--from {self.source} is a file: its network is wanted too, --arch timm:NAME, say")
        if self.arch is None:
            wanted = f"wanted: timm:NAME or torchvision:NAME, such as timm:{Path(self.source).name}"
            raise InputError(f"--from {self.source} {what_is_at(Path(self.source))}; {wanted}, a checkpoint or a file")
        return self.arch

    @property
    def kinds(self) -> tuple[int | str, ...]:
        """Which convolutions are converted: sizes of kernels, names, patterns."""
        return tuple(int(each) if each.isdecimal() else each for each in self.where)

    @property
    def usual_folder(self) -> Path:
        """Of the result."""
        name = self._place.resolve().name if self.is_ours else self.network
        return Path("runs/finetune") / re.sub(r"[^\w.-]+", "-", name)

    def networks(
        self, data: ImageData, images: Tensor, say: Callable[[str], None]
    ) -> tuple[nn.Module, nn.Module, Config]:
        """Before the conversion and after it, both from images in [0, 1] and in eval mode; how the second is built."""
        if self.is_ours:
            network, built = network_of(Path(self.source), len(data.classes), data.channels, say)
            return network, *shc_of(network, built, images)
        vanilla = self._vanilla(data, images, say)
        config = ConvertedConfig(self.network, len(data.classes), self.kinds, self._constants(vanilla))
        before = config.normalized(vanilla).eval()
        return before, config.normalized(config.converted(vanilla, check=before[0](images))).eval(), config

    def _vanilla(self, data: ImageData, images: Tensor, say: Callable[[str], None]) -> nn.Module:
        """The pretrained network for the data's classes."""
        if self.from_library:
            network, has_head = create_vanilla(self.source, pretrained=True), True
        else:
            filled = network_with(self.network, read_weights(Path(self.source)))
            network, has_head = filled.network, filled.has_head
            if filled.said:
                say(filled.said)
        with torch.no_grad():
            outputs = network.eval()(images[:1]).shape[1]
        rows = imagenet_rows(data.classes, outputs) if has_head else None
        if rows == list(range(outputs)) or (rows is None and outputs == len(data.classes)):
            return network
        kept = "keeps its rows of those" if rows is not None else "is new, with random weights"
        if not has_head:
            return for_classes(self.network, network, len(data.classes), None)
        say(f"{outputs} outputs, {data.name} has {len(data.classes)} classes: the head {kept}")
        return for_classes(self.network, network, len(data.classes), rows)

    def _constants(self, network: nn.Module) -> Normalization:
        if self.normalize != "auto":
            return None if self.normalize == "none" else "imagenet"
        known = getattr(network, "pretrained_cfg", None) or {}  # timm's
        return (tuple(known["mean"]), tuple(known["std"])) if "mean" in known and "std" in known else "imagenet"
