"""Finished networks that a defence learns from: other networks' gradients, a teacher, a classifier to be guarded."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import nn

from shconv.errors import InputError
from shconv.training.checkpoint import ModelConfig, load_checkpoint


@dataclass(frozen=True, eq=False)
class Source:
    """A finished network, in eval mode and never trained."""

    network: nn.Module
    config: ModelConfig
    classes: tuple[str, ...]
    seed: int
    weights: str  # SHA-256 of its tensors: a checkpoint may move, and stays the same

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """From a checkpoint folder. Raises InputError where there is no whole one."""
        network, config, info = load_checkpoint(path)
        digest = hashlib.sha256()
        for tensor in network.state_dict().values():
            digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy())
        classes = tuple(info.get("data", {}).get("classes", ()))
        return cls(network.requires_grad_(False), config, classes, info.get("seed", 0), digest.hexdigest())

    def check(self, place: int, config: ModelConfig, classes: Sequence[str]) -> None:
        """Raises InputError where the source at this place (from 0) is for other images than a network of `config`."""
        what = f"source {place + 1} of the defence, a {self.config.name} of seed {self.seed},"
        if self.config.in_channels != config.in_channels:
            raise InputError(f"{what} takes images of {self.config.in_channels} channels, not {config.in_channels}")
        if self.classes != tuple(classes):
            raise InputError(f"{what} was trained on {_few(self.classes)}; wanted: {_few(classes)}")

    def record(self) -> dict[str, Any]:
        """What a checkpoint keeps of it."""
        return {"model": self.config.name, "seed": self.seed, "weights": self.weights}


def _few(classes: Sequence[str]) -> str:
    return f"{len(classes)} classes ({', '.join(classes[:3])}{', ...' if len(classes) > 3 else ''})"
