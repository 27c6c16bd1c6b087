"""Both passes of a filtered convolution by the Hopper kernels: whether they can serve a call, with which tiles, and the
launches run one after the other. Importing this module imports no triton."""

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

from shconv.errors import InputError, one_line
from shconv.ops.cuda import runtime, tape, tuning
from shconv.ops.cuda.hopper.tiles import FEW_PIXELS, MANY_PIXELS, Shape, Tile, candidates, rule
from shconv.ops.geometry import Geometry

if TYPE_CHECKING:
    from shconv.ops.cuda.hopper.launches import Launch

_LEAST = 32  # channels: what fewer of them would leave of a tile is no gain
_MOST_STEPS = 2**31
Result = TypeVar("Result")
_failed: list[Exception] = []


def serves(x: Tensor, weight: Tensor, geometry: Geometry) -> bool:
    """Whether forward, dX and dM can be had: a Hopper card, what TMA can describe, and pixels that tile flat."""
    return x.is_cuda and not _failed and _hopper(x.device.index) and describable(x, weight, geometry)


def attempt(call: Callable[[], Result]) -> Result | None:
    """What these kernels give. Where they fail, in Triton or its compiler, the log says why, they are left alone from
    then on, and there is None; want of memory, or a switch set to what is none, is not their failure."""
    try:
        return call()
    except (torch.OutOfMemoryError, InputError):
        raise
    except Exception as error:
        _failed.append(error)
        runtime.log_once(f"the kernels for Hopper do not run: {one_line(error)}; those for every card serve instead")
        return None


