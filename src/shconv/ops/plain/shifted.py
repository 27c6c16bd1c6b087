"""Formulation "shifted": the padded channels-last image, flattened to rows, makes every tap a view at an offset:
S * S matrix products that accumulate, no im2col. Stride 1 and one group."""

import torch
import torch.nn.functional as F
from torch import Tensor

from shconv.ops.geometry import Geometry

_BLOCK_BYTES = 2**21  # rows of x worked on at one time, so that a block's S * S passes hit the cache


def reasons_against(x: Tensor, weight: Tensor, geometry: Geometry) -> list[str]:
    """Why this formulation cannot serve the call; empty where it can."""
    reasons = []
    if geometry.stride != (1, 1):
        reasons.append(f"stride must be 1, got {geometry.stride}")
    if geometry.groups != 1:
        reasons.append(f"groups must be 1, got {geometry.groups}")
    return reasons


def forward(x: Tensor, weight: Tensor, M: Tensor, geometry: Geometry) -> Tensor:
    rows = _Rows(x, weight, geometry)
    W = weight.flatten(2).permute(2, 1, 0).contiguous()  # (T, D, C)
    parts = []
    for X, m in zip(x.split(rows.images), M.split(rows.images), strict=True):
        R = rows.padded(X)
        scales = m.flatten(1)
        Y = x.new_zeros(len(X) * rows.area, weight.shape[0])
        for t, offset in enumerate(rows.offsets):
            Y.addmm_(_scaled(R[offset : offset + len(Y)], scales[:, t]), W[t])
        parts.append(rows.output(Y))
    return torch.cat(parts).permute(0, 3, 1, 2)


def backward(
    dY: Tensor, x: Tensor, weight: Tensor, M: Tensor, geometry: Geometry, mask: tuple[bool, bool, bool]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of x, weight and M, each only where mask asks for it."""
    needs_x, needs_weight, needs_map = mask
    rows = _Rows(x, weight, geometry)
    W = weight.flatten(2).permute(2, 0, 1).contiguous()  # (T, C, D)
    dX, dM = [], []
    dW = torch.zeros_like(W, dtype=M.dtype) if needs_weight else None
    for dy, X, m in zip(dY.split(rows.images), x.split(rows.images), M.split(rows.images), strict=True):
        scales = m.flatten(1)
        R = rows.padded(X) if needs_weight or needs_map else None
        dy_rows = rows.spread(dy)  # (n * area, C), zero where no output lies
        beside = None  # such rows, where their pixels times zero would not be zero
        if R is not None and dW is not None and not R.isfinite().all():
            beside = rows.spread(torch.ones_like(dy[:, :1])) == 0
        dR = x.new_zeros(len(dy_rows) + rows.offsets[-1], x.shape[1])
        dm = torch.zeros_like(m).flatten(1)
        for t, offset in enumerate(rows.offsets):
            window = slice(offset, offset + len(dy_rows))
            if needs_x or needs_map:
                G = dy_rows @ W[t]  # (n * area, D)
                if needs_x:
                    dR[window] += _scaled(G, scales[:, t])
                if R is not None and needs_map:
                    dm[:, t] = (rows.output(G) * rows.output(R[window])).sum((1, 2, 3))
            if R is not None and dW is not None:
                part = _scaled(R[window], scales[:, t])
                dW[t] += dy_rows.T @ (part if beside is None else part.masked_fill(beside, 0))
        if needs_x:
            dX.append(rows.cropped(dR))
        dM.append(dm.view(m.shape))
    return (
        torch.cat(dX).permute(0, 3, 1, 2) if needs_x else None,
        dW.permute(1, 2, 0).reshape(weight.shape).to(weight.dtype) if dW is not None else None,
        torch.cat(dM) if needs_map else None,
    )


class _Rows:
    """A padded image of (H_p, W_p) pixels as H_p * W_p rows of D channels; tap t of pixel r is row r + offsets[t].

    Rows past the right and bottom border belong to no output: they are computed and dropped, or zero.
    """

    def __init__(self, x: Tensor, weight: Tensor, geometry: Geometry) -> None:
        self.padding, (dil_h, dil_w) = geometry.padding, geometry.dilation
        self.height, self.width = (x.shape[2 + axis] + 2 * self.padding[axis] for axis in (0, 1))
        self.area = self.height * self.width
        self.output_height, self.output_width = geometry.output_size(x, weight)
        taps = ((i, j) for i in range(weight.shape[2]) for j in range(weight.shape[3]))
        self.offsets = [i * dil_h * self.width + j * dil_w for i, j in taps]
        self.images = max(1, min(len(x), _BLOCK_BYTES // (self.area * x.shape[1] * x.element_size())))

    def padded(self, X: Tensor) -> Tensor:
        """(n, D, H, W) -> (n * area + last offset, D)."""
        pad_h, pad_w = self.padding
        R = X.new_zeros(len(X) * self.area + self.offsets[-1], X.shape[1])
        inner = R[: len(X) * self.area].view(len(X), self.height, self.width, -1)
        inner[:, pad_h : self.height - pad_h, pad_w : self.width - pad_w] = X.permute(0, 2, 3, 1)
        return R

    def cropped(self, R: Tensor) -> Tensor:
        """The inverse of padded: -> (n, H, W, D)."""
        pad_h, pad_w = self.padding
        inner = R[: len(R) - self.offsets[-1]].view(-1, self.height, self.width, R.shape[1])
        return inner[:, pad_h : self.height - pad_h, pad_w : self.width - pad_w]

    def output(self, Y: Tensor) -> Tensor:
        """(n * area, C) -> (n, H', W', C)."""
        return Y.view(-1, self.height, self.width, Y.shape[1])[:, : self.output_height, : self.output_width]

    def spread(self, dY: Tensor) -> Tensor:
        """The adjoint of output: (n, C, H', W') -> (n * area, C)."""
        right, bottom = self.width - self.output_width, self.height - self.output_height
        return F.pad(dY.permute(0, 2, 3, 1), (0, 0, 0, right, 0, bottom)).reshape(-1, dY.shape[1])


def _scaled(rows: Tensor, scale: Tensor) -> Tensor:
    """Every image's rows times its scale (n,)."""
    return (rows.view(len(scale), -1) * scale[:, None]).view(rows.shape).to(rows.dtype)
