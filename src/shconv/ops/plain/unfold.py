"""Formulation "unfold": im2col, one scale per image and tap, one matrix product.
Serves every call on any device; best for many small images with many channels."""

import torch
import torch.nn.functional as F
from torch import Tensor

from shconv.ops.geometry import Geometry

_COLUMN_BYTES = 2**27  # bound on the columns that exist at one time: 128 MiB, or one image's (twice that in backward)


def reasons_against(x: Tensor, weight: Tensor, geometry: Geometry) -> list[str]:
    """Why this formulation cannot serve the call; empty where it can. It serves every call."""
    return []


def forward(x: Tensor, weight: Tensor, M: Tensor, geometry: Geometry) -> Tensor:
    images = _images(x, weight, geometry)
    W = _grouped_weight(weight, geometry.groups)  # (g, C / g, D / g * T)
    Y = [W @ _scaled(_columns(X, weight, geometry), m) for X, m in zip(x.split(images), M.split(images), strict=True)]
    return torch.cat(Y).reshape(len(x), weight.shape[0], *geometry.output_size(x, weight))


def backward(
    dY: Tensor, x: Tensor, weight: Tensor, M: Tensor, geometry: Geometry, mask: tuple[bool, bool, bool]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of x, weight and M, each only where mask asks for it."""
    needs_x, needs_weight, needs_map = mask
    images = _images(x, weight, geometry)
    W = _grouped_weight(weight, geometry.groups)
    dX, dM = [], []
    dW = torch.zeros_like(W, dtype=M.dtype) if needs_weight else None
    for dy, X, m in zip(dY.split(images), x.split(images), M.split(images), strict=True):
        dy = dy.reshape(len(X), geometry.groups, W.shape[1], -1)  # (n, g, C / g, L)
        columns = _columns(X, weight, geometry) if needs_weight or needs_map else None
        if dW is not None and columns is not None:
            dW += torch.einsum("ngcl,ngkl->gck", dy, _scaled(columns, m)).to(M.dtype)
        if needs_x or needs_map:
            G = W.transpose(1, 2) @ dy  # (n, g, D / g * T, L)
            if needs_map and columns is not None:
                dM.append((G * columns).to(M.dtype).unflatten(2, (-1, m[0].numel())).sum((1, 2, 4)).view(m.shape))
            if needs_x:
                dX.append(_fold(_scaled(G, m), X, weight, geometry))
    return (
        torch.cat(dX) if needs_x else None,
        dW.view(weight.shape).to(weight.dtype) if dW is not None else None,
        torch.cat(dM) if needs_map else None,
    )


def _images(x: Tensor, weight: Tensor, geometry: Geometry) -> int:
    height, width = geometry.output_size(x, weight)
    bytes_each = x.shape[1] * weight[0, 0].numel() * height * width * x.element_size()
    return max(1, min(len(x), _COLUMN_BYTES // bytes_each))


def _grouped_weight(weight: Tensor, groups: int) -> Tensor:
    return weight.reshape(groups, weight.shape[0] // groups, -1)


def _columns(X: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
    """(n, g, D / g * T, L): the T taps of channel d are neighbours."""
    stride, padding, dilation, groups = geometry
    columns = F.unfold(X, weight.shape[2:], dilation, padding, stride)
    return columns.view(len(X), groups, -1, columns.shape[-1])


def _scaled(columns: Tensor, M: Tensor) -> Tensor:
    n, g, _, L = columns.shape
    by_tap = columns.view(n, g, -1, M[0].numel(), L)  # (n, g, D / g, T, L)
    return (by_tap * M.flatten(1)[:, None, None, :, None]).to(columns.dtype).flatten(2, 3)  # the map is not rounded


def _fold(columns: Tensor, X: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
    stride, padding, dilation, _ = geometry
    return F.fold(columns.flatten(1, 2), X.shape[2:], weight.shape[2:], dilation, padding, stride)
