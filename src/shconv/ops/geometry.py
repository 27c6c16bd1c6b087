"""Where a convolution's taps lie: stride, padding, dilation and groups as the formulations take them,
and the checks every call passes before any of them runs."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from shconv.errors import InputError

Pair = tuple[int, int]
IntOrPair = int | Pair
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)  # of images, weights and maps


class Geometry(NamedTuple):
    """Normalised arguments of a 2-d convolution; every pair is (vertical, horizontal)."""

    stride: Pair
    padding: Pair
    dilation: Pair
    groups: int

    def output_size(self, x: Tensor, weight: Tensor) -> Pair:
        """(H', W') of the output for x (N, D, H, W) and weight (C, D / groups, S_h, S_w)."""

        def along(axis: int) -> int:
            reach = self.dilation[axis] * (weight.shape[2 + axis] - 1) + 1
            return (x.shape[2 + axis] + 2 * self.padding[axis] - reach) // self.stride[axis] + 1

        return along(0), along(1)


def pair(name: str, value: IntOrPair, least: int) -> Pair:
    """2 and, as in torch, (2,) -> (2, 2). Raises InputError for anything but integers of at least `least`."""
    values = tuple(value) if isinstance(value, Sequence) else (value,)
    values = values * 2 if len(values) == 1 else values
    if len(values) != 2 or not all(hasattr(each, "__index__") and each >= least for each in values):
        raise InputError(f"{name} must be an integer of at least {least} or a pair of them, got {value}")
    return values[0], values[1]


def resolve_padding(
    x: Tensor, weight: Tensor, padding: str | IntOrPair, stride: Pair, dilation: Pair
) -> tuple[Tensor, Pair]:
    """Turn "same" and "valid" into numbers; a "same" that is not symmetric pads x itself."""
    if not isinstance(padding, str):
        return x, pair("padding", padding, 0)
    if padding == "valid":
        return x, (0, 0)
    if padding != "same":
        raise InputError(f'padding must be a number, a pair, "same" or "valid", got {padding!r}')
    if stride != (1, 1):
        raise InputError(f'padding="same" needs stride 1, got stride {stride}')
    total_h, total_w = (dilation[axis] * (weight.shape[2 + axis] - 1) for axis in (0, 1))
    if total_h % 2 == 0 and total_w % 2 == 0:
        return x, (total_h // 2, total_w // 2)
    left, top = total_w // 2, total_h // 2
    return F.pad(x, (left, total_w - left, top, total_h - top)), (0, 0)


def check_dimensions(x: Tensor, weight: Tensor) -> None:
    """Raise InputError unless both have four dimensions."""
    if x.dim() != 4 or weight.dim() != 4:
        raise InputError(
            f"a filtered convolution takes x (N, D, H, W) and weight (C, D / groups, S_h, S_w), "
            f"got x {tuple(x.shape)} and weight {tuple(weight.shape)}"
        )


def check_images(x: Tensor) -> None:
    """Raise InputError unless x can have channel statistics."""
    if x.dim() != 4 or x.is_complex() or x.is_quantized or (x.is_floating_point() and x.dtype not in DTYPES):
        raise InputError(
            f"images must be (N, D, H, W), integers or floating-point numbers of 16 bits or more, "
            f"got {tuple(x.shape)} in {x.dtype}"
        )
    check_dense(x)


def check_dense(*tensors: Tensor) -> None:
    """Raise InputError for sparse tensors and others whose elements do not lie at a distance from each other."""
    for each in tensors:
        if each.layout != torch.strided:
            raise InputError(f"tensors must be dense, got {each.layout}: to_dense() makes them so")


def check_numbers(geometry: Geometry) -> None:
    """Raise InputError unless the geometry is one. A layer's numbers can be set to anything."""
    for name, least in (("stride", 1), ("padding", 0), ("dilation", 1)):
        pair(name, getattr(geometry, name), least)
    if not hasattr(geometry.groups, "__index__"):
        raise InputError(f"groups must be an integer, got {geometry.groups}")


