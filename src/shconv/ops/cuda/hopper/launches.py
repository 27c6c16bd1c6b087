"""The Hopper kernels' launches: descriptors, grids and constants for tensors at hand, ready to run or to be compiled.
Importing this module imports triton. Images are channels last, the weight is (C, D, S_h, S_w) channels last."""

import functools
from typing import Any, NamedTuple

import torch
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from shconv.ops.cuda import plans
from shconv.ops.cuda.hopper import flat, images, weights
from shconv.ops.cuda.hopper.tiles import Shape, Tile, box, pieces, places

_PROCESSORS = 4  # of what is no card: enough for several programs to share a tile
_BLOCK = 1024
_LONG = 40  # steps of an image that are worth a loop of their own
_SCALED = 256  # pixels a program of flat.scales
_GATHERED = 512  # elements of dW a program of weights.gather
_THREE_PROGRAMS = 168  # registers of a thread, of 4 warps, that let three programs share a multiprocessor


class Launch(NamedTuple):
    """All that a kernel is called with."""

    kernel: Any
    programs: int
    arguments: tuple[Any, ...]
    constants: dict[str, Any]
    warps: int
    stages: int
    registers: int | None = None  # of a thread at most, where more programs on a multiprocessor are worth spills

    def run(self) -> None:
        names = self.kernel.arg_names[: len(self.arguments)]
        plans.run(self.kernel, (self.programs,), dict(zip(names, self.arguments, strict=True)) | self._options())

    def compile(self) -> Any:
        """The same, and nothing runs."""
        return self.kernel.warmup(*self.arguments, grid=(self.programs,), **self._options())

    def _options(self) -> dict[str, Any]:
        return {**self.constants, "num_warps": self.warps, "num_stages": self.stages, "maxnreg": self.registers}


