"""What Hopper's kernels are checked and timed on: convolutions of networks and odd ones, random data for them, and what
they have to give, in float64."""

import itertools
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Layer(NamedTuple):
    """A 3x3 convolution of N images of D channels and H x H pixels to C channels, padding 1."""

    N: int
    D: int
    C: int
    H: int
    stride: int

    def __str__(self) -> str:
        return f"{self.D}->{self.C} {self.H}/{self.stride}"


LAYERS = tuple(
    Layer(128, *each)
    for each in [(64, 64, 56, 1), (128, 128, 28, 1), (256, 256, 14, 1), (512, 512, 7, 1),
                 (64, 128, 56, 2), (128, 256, 28, 2), (256, 512, 14, 2)]
)  # fmt: skip
ODD = (Layer(5, 160, 96, 13, 1), Layer(9, 160, 192, 10, 2), Layer(7, 72, 40, 7, 1), Layer(3, 128, 32, 28, 2),
       Layer(4, 200, 136, 9, 1))  # fmt: skip


class Problem(NamedTuple):
    """What the passes of a layer are given; of its statistics `seen` [mu, sigma] and the gradient `dseen` (N, 2, D)."""

    layer: Layer
    x: Tensor
    weight: Tensor
    M: Tensor
    dY: Tensor  # noqa: N815
    seen: Tensor
    dseen: Tensor


def problem(layer: Layer, dtype: torch.dtype, device: torch.device) -> Problem:
    make = torch.Generator(device).manual_seed(layer.H * layer.C)

    def normal(*size: int, scale: float = 1.0) -> Tensor:
        value = torch.randn(size, generator=make, device=device) * scale
        return value.to(dtype).contiguous(memory_format=torch.channels_last)

    N, D, C, H, stride = layer
    x, weight, dY = (
        normal(N, D, H, H),
        normal(C, D, 3, 3, scale=(9 * D) ** -0.5),
        normal(N, C, H // stride, H // stride),
    )
    M = torch.rand((N, 3, 3), generator=make, device=device) + 0.1
    seen, dseen = torch.randn((2, N, 2, D), generator=make, device=device)
    return Problem(layer, x, weight, M, dY, seen, dseen * H * H)


def blank(layer: Layer, dtype: torch.dtype) -> Problem:
    """Of the right shapes and layouts, with nothing in them."""
    N, D, C, H, stride = layer
    images = ((N, D, H, H), (C, D, 3, 3), (N, C, H // stride, H // stride))
    x, weight, dY = (torch.empty(size, dtype=dtype).to(memory_format=torch.channels_last) for size in images)
    return Problem(layer, x, weight, torch.empty(N, 3, 3), dY, *torch.empty(2, N, 2, D))


def truth(of: Problem) -> dict[str, Tensor]:
    """Y, dX (also with the gradient through the statistics), dW and dM in float64, tap by tap: images at a time, since
    float64 by one convolution an image takes a card minutes."""
    stride, H = of.layer.stride, of.layer.H
    x, dY = (each.double().permute(0, 2, 3, 1) for each in (of.x, of.dY))  # (N, H, W, channels)
    weight, scales = of.weight.double(), of.M.double()
    padded = F.pad(x, (0, 0, 1, 1, 1, 1))
    Y, dX = torch.zeros_like(dY), torch.zeros_like(padded)
    dW, dM = torch.zeros_like(weight), torch.zeros_like(scales)
    for i, j in itertools.product(range(3), range(3)):
        reached = (slice(None), slice(i, i + H, stride), slice(j, j + H, stride))
        scale = scales[:, i, j].view(-1, 1, 1, 1)
        P = padded[reached] @ weight[:, :, i, j].T
        Y += scale * P
        dM[:, i, j] = (P * dY).sum((1, 2, 3))
        dX[reached] += scale * (dY @ weight[:, :, i, j])
        dW[:, :, i, j] = (scale * dY).flatten(0, 2).T @ padded[reached].flatten(0, 2)
    dX = dX[:, 1:-1, 1:-1]
    mu, dmu, dvariance = (each[:, None, None].double() for each in (of.seen[:, 0], of.dseen[:, 0], of.dseen[:, 1]))
    joined = dX + (dmu + 2 * dvariance * (x - mu)) / H**2
    Y, dX, joined = (each.permute(0, 3, 1, 2) for each in (Y, dX, joined))
    return {"Y": Y, "dX": dX, "dX + statistics": joined, "dW": dW, "dM": dM.flatten(1)}
