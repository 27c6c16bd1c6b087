"""The ways to compute a filtered convolution, by name, the choice among them by shape and device, and what it computes.
Called inside the op, where torch.compile does not look: the first call may build the compiled kernels."""

from collections.abc import Sequence
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from shconv.errors import InputError
from shconv.ops import cpu, cuda, plain
from shconv.ops.geometry import Geometry, check_numbers, like, memory_format
from shconv.ops.modes import autocast_off


class Formulation(Protocol):
    """A way to compute the op: a module with these three functions."""

    def reasons_against(self, x: Tensor, weight: Tensor, geometry: Geometry) -> list[str]: ...

    def forward(self, x: Tensor, weight: Tensor, M: Tensor, geometry: Geometry) -> Tensor: ...

    def backward(
        self, dY: Tensor, x: Tensor, weight: Tensor, M: Tensor, geometry: Geometry, mask: tuple[bool, bool, bool]
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]: ...


FORMULATIONS: dict[str, Formulation] = {**cpu.FORMULATIONS, **plain.FORMULATIONS, **cuda.FORMULATIONS}


def find(name: str, x: Tensor, weight: Tensor, geometry: Geometry) -> Formulation:
    """The formulation of that name, or the one chosen for "auto". Raises InputError if it cannot serve the call."""
    if name == "auto":
        return FORMULATIONS[choose(x, weight, geometry, x.device)]
    if reasons := FORMULATIONS[name].reasons_against(x, weight, geometry):
        raise InputError(f"formulation {name!r} cannot serve this call: {'; '.join(reasons)}")
    return FORMULATIONS[name]


def choose(x: Tensor, weight: Tensor, geometry: Geometry, device: torch.device) -> str:
    """The name of the formulation expected to be the fastest on the device that can serve the call: kernels of our own
    wherever they can."""
    room = {"cpu": cpu, "cuda": cuda}.get(device.type)
    own = None if room is None else room.choose(x, weight, geometry)
    return own or plain.choose(x, weight, geometry)


def compute(x: Tensor, weight: Tensor, filter_map: Tensor, geometry: Geometry, formulation: str) -> Tensor:
    """Y in x's layout, by the formulation of that name or the one that "auto" chooses."""
    if x.numel() == 0:
        return output(x, weight, geometry)
    with autocast_off(x):
        found = find(formulation, x, weight, geometry)
        Y = found.forward(x, weight, filter_map, geometry)
    return Y.contiguous(memory_format=memory_format(x))


def gradients(
    dY: Tensor, x: Tensor, weight: Tensor, filter_map: Tensor, geometry: Geometry, formulation: str,
    mask: Sequence[bool], dtype: torch.dtype | None = None,
) -> tuple[Tensor | None, ...]:  # fmt: skip
    """Gradients of <dY, Y> by x, weight and filter_map, each only where mask asks for it. dtype: the weight's
    gradient's, if not weight's."""
    inputs, needs = (x, weight, filter_map), (mask[0], mask[1], mask[2])
    if x.numel() == 0:
        return tuple(torch.zeros_like(of) if needed else None for of, needed in zip(inputs, needs, strict=True))
    with autocast_off(x):
        by = find(formulation, x, weight, geometry)
        backward = partial(cuda.launches.backward, dtype=dtype) if by is cuda.launches else by.backward
        found = backward(dY, x, weight, filter_map, geometry, needs)
    dtypes = x.dtype, dtype or weight.dtype, filter_map.dtype
    every = zip(found, inputs, dtypes, strict=True)
    return tuple(None if each is None else like(each.to(kind), of) for each, of, kind in every)


def output(x: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
    """A tensor like Y, whose elements mean nothing."""
    check_numbers(geometry)
    size = geometry.output_size(x, weight)
    return x.new_empty(x.shape[0], weight.shape[0], *size).contiguous(memory_format=memory_format(x))
