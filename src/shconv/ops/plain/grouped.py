"""Formulation "grouped": N materialised kernels and one convolution with N * groups groups.
Fast for few, large images; what CondConv and its relatives do."""

import torch
import torch.nn.functional as F
from torch import Tensor

from shconv.ops.geometry import Geometry

_KERNEL_BYTES = 2**27  # bound on the kernels that exist at one time: 128 MiB, or one image's


def reasons_against(x: Tensor, weight: Tensor, geometry: Geometry) -> list[str]:
    """Why this formulation cannot serve the call; empty where it can. It serves every call."""
    return []


def forward(x: Tensor, weight: Tensor, M: Tensor, geometry: Geometry) -> Tensor:
    parts = zip(x.split(_images(x, weight)), M.split(_images(x, weight)), strict=True)
    return torch.cat([_convolve(X, _kernels(weight, m, X.dtype), geometry) for X, m in parts])


def backward(
    dY: Tensor, x: Tensor, weight: Tensor, M: Tensor, geometry: Geometry, mask: tuple[bool, bool, bool]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of x, weight and M, each only where mask asks for it."""
    needs_x, needs_weight, needs_map = mask
    images = _images(x, weight)
    dX, dM = [], []
    dW = torch.zeros_like(weight, dtype=M.dtype) if needs_weight else None
    for dy, X, m in zip(dY.split(images), x.split(images), M.split(images), strict=True):
        dx, dH = _convolution_backward(
            dy, X, _kernels(weight, m, X.dtype), geometry, needs_x, needs_weight or needs_map
        )
        if dx is not None:
            dX.append(dx)
        if dH is not None and needs_map:
            dM.append(torch.einsum("ncdij,cdij->nij", dH, weight.to(dH.dtype)).to(M.dtype))
        if dH is not None and dW is not None:
            dW += torch.einsum("ncdij,nij->cdij", dH.to(M.dtype), m)
    return (
        torch.cat(dX) if needs_x else None,
        dW.to(weight.dtype) if dW is not None else None,
        torch.cat(dM) if needs_map else None,
    )


def _images(x: Tensor, weight: Tensor) -> int:
    return max(1, min(len(x), _KERNEL_BYTES // (weight.numel() * x.element_size())))


def _kernels(weight: Tensor, M: Tensor, dtype: torch.dtype) -> Tensor:
    """H (n, C, D / groups, S_h, S_w)."""
    return (weight * M[:, None, None]).to(dtype)


def _convolve(X: Tensor, H: Tensor, geometry: Geometry) -> Tensor:
    stride, padding, dilation, groups = geometry
    n, C = H.shape[:2]
    Y = F.conv2d(_joined(X), H.flatten(0, 1), None, stride, padding, dilation, n * groups)
    return Y.view(n, C, *Y.shape[2:])


def _convolution_backward(
    dY: Tensor, X: Tensor, H: Tensor, geometry: Geometry, needs_x: bool, needs_kernels: bool
) -> tuple[Tensor | None, Tensor | None]:
    stride, padding, dilation, groups = geometry
    dX, dH, _ = torch.ops.aten.convolution_backward(
        _joined(dY), _joined(X), H.flatten(0, 1), None,
        stride, padding, dilation, False, (0, 0), len(X) * groups, (needs_x, needs_kernels, False),
    )  # fmt: skip
    return (dX.view(X.shape) if needs_x else None), (dH.view(H.shape) if needs_kernels else None)


def _joined(images: Tensor) -> Tensor:
    """(n, D, H, W) -> (1, n * D, H, W)."""
    return images.contiguous().flatten(0, 1)[None]