def describable(x: Tensor, weight: Tensor, geometry: Geometry) -> bool:
    """Of channels-last images and a kernel of odd sides, padded by half of them: at stride 1, or 2 with even sides."""
    (stride, stride_w), (S_h, S_w) = geometry.stride, weight.shape[2:]
    C, D = weight.shape[:2]
    whole = S_h % 2 == S_w % 2 == 1 and max(S_h, S_w) < 64 and geometry.padding == (S_h // 2, S_w // 2)
    if not whole or geometry.dilation != (1, 1) or geometry.groups != 1 or stride != stride_w or stride > 2:
        return False
    if x.shape[2] % stride or x.shape[3] % stride or min(C, D) < _LEAST:
        return False
    if (C * x.element_size()) % 16 or (D * x.element_size()) % 16 or x.data_ptr() % 16 or weight.data_ptr() % 16:
        return False
    return x.element_size() == 2 or (x.dtype == torch.float32 and runtime.tf32())


def weight_serves(x: Tensor, weight: Tensor, geometry: Geometry) -> bool:
    """Whether dW can be had too: wgmma sums float32 along neighbouring elements only, and here those are channels."""
    tiles = -(-weight.numel() // 4096) * len(x)
    return x.element_size() == 2 and tiles * x.shape[2] * x.shape[3] // 16 < _MOST_STEPS and serves(x, weight, geometry)


def forward(x: Tensor, weight: Tensor, M: Tensor, geometry: Geometry) -> Tensor:
    """Y; all are dense and channels last, M is float32."""
    from shconv.ops.cuda.hopper import launches

    stride = geometry.stride[0]
    shape = launches.forward_shape(x, weight, stride)

    def plan(tile: Tile) -> "tuple[Sequence[Tensor | None], list[Launch]]":
        Y, launched = launches.forward(x, weight, M, stride, tile, _precision(x))
        return [Y], launched

    (Y,) = _run(shape, plan, x.device)
    assert Y is not None
    return Y


def input_gradient(
    dY: Tensor, x: Tensor, weight: Tensor, M: Tensor, geometry: Geometry, map: bool,
    statistics: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    """dX and, with map, dM (N, T). statistics: [mu, sigma] and [dmu, dvariance] (N, 2, D), whose part dX then has."""
    from shconv.ops.cuda.hopper import launches

    stride = geometry.stride[0]

    def plan(tile: Tile) -> "tuple[Sequence[Tensor | None], list[Launch]]":
        dX, dM, launched = launches.input_gradient(dY, x, weight, M, stride, tile, _precision(x), map, statistics)
        return [dX, dM], launched

    dX, dM = _run(launches.input_shape(x, weight, stride, map), plan, x.device)
    assert dX is not None
    return dX, dM


def weight_gradient(
    dY: Tensor, x: Tensor, weight: Tensor, M: Tensor, geometry: Geometry, map: bool, dtype: torch.dtype
) -> tuple[Tensor, Tensor | None]:
    """dW in that dtype and, with map, dM (N, T)."""
    from shconv.ops.cuda.hopper import launches

    stride, flatly = geometry.stride[0], not map and flat(x, geometry)

    def plan(tile: Tile) -> "tuple[Sequence[Tensor | None], list[Launch]]":
        given = dY, x, weight, M, stride, tile, _precision(x), map, dtype, flatly
        dW, dM, launched = launches.weight_gradient(*given)
        return [dW, dM], launched

    dW, dM = _run(launches.weight_shape(x, weight, stride, map, flatly), plan, x.device)
    assert dW is not None
    return dW, dM


def map_by_weight(x: Tensor, geometry: Geometry, needs_x: bool) -> bool:
    """Whether dM is had more cheaply beside dW than beside dX, where both are: beside dW it costs a product for each of
    an image's C * D sums, beside dX one for each of its pixels and D."""
    return not needs_x or (x.shape[2] * x.shape[3] // geometry.stride[0] ** 2 >= FEW_PIXELS and not flat(x, geometry))


def joins(x: Tensor, weight: Tensor, geometry: Geometry) -> bool:
    """Whether dX is best had last, with the gradient through the statistics in it: where images are so large that it
    costs a visit of memory on its own, and dM comes beside dW. All of it is a matter of one image's size."""
    pixels = x.shape[2] * x.shape[3] // geometry.stride[0] ** 2
    return pixels >= MANY_PIXELS and weight_serves(x, weight, geometry) and map_by_weight(x, geometry, True)


def flat(x: Tensor, geometry: Geometry) -> bool:
    """Whether dW may be had by flat.sums: bfloat16 has the range to hold dY scaled."""
    return x.dtype == torch.bfloat16 and geometry.stride == (1, 1) and x.shape[2] * x.shape[3] < MANY_PIXELS


def tile_of(
    shape: Shape, plan: "Callable[[Tile], tuple[Sequence[Tensor | None], list[Launch]]]", device: torch.device
) -> Tile:
    """The rule's, or what was the fastest when it was tried."""
    if (tile := _chosen.get((shape, device))) and not tuning.fixed():
        return tile
    tried = candidates(shape)
    if not tuning.measures(shape.products, len(tried) == 1):
        return rule(shape)

    def trial(tile: Tile) -> tuning.Run:
        def run() -> Sequence[Tensor | None]:
            results, launched = plan(tile)
            for each in launched:
                each.run()
            return results

        return run

    def compile(tile: Tile) -> None:
        for each in plan(tile)[1]:
            each.compile()

    tile = tuning.choose(str(shape), tried, trial, compile, device)
    if tape.collected() is None:
        _chosen[shape, device] = tile
    return tile


_chosen: dict[tuple[Shape, torch.device], Tile] = {}


def _run(
    shape: Shape, plan: "Callable[[Tile], tuple[Sequence[Tensor | None], list[Launch]]]", device: torch.device
) -> Sequence[Tensor | None]:
    results, launched = plan(tile_of(shape, plan, device))
    for each in launched:
        each.run()
    return results


def _precision(x: Tensor) -> str:
    return "tf32" if x.dtype == torch.float32 else "ieee"


@functools.cache
def _hopper(index: int) -> bool:
    return torch.cuda.get_device_capability(index)[0] == 9
