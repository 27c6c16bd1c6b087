"""The op in torch.library: its kernels, forward and backward, and the shapes and layouts that tracing is told.
How they are differentiated and vectorised is in derivatives."""

from collections.abc import Sequence

import torch
from torch import Tensor

from shconv.ops.choice import Formulation, find
from shconv.ops.geometry import Geometry, memory_format
from shconv.ops.modes import autocast_off, refuse_tangents


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
    geometry = _geometry(stride, padding, dilation, groups)
    if x.numel() == 0:
        return x.new_empty(len(x), len(weight), *geometry.output_size(x, weight))

    def run(each: Formulation) -> list[Tensor]:
        return [each.forward(x, weight, filter_map, geometry)]

    with autocast_off(x):
        (Y,) = run(find(formulation, x, weight, filter_map, geometry, (), run))
    return Y.contiguous(memory_format=memory_format(x))


@forward.register_fake
def _(x, weight, filter_map, stride, padding, dilation, groups, formulation):  # type: ignore[no-untyped-def]
    size = _geometry(stride, padding, dilation, groups).output_size(x, weight)
    return x.new_empty(x.shape[0], weight.shape[0], *size).contiguous(memory_format=memory_format(x))


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
    inputs = (x, weight, filter_map)
    gradients: tuple[Tensor | None, ...]
    if x.numel() == 0:
        gradients = tuple(torch.zeros_like(of) if needed else None for of, needed in zip(inputs, mask, strict=True))
    else:
        geometry = _geometry(stride, padding, dilation, groups)
        needs = (mask[0], mask[1], mask[2])

        def run(each: Formulation) -> tuple[Tensor | None, ...]:
            return each.backward(dY, x, weight, filter_map, geometry, needs)

        with autocast_off(x):
            gradients = run(find(formulation, x, weight, filter_map, geometry, needs, run))
    dX, dW, dM = (_like(gradient, of) for gradient, of in zip(gradients, inputs, strict=True))
    return dX, dW, dM


@backward.register_fake
def _(dY, x, weight, filter_map, stride, padding, dilation, groups, formulation, mask):  # type: ignore[no-untyped-def]
    wanted = zip(mask, (x, weight, filter_map), strict=True)
    return tuple(_like(torch.empty_like(of) if needed else None, of) for needed, of in wanted)


def _like(gradient: Tensor | None, of: Tensor) -> Tensor:
    """The gradient in its tensor's dtype and layout; an empty tensor stands for one that was not asked for."""
    if gradient is None:
        return of.new_empty(0)
    return gradient.to(of.dtype).contiguous(
        memory_format=memory_format(of) if of.dim() == 4 else torch.contiguous_format
    )


def _geometry(stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int], groups: int) -> Geometry:
    return Geometry((stride[0], stride[1]), (padding[0], padding[1]), (dilation[0], dilation[1]), groups)