def check(
    x: Tensor, weight: Tensor, filter_map: Tensor, bias: Tensor | None, geometry: Geometry, rounds: bool = False
) -> None:
    """Raise InputError unless numbers, shapes, dtypes and devices of a filtered convolution fit together. rounds: the
    weight may be of another dtype than x."""
    check_numbers(geometry)
    if geometry.groups < 1 or x.shape[1] != weight.shape[1] * geometry.groups or weight.shape[0] % geometry.groups:
        raise InputError(
            f"x {tuple(x.shape)} and weight {tuple(weight.shape)} do not fit with groups={geometry.groups}: "
            f"x has {x.shape[1]} channels, the weight wants {weight.shape[1] * geometry.groups}"
        )
    wanted = (x.shape[0], *weight.shape[2:])
    if tuple(filter_map.shape) != wanted:
        raise InputError(f"filter_map must be (N, S_h, S_w) = {wanted}, got {tuple(filter_map.shape)}")
    if min(weight.shape) < 1:
        raise InputError(
            f"every dimension of the weight must be at least 1, got {tuple(weight.shape)} for x {tuple(x.shape)}"
        )
    if bias is not None and (tuple(bias.shape) != (weight.shape[0],) or bias.dtype != weight.dtype):
        raise InputError(
            f"bias must be (C,) = {(weight.shape[0],)} in {weight.dtype}, got {tuple(bias.shape)} in {bias.dtype}"
        )
    if not (x.dtype in DTYPES and filter_map.dtype in DTYPES and (rounds or x.dtype == weight.dtype)):
        raise InputError(
            f"a filtered convolution takes a floating-point map, x and weight of 16 bits or more, the last two of one "
            f"dtype; got {filter_map.dtype}, {x.dtype} and {weight.dtype}"
        )
    tensors = (x, weight, filter_map) if bias is None else (x, weight, filter_map, bias)
    if any(each.device != x.device for each in tensors):
        given = ", ".join(str(each.device) for each in tensors)
        raise InputError(f"x, weight, filter_map and bias must be on one device, got {given}")
    check_dense(*tensors)
    if min(x.shape[2:]) < 1 or min(geometry.output_size(x, weight)) < 1:
        raise InputError(
            f"a kernel of {tuple(weight.shape[2:])} with dilation {geometry.dilation} does not fit into "
            f"{tuple(x.shape[2:])} pixels with padding {geometry.padding} (x is {tuple(x.shape)})"
        )


def check_hypernetwork(x: Tensor, theta: Sequence[Tensor], order: Sequence[int], taps: int) -> None:
    """Raise InputError unless theta = (W1, b1, W2, b2) makes maps of so many taps from len(order) statistics of each of
    x's channels, on x's device. Kernels read theta by these sizes, whatever memory it has."""
    given = [tuple(each.shape) for each in theta]
    K = given[1][0] if given[1] else 0
    wanted = [(K, len(order) * x.shape[1]), (K,), (taps, K), (taps,)]
    if given != wanted:
        raise InputError(
            f"the hypernetwork's weights and biases must be {wanted} for x {tuple(x.shape)}, {len(order)} statistics "
            f"of each channel and {taps} taps, got {given}"
        )
    if any(each.device != x.device for each in theta):
        devices = ", ".join(str(each.device) for each in theta)
        raise InputError(f"x and the hypernetwork must be on one device, got {x.device} and {devices}")


def memory_format(x: Tensor) -> torch.memory_format:
    """The layout the output takes: channels_last where x is, contiguous otherwise."""
    last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return torch.channels_last if last else torch.contiguous_format


def like(gradient: Tensor, of: Tensor) -> Tensor:
    """The gradient in its tensor's layout."""
    layout = memory_format(of) if of.dim() == 4 else torch.contiguous_format
    return gradient.contiguous(memory_format=layout)
