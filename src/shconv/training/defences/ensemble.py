"""Ensemble adversarial training: Tramer et al. 2017. Many of the examples come from other, static networks, so that the
trained one gains nothing by giving gradients that point nowhere."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from shconv.errors import InputError
from shconv.numbers import read_budgets
from shconv.training.checkpoint import ModelConfig, load_checkpoint
from shconv.training.defences.base import Defence, Step, Trained, ascent, crafting


@dataclass(frozen=True, eq=False)
class Source:
    """A finished network that examples are taken from, in eval mode and never trained."""

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


@dataclass(frozen=True, eq=False)
class Ensemble(Defence):
    """Trains on clean and attacked images, half and half: one step of eps whose gradient is that of the network itself
    or of a source, drawn anew for every batch with even odds.

    As in the authors' code the step climbs the cross-entropy of the class that the attacked network predicts: from the
    true one an image's label could be read off its perturbation. Both halves pass the network as one batch.
    eps is a share of 1. Raises InputError for one out of range, and without sources.
    """

    name = "ensemble"
    sources: tuple[Source, ...]
    eps: float = 8 / 255

    def __post_init__(self) -> None:
        read_budgets(self, "eps", above=True)
        if not self.sources:
            raise InputError("defence ensemble takes gradients from trained networks: give at least one as its source")

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, step: Step) -> Trained:
        drawn = int(torch.randint(len(self.sources) + 1, (), generator=step.generator, device=x.device))
        network = model if drawn == 0 else self.sources[drawn - 1].network.to(x.device)
        attacked = self._attacked(network, x, step)
        logits = step.logits(model, torch.cat([x, attacked]))  # (2 B, K)
        return Trained(step.cross_entropy(logits, y.repeat(2)), *logits.chunk(2))

    def _attacked(self, network: nn.Module, x: Tensor, step: Step) -> Tensor:
        with crafting(network):
            with torch.no_grad():
                predicted = step.logits(network, x).argmax(1)
            return (x + self.eps * ascent(network, x, predicted, step)).clamp(0, 1)

    def check(self, config: ModelConfig, classes: Sequence[str]) -> None:
        super().check(config, classes)
        for place, source in enumerate(self.sources):
            what = f"source {place + 1} of the defence, a {source.config.name} of seed {source.seed},"
            if source.config.in_channels != config.in_channels:
                channels = f"{source.config.in_channels} channels, not {config.in_channels}"
                raise InputError(f"{what} takes images of {channels}")
            if source.classes != tuple(classes):
                raise InputError(f"{what} was trained on {_few(source.classes)}; wanted: {_few(classes)}")

    def record(self) -> dict[str, Any]:
        sources = [{"model": each.config.name, "seed": each.seed, "weights": each.weights} for each in self.sources]
        return {"name": self.name, "eps": self.eps, "sources": sources}


def _few(classes: Sequence[str]) -> str:
    return f"{len(classes)} classes ({', '.join(classes[:3])}{', ...' if len(classes) > 3 else ''})"
