"""What the tests of defences share: linear networks whose gradients are known, slim ones, a step, a defence of each
kind."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

import shconv
from shconv.models.detector import DetectorNetwork
from shconv.models.noise import NoiseNetwork
from shconv.training import Defence, ModelConfig, create_defence
from shconv.training.defences import Detector, Distillation, Ensemble, Source, Step
from shconv.training.defences.base import step_word

EPS = 0.05
CLASSES = ("red", "green", "blue")


def step(number: int = 0, **settings: Any) -> Step:
    return Step(torch.Generator().manual_seed(step_word(0, 0, number)), **settings)


def images(n: int = 6, low: float = 0.0, high: float = 1.0, side: int = 8) -> Tensor:
    return low + (high - low) * torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(1))


def linear(classes: int = 2, seed: int = 0, scale: float = 1.0) -> nn.Sequential:
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, classes))
    network[1].weight.data *= scale
    return network


def away_from(network: nn.Sequential, y: Tensor) -> Tensor:
    """Two classes: the sign, pixel by pixel, that raises the other class."""
    W = network[1].weight.data
    return (W[1 - y] - W[y]).sign().view(-1, 3, 8, 8)


def slim(name: str, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return shconv.create_model(name, num_classes=3, stem="small", width=4).train()


def source(network: nn.Module, classes: Sequence[str] = CLASSES, in_channels: int = 3) -> Source:
    config = ModelConfig("plain10", len(classes), in_channels)
    return Source(network.eval().requires_grad_(False), config, tuple(classes), 0, "")


def taught(name: str, model: str) -> tuple[nn.Module, Defence]:
    """A network in train mode and its defence, ready for a step."""
    if name == "noise-model":
        return NoiseNetwork(slim(model)).train(), one_of(name)
    if name != "detector":
        return slim(model), one_of(name)
    defence = Detector(EPS, steps=2, sources=(source(slim(model, seed=5)),))
    network = DetectorNetwork(slim(model))
    defence.begin(network)
    return network.train(), defence


def one_of(name: str) -> Defence:
    if name == "ensemble":
        return Ensemble((source(slim("plain10", seed=5)), source(slim("plain10_shc", seed=6))), EPS)
    if name == "distillation":
        return Distillation(sources=(source(slim("plain10", seed=5)),))
    return create_defence(name)


def trained_on(network: nn.Module, defence: Defence, x: Tensor, y: Tensor, lent: Step) -> tuple[Any, Tensor]:
    """What the defence returns, and the batch that its loss comes from."""
    seen: list[Tensor] = []
    hook = network.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach().clone()))
    try:
        return defence.loss(network, x, y, lent), seen[-1]
    finally:
        hook.remove()
