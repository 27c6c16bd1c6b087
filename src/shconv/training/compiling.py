"""--compile: torch.compile, and CUDA graphs where a step allows them. A graph's results live until its next run: so one
forward and one backward pass a step are captured, and a step that makes more of them is compiled only."""

from typing import Any

import torch
from torch import nn

from shconv.capturing import off
from shconv.training.defences import Defence, Plain
from shconv.training.engine import Engine

CAPTURED = "compiled: forward and backward pass run from CUDA graphs; the loss, the optimiser and the data do not"


def reason_against_graphs(device: torch.device, engine: Engine, processes: int, defence: Defence) -> str:
    """Why the passes of a training step are not captured; "" where they are."""
    if device.type != "cuda":
        return f"the device is {device.type}"
    if not engine.graphs or off():
        return off() or "it was turned off"
    if engine.accumulation > 1:
        return "gradients of several micro-batches are summed"
    if processes > 1:
        return "gradients are averaged over processes"
    return "" if isinstance(defence, Plain) else f"the defence {defence.name} makes several passes a step"


def compiled(network: nn.Module, reason: str) -> nn.Module:
    """The network through torch.compile, its passes captured where there is no reason against it."""
    options: dict[str, Any] = {} if reason else {"mode": "reduce-overhead"}
    model: nn.Module = torch.compile(network, **options)  # type: ignore[assignment]
    return model


def said(reason: str) -> str:
    """What a training says of it."""
    return f"compiled, without CUDA graphs: {reason}" if reason else CAPTURED
