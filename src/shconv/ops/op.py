"""filtered_conv2d, the public op: checks, the choice of a formulation, and its registration with torch.library.
Autograd keeps x, the weight and the map for the backward pass, never a kernel per image."""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from shconv.errors import InputError
from shconv.ops import compiled, grouped, shifted, triton, unfold
from shconv.ops.geometry import Geometry, IntOrPair, check, check_dimensions, memory_format, pair, resolve_padding


class Formulation(Protocol):
    """A way to compute the op: a module with these three functions."""

    def reasons_against(self, x: Tensor, weight: Tensor, geometry: Geometry) -> list[str]: ...

    def forward(self, x: Tensor, weight: Tensor, M: Tensor, geometry: Geometry) -> Tensor: ...

    def backward(
        self, dY: Tensor, x: Tensor, weight: Tensor, M: Tensor, geometry: Geometry, mask: tuple[bool, bool, bool]
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]: ...


FORMULATIONS: dict[str, Formulation] = {
    "compiled": compiled,
    "grouped": grouped,
    "unfold": unfold,
    "shifted": shifted,
    "triton": triton,  # on request only: its kernels have not yet been timed on a GPU
}


def filtered_conv2d(
    x: Tensor,
    weight: Tensor,
    filter_map: Tensor,
    bias: Tensor | None = None,
    stride: IntOrPair = 1,
    padding: str | IntOrPair = 0,
    dilation: IntOrPair = 1,
    groups: int = 1,
    formulation: str = "auto",
) -> Tensor:
    """Convolve every image with the weight filtered by that image's map: Y_n = conv(X_n, W * M_n) (section 2.2).

    Args:
        x: images (N, D, H, W).
        weight: (C, D / groups, S_h, S_w), shared by all images.
        filter_map: M (N, S_h, S_w), one map for each image; may be of higher precision than x.
        bias, stride, padding, dilation, groups: as in torch.nn.functional.conv2d ("same" and "valid" included).
        formulation: "auto" chooses by shape and device; a name of FORMULATIONS forces one.

    Returns:
        (N, C, H', W') in x's dtype, channels_last where x is.

    Under autocast x and weight are cast to its dtype, the map is not. The op can be differentiated once;
    shconv.ops.reference any number of times.

    Raises:
        InputError: shapes, dtypes or devices do not fit, or the formulation cannot serve them (with the reason).
    """
    if torch.is_autocast_enabled(x.device.type) and x.is_floating_point() and x.dtype != torch.float64:
        dtype = torch.get_autocast_dtype(x.device.type)
        x, weight, bias = x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
    check_dimensions(x, weight)
    stride, dilation = pair("stride", stride, 1), pair("dilation", dilation, 1)
    x, padding = resolve_padding(x, weight, padding, stride, dilation)
    geometry = Geometry(stride, padding, dilation, groups)
    check(x, weight, filter_map, bias, geometry)
    if formulation not in ("auto", *FORMULATIONS):
        raise InputError(f"unknown formulation {formulation!r}, choose from auto, {', '.join(FORMULATIONS)}")
    filter_map = filter_map.to(torch.promote_types(filter_map.dtype, x.dtype))  # dW is summed in its precision
    Y: Tensor = _forward(x, weight, filter_map, stride, padding, dilation, groups, formulation)
    return Y if bias is None else Y + bias[:, None, None]


def choose(x: Tensor, weight: Tensor, geometry: Geometry) -> str:
    """The name of the formulation expected to be the fastest that can serve the call.

    The compiled kernels wherever they can; without them materialised kernels win while they are small beside the
    activations. `shconv bench op` shows both.
    """
    if not compiled.reasons_against(x, weight, geometry):
        return "compiled"
    height, width = geometry.output_size(x, weight)
    activations = x[0].numel() + weight.shape[0] * height * width if len(x) else 0
    if weight.numel() <= 2 * activations:
        return "grouped"
    return "unfold" if shifted.reasons_against(x, weight, geometry) else "shifted"


def _chosen(formulation: str, x: Tensor, weight: Tensor, geometry: Geometry) -> Formulation:
    """Called inside the op, where torch.compile does not look: the choice may build the compiled kernels."""
    if formulation == "auto":
        return FORMULATIONS[choose(x, weight, geometry)]
    if reasons := FORMULATIONS[formulation].reasons_against(x, weight, geometry):
        raise InputError(f"formulation {formulation!r} cannot serve this call: {'; '.join(reasons)}")
    return FORMULATIONS[formulation]


@torch.library.custom_op("shconv::filtered_conv2d", mutates_args=())
def _forward(
    x: Tensor,
    weight: Tensor,
    filter_map: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    formulation: str,
) -> Tensor:
    geometry = _geometry(stride, padding, dilation, groups)
    if x.numel() == 0:
        return x.new_empty(len(x), len(weight), *geometry.output_size(x, weight))
    Y = _chosen(formulation, x, weight, geometry).forward(x, weight, filter_map, geometry)
    return Y.contiguous(memory_format=memory_format(x))


@_forward.register_fake
def _(x, weight, filter_map, stride, padding, dilation, groups, formulation):  # type: ignore[no-untyped-def]
    size = _geometry(stride, padding, dilation, groups).output_size(x, weight)
    return x.new_empty(x.shape[0], weight.shape[0], *size).contiguous(memory_format=memory_format(x))


@torch.library.custom_op("shconv::filtered_conv2d_backward", mutates_args=())
def _backward(
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
    inputs = (x, weight, filter_map)
    gradients: tuple[Tensor | None, ...]
    if x.numel() == 0:
        gradients = tuple(torch.zeros_like(of) if needed else None for of, needed in zip(inputs, mask, strict=True))
    else:
        geometry = _geometry(stride, padding, dilation, groups)
        needs = (mask[0], mask[1], mask[2])
        chosen = _chosen(formulation, x, weight, geometry)
        gradients = chosen.backward(dY, x, weight, filter_map, geometry, needs)
    dX, dW, dM = (_like(gradient, of) for gradient, of in zip(gradients, inputs, strict=True))
    return dX, dW, dM


@_backward.register_fake
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


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, filter_map, *ctx.arguments = inputs
    ctx.save_for_backward(x, weight, filter_map)


def _autograd(ctx: Any, dY: Tensor) -> tuple[Tensor | None, ...]:
    mask = ctx.needs_input_grad[:3]
    gradients = _backward(dY, *ctx.saved_tensors, *ctx.arguments, list(mask))
    wanted = (gradient if needed else None for gradient, needed in zip(gradients, mask, strict=True))
    return (*wanted, None, None, None, None, None)


_forward.register_autograd(_autograd, setup_context=_setup_context)


def _geometry(stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int], groups: int) -> Geometry:
    return Geometry((stride[0], stride[1]), (padding[0], padding[1]), (dilation[0], dilation[1]), groups)
