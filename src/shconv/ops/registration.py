"""The op in torch.library: its kernels, forward and backward, and the shapes and layouts that tracing is told.
How they are differentiated and vectorised is in derivatives."""

import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from shconv.ops.choice import find
from shconv.ops.cuda import launches
from shconv.ops.geometry import Geometry, memory_format
from shconv.ops.modes import autocast_off, refuse_tangents


def compute(x: Tensor, weight: Tensor, filter_map: Tensor, geometry: Geometry, formulation: str) -> Tensor:
    """Y in x's layout, by the formulation of that name or the one that "auto" chooses."""
    if x.numel() == 0:
        return x.new_empty(len(x), len(weight), *geometry.output_size(x, weight))
    with autocast_off(x):
        found = find(formulation, x, weight, geometry)
        Y = found.forward(x, weight, filter_map, geometry)
    return Y.contiguous(memory_format=memory_format(x))


def gradients(
    dY: Tensor, x: Tensor, weight: Tensor, filter_map: Tensor, geometry: Geometry, formulation: str,
    mask: tuple[bool, bool, bool], dtype: torch.dtype | None = None,
) -> tuple[Tensor | None, ...]:  # fmt: skip
    """Gradients of <dY, Y> by x, weight and filter_map, each only where mask asks for it. dtype: the weight's
    gradient's, if not weight's."""
    inputs = (x, weight, filter_map)
    if x.numel() == 0:
        return tuple(torch.zeros_like(of) if needed else None for of, needed in zip(inputs, mask, strict=True))
    with autocast_off(x):
        by = find(formulation, x, weight, geometry)
        backward = functools.partial(launches.backward, dtype=dtype) if by is launches else by.backward
        found = backward(dY, x, weight, filter_map, geometry, mask)
    dtypes = x.dtype, dtype or weight.dtype, filter_map.dtype
    every = zip(found, inputs, dtypes, strict=True)
    return tuple(None if each is None else like(each.to(kind), of) for each, of, kind in every)


@torch.library.custom_op("shconv::filtered_conv2d", mutates_args=())
def forward(
    x: Tensor,
    weight: Tensor,
    filter_map: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    formulation: str,
) -> Tensor:
    """Y (N, C, H', W') of x (N, D, H, W), weight (C, D / groups, S_h, S_w) and filter_map (N, S_h, S_w)."""
    refuse_tangents()
    return compute(x, weight, filter_map, geometry(stride, padding, dilation, groups), formulation)


@forward.register_fake
def _(x, weight, filter_map, stride, padding, dilation, groups, formulation):  # type: ignore[no-untyped-def]
    return output(x, weight, geometry(stride, padding, dilation, groups))


@torch.library.custom_op("shconv::filtered_conv2d_backward", mutates_args=())
def backward(
    dY: Tensor,
    x: Tensor,
    weight: Tensor,
    filter_map: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    formulation: str,
    mask: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of <dY, Y> by x, weight and filter_map; an empty tensor for each that mask does not ask for."""
    refuse_tangents()
    needs = (mask[0], mask[1], mask[2])
    found = gradients(dY, x, weight, filter_map, geometry(stride, padding, dilation, groups), formulation, needs)
    dX, dW, dM = (x.new_empty(0) if each is None else each for each in found)
    return dX, dW, dM


@backward.register_fake
def _(dY, x, weight, filter_map, stride, padding, dilation, groups, formulation, mask):  # type: ignore[no-untyped-def]
    wanted = zip(mask, (x, weight, filter_map), strict=True)
    return tuple(like(torch.empty_like(of), of) if needed else of.new_empty(0) for needed, of in wanted)


def output(x: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
    """A tensor like Y, its numbers undefined."""
    size = geometry.output_size(x, weight)
    return x.new_empty(x.shape[0], weight.shape[0], *size).contiguous(memory_format=memory_format(x))


def like(gradient: Tensor, of: Tensor) -> Tensor:
    """The gradient in its tensor's layout."""
    layout = memory_format(of) if of.dim() == 4 else torch.contiguous_format
    return gradient.contiguous(memory_format=layout)


def geometry(stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int], groups: int) -> Geometry:
    return Geometry((stride[0], stride[1]), (padding[0], padding[1]), (dilation[0], dilation[1]), groups)
