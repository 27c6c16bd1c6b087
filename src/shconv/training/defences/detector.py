"""A detector of adversarial images: Metzen et al. 2017. The classifier is finished and stays as it is; a small network
on one of its layers learns to tell attacked images from clean ones."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shconv.attacks.checks import check_choice, check_count
from shconv.attacks.objective import log_odds
from shconv.data import ImageSplit, evaluation_batches
from shconv.errors import InputError
from shconv.metrics import alarm_threshold
from shconv.models.detector import DetectorNetwork
from shconv.numbers import read_budgets, read_numbers
from shconv.training.checkpoint import ModelConfig
from shconv.training.defences.base import STREAM, Defence, First, Plain, Step, Trained, climb
from shconv.training.defences.source import Source

Adversary = Literal["static", "dynamic"]
MEASURED = 1024  # training images on which the threshold is set
BATCH = 128


@dataclass(frozen=True, eq=False)
class Detector(Defence):
    """The binary cross-entropy of the detector's logit, half of the images clean and half attacked.

    Attacked images take `steps` steps of step_size * eps from the clean one within eps. A static adversary climbs the
    classifier's cross-entropy; a dynamic one steps by (1 - s) times that sign plus s times the sign that lowers the
    detector's logit, s drawn uniformly for each image. The classifier is the one source, or is trained first, plainly;
    `layer` of it is what the detector sees. The threshold is set after every epoch, so that it rejects 5 % of clean
    training images. Who knows of a detector can get past it: attack both with `undetected_pgd` (Carlini and Wagner
    2017). Raises InputError for values out of range, and for more than one source.
    """

    name = "detector"
    watched = False  # the classifier does not change
    eps: float = 8 / 255
    step_size: float = 0.25
    steps: int = 10
    adversary: Adversary = "dynamic"
    layer: str = "layer2"
    sources: tuple[Source, ...] = ()

    def __post_init__(self) -> None:
        read_budgets(self, "eps", above=True)
        read_numbers(self, "step_size", above=True)
        check_count("steps", self.steps, 1)
        check_choice("adversary", self.adversary, Adversary)
        if len(self.sources) > 1:
            raise InputError(f"defence detector guards one classifier: got {len(self.sources)} sources")

    def first(self, seed: int) -> Mapping[str, First]:
        return {} if self.sources else {"classifier": First(Plain(), seed)}

    def around(self, config: ModelConfig) -> ModelConfig:
        return replace(config, wrapper=f"detector:{self.layer}")

    def begin(self, network: nn.Module) -> None:
        assert isinstance(network, DetectorNetwork)
        network.network.load_state_dict(self.sources[0].network.state_dict())
        network.network.requires_grad_(False)

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, step: Step) -> Trained:
        attacked = self._attacked(model, x, y, step)
        outputs = step.logits(model, torch.cat([x, attacked]))  # (2 B, K + 1)
        score = outputs[:, -1]
        is_attacked = torch.arange(len(score), device=x.device) >= len(x)
        loss = F.binary_cross_entropy_with_logits(score, is_attacked.to(score.dtype))
        clean, fooled = outputs[:, :-1].chunk(2)
        return Trained(loss, clean, _right_where_rejected(fooled, score[len(x) :], y))

    def _attacked(self, model: nn.Module, x: Tensor, y: Tensor, step: Step) -> Tensor:
        share = torch.zeros(len(x), 1, 1, 1, device=x.device)
        if self.adversary == "dynamic":
            share = step.uniform(x, 0, 1)[:, :1, :1, :1]

        def uphill(at: Tensor) -> Tensor:
            at = at.detach().requires_grad_()
            outputs = step.logits(model, at)
            odds, score = log_odds(outputs[:, :-1], y).sum(), outputs[:, -1].sum()
            fooling = -torch.autograd.grad(odds, at, retain_graph=True)[0].sign()
            if self.adversary == "static":
                return fooling
            return (1 - share) * fooling - share * torch.autograd.grad(score, at)[0].sign()

        return climb(model, x, x, uphill, eps=self.eps, step_size=self.step_size, steps=self.steps)

    def settle(self, network: nn.Module, split: ImageSplit, seed: int) -> None:
        assert isinstance(network, DetectorNetwork)
        order = np.random.default_rng(np.random.SeedSequence([seed, STREAM + 4])).permutation(len(split))
        scores, device = [], network.threshold.device
        with torch.no_grad():
            for batch in evaluation_batches(split, order[:MEASURED].tolist(), BATCH):
                scores.append(network.score(batch.images.to(device).float().div(255)))
        network.threshold.fill_(alarm_threshold(torch.cat(scores)))

    def check(self, config: ModelConfig, classes: Sequence[str]) -> None:
        super().check(config, classes)
        for source in self.sources:
            if replace(config, wrapper=None) != source.config:
                asked, got = (f"{each.name} of width {each.width}" for each in (config, source.config))
                raise InputError(f"defence detector guards the network that is asked for, {asked}; got {got}")

    def record(self) -> dict[str, Any]:
        named = ("eps", "step_size", "steps", "adversary", "layer")
        classifier = self.sources[0].record() if self.sources else "trained first"
        return {"name": self.name, **{name: getattr(self, name) for name in named}, "classifier": classifier}


def _right_where_rejected(logits: Tensor, score: Tensor, y: Tensor) -> Tensor:
    """Logits (B, K) that say y where an image is more likely attacked than not."""
    return torch.where(F.one_hot(y, logits.shape[1]).bool() & (score > 0)[:, None], torch.inf, logits)
