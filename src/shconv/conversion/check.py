"""Is a converted network really what it should be: some code reads a convolution's weight past its forward, and then
knows nothing of filter maps."""

import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from shconv.errors import InputError
from shconv.eval_mode import eval_mode


class Check(NamedTuple):
    """Inputs and what the network made of them before, in eval mode."""

    inputs: tuple[Any, ...]
    outputs: list[Tensor]

    @classmethod
    def of(cls, model: nn.Module, inputs: Tensor | tuple[Any, ...]) -> "Check":
        inputs = inputs if isinstance(inputs, tuple) else (inputs,)
        with eval_mode(model), torch.no_grad():
            return cls(inputs, list(_tensors(model(*inputs))))


def refuse_a_difference(before: Check, model: nn.Module, layers: Mapping[str, nn.Module], identity: bool) -> None:
    """Run the converted network on the check's inputs.

    Raises:
        InputError: some weight of the layers is read though its layer does not run; identity, and the outputs differ by
            more than rounding.
    """
    ran: set[nn.Module] = set()
    with ExitStack() as hooks, eval_mode(model), torch.enable_grad():
        for layer in layers.values():
            hooks.enter_context(layer.register_forward_hook(lambda layer, *_: ran.add(layer)))
        outputs = list(_tensors(model(*before.inputs)))
    if passed := _read_past_their_layers(outputs, {n: layer for n, layer in layers.items() if layer not in ran}):
        raise InputError(
            f"{', '.join(passed)}: other code reads the weight of this convolution directly, so it cannot be "
            "converted; leave it out of where="
        )
    if identity and (worst := max(map(_difference, before.outputs, outputs), default=0.0)) > 1:
        raise InputError(
            f"the converted network differs from the original by {worst:.1e} times what rounding explains: it uses "
            "its convolutions without calling them"
        )


def _read_past_their_layers(outputs: list[Tensor], silent: Mapping[str, nn.Module]) -> list[str]:
    weights = {
        name: next((p for p in layer.parameters(recurse=False) if p.requires_grad), None)
        for name, layer in silent.items()
    }
    weights = {name: weight for name, weight in weights.items() if weight is not None}
    total = sum((Y.sum() for Y in outputs if Y.requires_grad), torch.zeros(()))
    if not weights or not total.requires_grad:
        return []
    gradients = torch.autograd.grad(total, list(weights.values()), allow_unused=True)  # type: ignore[arg-type]
    return [name for name, gradient in zip(weights, gradients, strict=True) if gradient is not None]


def _difference(expected: Tensor, found: Tensor) -> float:
    """The largest difference as a multiple of what rounding in a deep network may do."""
    if not expected.numel() or not expected.isfinite().all():
        return 0.0
    allowed = float(expected.abs().max()) * math.sqrt(torch.finfo(expected.dtype).eps)
    return float((expected - found.detach()).abs().max()) / max(allowed, torch.finfo(expected.dtype).tiny)


def _tensors(output: Any) -> Iterator[Tensor]:
    """The floating-point tensors of a network's output, however deep they lie."""
    if isinstance(output, Tensor):
        if output.is_floating_point():
            yield output
    elif isinstance(output, Mapping):
        yield from _tensors(list(output.values()))
    elif isinstance(output, tuple | list):
        for each in output:
            yield from _tensors(each)
