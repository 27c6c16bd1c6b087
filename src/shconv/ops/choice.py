"""The ways to compute a filtered convolution, by name, and the choice among them by shape and device."""

from typing import Protocol

import torch
from torch import Tensor

from shconv.errors import InputError
from shconv.ops import cpu, cuda, plain
from shconv.ops.geometry import Geometry


class Formulation(Protocol):
    """A way to compute the op: a module with these three functions."""

    def reasons_against(self, x: Tensor, weight: Tensor, geometry: Geometry) -> list[str]: ...

    def forward(self, x: Tensor, weight: Tensor, M: Tensor, geometry: Geometry) -> Tensor: ...

    def backward(
        self, dY: Tensor, x: Tensor, weight: Tensor, M: Tensor, geometry: Geometry, mask: tuple[bool, bool, bool]
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]: ...


FORMULATIONS: dict[str, Formulation] = {**cpu.FORMULATIONS, **plain.FORMULATIONS, **cuda.FORMULATIONS}


def find(name: str, x: Tensor, weight: Tensor, geometry: Geometry) -> Formulation:
    """The formulation of that name, or the one chosen for "auto". Raises InputError if it cannot serve the call.

    Called inside the op, where torch.compile does not look: the first call may build the compiled kernels.
    """
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