def forward_shape(x: Tensor, weight: Tensor, stride: int) -> Shape:
    C, D = weight.shape[:2]
    return Shape("forward", D, C, x.shape[2] // stride, x.shape[3] // stride, stride, x.element_size(), False)


def input_shape(x: Tensor, weight: Tensor, stride: int, map: bool) -> Shape:
    return forward_shape(x, weight, stride)._replace(purpose="input", K=len(weight), COLS=weight.shape[1], map=map)


def weight_shape(x: Tensor, weight: Tensor, stride: int, map: bool, flat: bool = False) -> Shape:
    purpose, (C, D) = "flat" if flat else "weight", weight.shape[:2]
    return forward_shape(x, weight, stride)._replace(purpose=purpose, K=C, COLS=D, map=map)


def forward(
    x: Tensor, weight: Tensor, M: Tensor, stride: int, tile: Tile, precision: str
) -> tuple[Tensor, list[Launch]]:
    """Y and what computes it. M (N, S_h, S_w) float32; stride 1, or 2 with even H and W; padding S // 2, S odd."""
    (N, D, *_), (C, _, S_h, S_w) = x.shape, weight.shape
    H, W = x.shape[2] // stride, x.shape[3] // stride
    Y = _empty(x, N, C, H, W)
    if stride == 2:
        sizes, strides = [W, 2, 2, N * H, D], [2 * D, D, 2 * W * D, 4 * W * D, 1]
        rows = tile.rows // tile.halves
        a = TensorDescriptor(x, sizes, strides, [1, 1, 1, rows, tile.inner])
        tiles = _blocks(_blocks(N * H, rows) * W, tile.halves)
    else:
        a, tiles = _flat(x, tile), _blocks(N * H * W, tile.rows)
    b = TensorDescriptor(weight, [S_h * S_w, C, D], [D, S_h * S_w * D, 1], [1, tile.columns, tile.inner])
    constants = {
        "H": H, "W": W, "K": D, "COLS": C, "S_H": S_h, "S_W": S_w, "STRIDE": stride,
        "BACK": False, "TURNED": True, "MAP": False, "STATISTICS": False, **_parts(tile, precision),
    }  # fmt: skip
    arguments = (a, b, Y, M, Y, M, M, M, N)
    return Y, [Launch(images.products, tiles * _blocks(C, tile.columns), arguments, constants, tile.warps, tile.stages)]


def input_gradient(
    dY: Tensor, x: Tensor, weight: Tensor, M: Tensor, stride: int, tile: Tile, precision: str,
    map: bool = False, statistics: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor | None, list[Launch]]:  # fmt: skip
    """dX, with map dM (N, T) float32 too, and what computes them. statistics: [mu, sigma] and [dmu, dvariance]
    (N, 2, D), float32, where their part is to be in dX; not beside dM."""
    (N, C, H, W), D, (S_h, S_w) = dY.shape, x.shape[1], weight.shape[2:]
    T, dX, blocks = S_h * S_w, _empty(x, *x.shape), _blocks(D, tile.columns)
    turned = x.dtype == torch.float32  # such operands have to lie along what is summed over
    if turned:
        copy = weight.permute(2, 3, 1, 0).contiguous()
        b = TensorDescriptor(copy, [T, D, C], [D * C, C, 1], [1, tile.columns, tile.inner])
    else:
        b = TensorDescriptor(weight, [T, C, D], [D, T * D, 1], [1, tile.inner, tile.columns])
    parts = M.new_empty(blocks, T, N * H * W) if map else M
    constants = {
        "H": H, "W": W, "K": C, "COLS": D, "S_H": S_h, "S_W": S_w, "STRIDE": stride, "BACK": True, "TURNED": turned,
        "MAP": map, "STATISTICS": statistics is not None, **_parts(tile, precision),
    }  # fmt: skip
    arguments = (_flat(dY, tile), b, dX, M, x, parts, *(statistics or (M, M)), N)
    programs = _blocks(N * H * W, tile.rows) * stride**2 * blocks
    registers = _THREE_PROGRAMS if statistics and tile.warps == 4 and tile.parts < 2 else None
    launches = [Launch(images.products, programs, arguments, constants, tile.warps, tile.stages, registers)]
    if not map:
        return dX, None, launches
    dM, fold = _fold(parts, N, T, H * W, blocks, H * W, N * H * W, T * N * H * W)
    return dX, dM, [*launches, fold]


def weight_gradient(
    dY: Tensor, x: Tensor, weight: Tensor, M: Tensor, stride: int, tile: Tile, precision: str, map: bool = False,
    dtype: torch.dtype | None = None, flatly: bool = False,
) -> tuple[Tensor, Tensor | None, list[Launch]]:  # fmt: skip
    """dW in that dtype (None: weight's) and weight's layout, with map dM (N, T) float32 too, and what computes them.
    flatly: at stride 1, of all images' pixels as one flat dimension, unless the tile's products come in parts."""
    if flatly and not tile.parts:
        return _flat_weight_gradient(dY, x, weight, M, tile, precision, dtype)
    (N, C, H, W), D, (S_h, S_w) = dY.shape, x.shape[1], weight.shape[2:]
    T, blocks, (high, wide) = S_h * S_w, _blocks(D, tile.columns), box(H, W, tile.inner)
    columns = tile.columns // tile.halves
    g = TensorDescriptor(dY, [N, H, W, C], [H * W * C, W * C, C, 1], [1, high, wide, tile.rows])
    if stride == 2:
        sizes, strides = [N, H, 2, W, 2 * D], [4 * H * W * D, 4 * W * D, 2 * W * D, 2 * D, 1]
        a = TensorDescriptor(x, sizes, strides, [1, high, 1, wide, columns])
    else:
        a = TensorDescriptor(x, [N, H, W, D], [H * W * D, W * D, D, 1], [1, high, wide, columns])
    boxes = _blocks(H, high) * _blocks(W, wide)
    parted = pieces(boxes)
    shared = _shared(N * parted, weight, tile, x, kept=3 if map else 1 + 1 / tile.halves)
    dM_parts = M.new_empty(N * parted, T, blocks * C) if map else M
    dW, dM = torch.empty_like(weight, dtype=dtype), M.new_empty(N, T) if map else M
    constants = {
        "H": H, "W": W, "C": C, "D": D, "S_H": S_h, "S_W": S_w, "STRIDE": stride, "MAP": map, "PRECISION": precision,
        "ROWS": tile.rows, "COLUMNS": columns, "HIGH": high, "WIDE": wide, "PIECES": parted,
        "NESTED": boxes // parted > _LONG, "PARTS": tile.parts,
    }  # fmt: skip
    arguments = (g, a, M, weight, shared.parts, dM_parts, N * parted, *shared.numbers)
    launches = [
        Launch(weights.sums, shared.programs, arguments, constants, tile.warps, tile.stages),
        _gather(shared, dW, dM_parts, dM, parted, tile, map),
    ]
    return dW, dM if map else None, launches


def _flat_weight_gradient(
    dY: Tensor, x: Tensor, weight: Tensor, M: Tensor, tile: Tile, precision: str, dtype: torch.dtype | None
) -> tuple[Tensor, None, list[Launch]]:
    (N, C, H, W), D, (S_h, S_w) = dY.shape, x.shape[1], weight.shape[2:]
    g, a = (
        TensorDescriptor(of, [N * H * W, channels], [channels, 1], [tile.inner, side])
        for of, channels, side in ((dY, C, tile.rows), (x, D, tile.columns))
    )
    found, dW = M.new_empty(S_h * S_w, N * H * W), torch.empty_like(weight, dtype=dtype)
    shared = _shared(_blocks(N * H * W, tile.inner), weight, tile, x, kept=1)
    sides = {"H": H, "W": W, "S_H": S_h, "S_W": S_w}
    arguments = (g, a, found, shared.parts, N, *shared.numbers)
    constants = {**sides, "C": C, "D": D, **_sides(tile, precision)}
    launches = [
        Launch(flat.scales, _blocks(N * H * W, _SCALED), (M, found, N), {**sides, "BLOCK": _SCALED}, 4, 1),
        Launch(flat.sums, shared.programs, arguments, constants, tile.warps, tile.stages),
        _gather(shared, dW, M, M, 1, tile, False),
    ]
    return dW, None, launches


class _Shared(NamedTuple):
    """How the sums of dW are shared out to programs."""

    parts: Tensor  # (tiles, slots, rows, columns)
    places: int
    share: int
    programs: int

    @property
    def numbers(self) -> tuple[int, int, int]:
        """Arguments of the kernels: places, share, slots."""
        return self.places, self.share, self.parts.shape[1]


def _shared(units: int, weight: Tensor, tile: Tile, x: Tensor, kept: float) -> _Shared:
    """kept: tiles of numbers that a program has in registers."""
    (C, D), T = weight.shape[:2], weight[0, 0].numel()
    tiles = T * _blocks(C, tile.rows) * _blocks(D, tile.columns)
    most = processors(x.device) * tile.resident(x.element_size(), kept)
    each, share = places(units, tiles, most)
    slots = (each + share - 2) // share + 1  # the most programs that share a tile
    parts = torch.empty(tiles, slots, tile.rows, tile.columns, dtype=torch.float32, device=x.device)
    return _Shared(parts, each, share, _blocks(tiles * each, share))


def _gather(shared: _Shared, dW: Tensor, dM_parts: Tensor, dM: Tensor, parted: int, tile: Tile, map: bool) -> Launch:
    (C, D), T = dW.shape[:2], dW[0, 0].numel()
    high = max(1, min(tile.rows, _GATHERED // tile.columns))
    programs = len(shared.parts) * (tile.rows // high) + (dM.numel() if map else 0)
    arguments = (shared.parts, dW, dM_parts, dM, *shared.numbers, parted)
    sides = {"ROWS": tile.rows, "COLUMNS": tile.columns, "HIGH": high, "BLOCK": 128}
    return Launch(weights.gather, programs, arguments, {"C": C, "D": D, "T": T, **sides}, 4, 1)


@functools.cache
def processors(device: torch.device) -> int:
    """Multiprocessors of a card."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else _PROCESSORS


def _fold(
    parts: Tensor, N: int, T: int, length: int, repeats: int, image: int, place: int, further: int
) -> tuple[Tensor, Launch]:
    dM = parts.new_empty(N, T)
    arguments = (parts, dM, length, repeats, image, place, further)
    return dM, Launch(images.fold, N * T, arguments, {"T": T, "BLOCK": _BLOCK}, 4, 1)


def _flat(x: Tensor, tile: Tile) -> TensorDescriptor:
    """x (N, K, H, W) as (N * H * W, K)."""
    N, K, H, W = x.shape
    return TensorDescriptor(x, [N * H * W, K], [K, 1], [tile.rows // tile.halves, tile.inner])


def _parts(tile: Tile, precision: str) -> dict[str, Any]:
    return _sides(tile._replace(rows=tile.rows // tile.halves), precision) | {"PARTS": tile.parts}


def _sides(tile: Tile, precision: str) -> dict[str, Any]:
    return {"ROWS": tile.rows, "COLUMNS": tile.columns, "INNER": tile.inner, "PRECISION": precision}


def _empty(like: Tensor, *size: int) -> Tensor:
    return torch.empty(size, dtype=like.dtype, device=like.device, memory_format=torch.channels_last)


def _blocks(size: int, block: int) -> int:
    return -(-size // block)
