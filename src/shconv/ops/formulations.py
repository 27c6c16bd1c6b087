"""The ways to compute a filtered convolution, by name, and the choice among them by shape and device."""

from typing import Protocol

import torch
from torch import Tensor

from shconv.errors import InputError
from shconv.ops import amx, compiled, grouped, shifted, triton, unfold
from shconv.ops.geometry import Geometry


class Formulation(Protocol):
    """A way to compute the op: a module with these three functions."""

    def reasons_against(self, x: Tensor, weight: Tensor, geometry: Geometry) -> list[str]: ...

    def forward(self, x: Tensor, weight: Tensor, M: Tensor, geometry: Geometry) -> Tensor: ...

    def backward(
        self, dY: Tensor, x: Tensor, weight: Tensor, M: Tensor, geometry: Geometry, mask: tuple[bool, bool, bool]
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]: ...


FORMULATIONS: dict[str, Formulation] = {
    "compiled": compiled,
    "amx": amx,
    "grouped": grouped,
    "unfold": unfold,
    "shifted": shifted,
    "triton": triton,  # on request only: its kernels have not yet been timed on a GPU
}

_KERNELS = {"cpu": ("compiled", "amx")}  # by type of device: chosen wherever they serve, the first first


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
    """The name of the formulation expected to be the fastest on the device that can serve the call.

    Kernels of our own wherever they can; without them materialised kernels win while they are small beside the
    activations. `shconv bench op` shows both.
    """
    for name in _KERNELS.get(device.type, ()):
        if not FORMULATIONS[name].reasons_against(x, weight, geometry):
            return name
    height, width = geometry.output_size(x, weight)
    activations = x[0].numel() + weight.shape[0] * height * width if len(x) else 0
    if weight.numel() <= 2 * activations:
        return "grouped"
    return "unfold" if shifted.reasons_against(x, weight, geometry) else "shifted"
