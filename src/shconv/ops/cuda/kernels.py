"""The Triton kernels of formulation "triton" and the settings they are tuned over: implicit matrix products, one for
each tap. Importing this module imports triton; images are channels last, the weight is (C, T, D).

A tap's product is complete, in float32, before the tap's scale touches it: no operand is rounded twice, and nothing
here adds atomically, so that a result does not change from run to run.
"""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False, disallow-untyped-decorators=False
# (Triton compiles these bodies: their arguments have no Python types.)

import contextlib
import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
import triton
import triton.language as tl

from shconv.ops.cuda import plans, runtime, tape, tuning

_fastest: dict[tuple[Any, ...], Any] = {}  # the tiles of every key launched so far
_PRODUCTS = ("C", "D", "S_H", "S_W", "OUT_H", "OUT_W")  # of an image, all of them together
_SHARED_BYTES = 227 * 1024  # of an sm_90 block
_CLASS = ["parts", "N", "H", "W", "OUT_H", "OUT_W", "first_h", "first_w", "height", "width", "tap_h", "taps_h", "tap_w",
          "taps_w"]  # fmt: skip
_WIDEN = tl.constexpr(triton.knobs.runtime.interpret)  # the interpreter would multiply the bits of bfloat16 as integers


def _configurations(*tiles: tuple[int, int, int, int, int]) -> list[Any]:
    """(rows, columns, inner, warps, stages) of each: the default first, last the one for float32 without tensor cores,
    where operands are in registers too. The interpreter has a small one of its own."""
    if triton.knobs.runtime.interpret:
        tiles = ((32, 16, 16, 1, 1),)
    return [
        triton.Config({"ROWS": rows, "COLUMNS": columns, "INNER": inner}, num_warps=warps, num_stages=stages)
        for rows, columns, inner, warps, stages in tiles
    ]


def _fitting(configurations: list[Any], named: dict[str, Any], **constants: Any) -> list[Any]:
    """Those no wider than the channels want whose operands have room in shared memory; at least one."""
    named = named | constants
    size = named["x"].element_size()
    if size == 4 and named["PRECISION"] == "ieee":
        return configurations[-1:]
    columns = named["C"] if "Y" in named else named["D"]
    rows = named["C"] if "SPLITS" in named else math.inf
    along = named["OUT_H"] * named["OUT_W"] if "SPLITS" in named else 0  # what backward_weight sums over, by image

    def fits(configuration: Any) -> bool:
        tile = configuration.kwargs
        operands = (tile["ROWS"] + tile["COLUMNS"]) * tile["INNER"] * size * configuration.num_stages
        wide = tile["COLUMNS"] > max(64, columns) or tile["ROWS"] > max(64, rows)
        return operands < _SHARED_BYTES and not wide and (tile["INNER"] > 16 or along < 64)

    return [each for each in configurations[:-1] if fits(each)] or configurations[-1:]


def _tuned(*tiles: tuple[int, int, int, int, int], key: tuple[str, ...] = (), reset: tuple[str, ...] = ()) -> Any:
    """Tuned once for each geometry, never for a number of images: an image's bits must not depend on its batch."""
    return triton.autotune(
        configs=_configurations(*tiles),
        key=["C", "D", "H", "W", "S_H", "S_W", "STRIDE_H", "STRIDE_W", "PRECISION", *key],
        prune_configs_by={"early_config_prune": _fitting},
        reset_to_zero=list(reset),
        cache_results=True,
    )


@triton.jit
def _dot(a, b, sums, PRECISION: tl.constexpr):
    if _WIDEN:
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, sums, input_precision=PRECISION)


@triton.jit
def _product(A, a_mask, B, b_mask, step, CHANNELS: tl.constexpr, PRECISION: tl.constexpr,
             ROWS: tl.constexpr, COLUMNS: tl.constexpr, INNER: tl.constexpr):  # fmt: skip
    """Rows at A (ROWS,) of CHANNELS elements side by side, times columns at B (COLUMNS,) of as many, a step apart."""
    k = tl.arange(0, INNER)
    product = tl.zeros((ROWS, COLUMNS), tl.float32)
    if CHANNELS <= INNER:  # no loop here, so that the one over taps is the one whose loads run ahead
        a = tl.load(A[:, None] + k[None, :], a_mask[:, None] & (k < CHANNELS)[None, :], 0.0)
        b = tl.load(B[None, :] + k[:, None] * step, b_mask[None, :] & (k < CHANNELS)[:, None], 0.0)
        product = _dot(a, b, product, PRECISION)
    else:
        for first in range(0, CHANNELS, INNER):
            inside = first + k < CHANNELS
            a = tl.load(A[:, None] + (first + k)[None, :], a_mask[:, None] & inside[None, :], 0.0)
            b = tl.load(B[None, :] + (first + k)[:, None] * step, b_mask[None, :] & inside[:, None], 0.0)
            product = _dot(a, b, product, PRECISION)
    return product


@_tuned((128, 64, 64, 8, 3), (128, 128, 64, 8, 3), (64, 256, 64, 8, 3), (128, 64, 64, 4, 3), (64, 64, 16, 8, 3))
@triton.jit(do_not_specialize=["rows", "H", "W", "OUT_H", "OUT_W"])
def forward(x, weight, M, Y, rows, H, W, OUT_H, OUT_W,
            C: tl.constexpr, D: tl.constexpr, S_H: tl.constexpr, S_W: tl.constexpr,
            STRIDE_H: tl.constexpr, STRIDE_W: tl.constexpr, PADDING_H: tl.constexpr, PADDING_W: tl.constexpr,
            DILATION_H: tl.constexpr, DILATION_W: tl.constexpr, PRECISION: tl.constexpr,
            ROWS: tl.constexpr, COLUMNS: tl.constexpr, INNER: tl.constexpr):  # fmt: skip
    """Y: rows are the output pixels of all images, columns the output channels; programs that share rows are next."""
    T: tl.constexpr = S_H * S_W
    blocks: tl.constexpr = (C + COLUMNS - 1) // COLUMNS
    r = (tl.program_id(0) // blocks) * ROWS + tl.arange(0, ROWS)
    c = (tl.program_id(0) % blocks) * COLUMNS + tl.arange(0, COLUMNS)
    n, oh, ow = r // (OUT_H * OUT_W), r // OUT_W % OUT_H, r % OUT_W
    kernels = weight + c.to(tl.int64) * (T * D)
    sums = tl.zeros((ROWS, COLUMNS), tl.float32)
    for t in range(T):
        h = oh * STRIDE_H - PADDING_H + t // S_W * DILATION_H
        w = ow * STRIDE_W - PADDING_W + t % S_W * DILATION_W
        inside = (r < rows) & (h >= 0) & (h < H) & (w >= 0) & (w < W)
        X = x + ((n.to(tl.int64) * H + h) * W + w) * D
        scale = tl.load(M + n.to(tl.int64) * T + t, r < rows, 0.0)
        P = _product(X, inside, kernels + t * D, c < C, 1, D, PRECISION, ROWS, COLUMNS, INNER)
        sums += scale[:, None] * P
    target = Y + r.to(tl.int64)[:, None] * C + c[None, :]
    tl.store(target, sums.to(Y.dtype.element_ty), (r < rows)[:, None] & (c < C)[None, :])


@_tuned((128, 64, 64, 8, 3), (64, 64, 64, 8, 3), (64, 128, 64, 8, 3), (128, 128, 32, 8, 3), (64, 64, 16, 8, 3),
        key=("NEEDS_X", "NEEDS_MAP"), reset=("dM_parts",))  # fmt: skip
@triton.jit(do_not_specialize=_CLASS)
def backward_input(dY, x, weight, M, dX, dM_parts, parts, N, H, W, OUT_H, OUT_W,
                   first_h, first_w, height, width, tap_h, taps_h, tap_w, taps_w,
                   C: tl.constexpr, D: tl.constexpr, S_H: tl.constexpr, S_W: tl.constexpr,
                   STRIDE_H: tl.constexpr, STRIDE_W: tl.constexpr, PADDING_H: tl.constexpr, PADDING_W: tl.constexpr,
                   DILATION_H: tl.constexpr, DILATION_W: tl.constexpr,
                   STEP_H: tl.constexpr, STEP_W: tl.constexpr, NEEDS_X: tl.constexpr, NEEDS_MAP: tl.constexpr,
                   PLACES: tl.constexpr, PRECISION: tl.constexpr,
                   ROWS: tl.constexpr, COLUMNS: tl.constexpr, INNER: tl.constexpr):  # fmt: skip
    """dX, and the parts (N, parts, T) of dM: rows are input pixels, columns the input channels.

    The pixels are those a stride apart from (first_h, first_w), height x width of them: all are reached by the same
    taps, taps_h x taps_w of them, steps apart from (tap_h, tap_w), and each tap reaches such pixels of one launch only.
    A tile has PLACES of every image in it: an image's pixels, rounded up to a power of two, or all its rows.
    """
    T: tl.constexpr = S_H * S_W
    IMAGES: tl.constexpr = ROWS // PLACES if PLACES < ROWS else 1
    blocks: tl.constexpr = (D + COLUMNS - 1) // COLUMNS
    tiles = tl.cdiv(height * width, ROWS // IMAGES) * blocks  # programs that share images
    tile = tl.program_id(0) % tiles
    first = (tl.program_id(0) // tiles).to(tl.int64) * IMAGES
    row = tl.arange(0, ROWS)
    n = first + row // (ROWS // IMAGES)
    q = (tile // blocks) * (ROWS // IMAGES) + row % (ROWS // IMAGES)
    d = (tile % blocks) * COLUMNS + tl.arange(0, COLUMNS)
    wanted = (q < height * width) & (n < N)
    h, w = first_h + q // width * STRIDE_H, first_w + q % width * STRIDE_W
    pixels = ((n * H + h) * W + w)[:, None] * D + d[None, :]
    mask = wanted[:, None] & (d < D)[None, :]
    if NEEDS_MAP:
        X = tl.load(x + pixels, mask, 0.0)
        image = first + tl.arange(0, IMAGES)
    sums = tl.zeros((ROWS, COLUMNS), tl.float32)
    for step in range(taps_h * taps_w):
        i, j = tap_h + step // taps_w * STEP_H, tap_w + step % taps_w * STEP_W
        t = i * S_W + j
        reach_h, reach_w = h + PADDING_H - i * DILATION_H, w + PADDING_W - j * DILATION_W  # multiples of the stride
        oh, ow = reach_h // STRIDE_H, reach_w // STRIDE_W
        inside = wanted & (reach_h >= 0) & (oh < OUT_H) & (reach_w >= 0) & (ow < OUT_W)
        rows = dY + ((n * OUT_H + oh) * OUT_W + ow) * C
        G = _product(rows, inside, weight + t * D + d, d < D, T * D, C, PRECISION, ROWS, COLUMNS, INNER)
        if NEEDS_X:
            sums += tl.load(M + n * T + t, wanted, 0.0)[:, None] * G
        if NEEDS_MAP:
            shares = tl.reshape(tl.sum(G * X.to(tl.float32), 1), (IMAGES, ROWS // IMAGES))
            tl.store(dM_parts + (image * parts + tile) * T + t, tl.sum(shares, 1), image < N)
    if NEEDS_X:
        tl.store(dX + pixels, sums.to(dX.dtype.element_ty), mask)


@_tuned((64, 64, 64, 4, 3), (128, 128, 64, 8, 3), (128, 64, 64, 4, 3), (64, 128, 64, 4, 3), (64, 64, 16, 4, 4),
        (64, 64, 16, 8, 3))  # fmt: skip
@triton.jit(do_not_specialize=["N", "H", "W", "OUT_H", "OUT_W", "SPLITS"])
def backward_weight(dY, x, M, dW_parts, N, H, W, OUT_H, OUT_W, SPLITS,
                    C: tl.constexpr, D: tl.constexpr, S_H: tl.constexpr, S_W: tl.constexpr,
                    STRIDE_H: tl.constexpr, STRIDE_W: tl.constexpr, PADDING_H: tl.constexpr, PADDING_W: tl.constexpr,
                    DILATION_H: tl.constexpr, DILATION_W: tl.constexpr, PRECISION: tl.constexpr,
                    ROWS: tl.constexpr, COLUMNS: tl.constexpr, INNER: tl.constexpr):  # fmt: skip
    """The parts (SPLITS, C, T, D) of dW: rows are output channels, columns input channels of one tap.

    The sum runs over a share of the pixels, in chunks that lie in one image, so that a chunk has one scale.
    """
    T: tl.constexpr = S_H * S_W
    across: tl.constexpr = (D + COLUMNS - 1) // COLUMNS
    down: tl.constexpr = (C + ROWS - 1) // ROWS
    place = tl.program_id(0) % (across * down * T)
    split = tl.program_id(0) // (across * down * T)
    d = place % across * COLUMNS + tl.arange(0, COLUMNS)
    c = place // across % down * ROWS + tl.arange(0, ROWS)
    t = place // (across * down)
    shift_h, shift_w = t // S_W * DILATION_H - PADDING_H, t % S_W * DILATION_W - PADDING_W
    chunks = tl.cdiv(OUT_H * OUT_W, INNER)  # of an image
    share = tl.cdiv(N * chunks, SPLITS)
    sums = tl.zeros((ROWS, COLUMNS), tl.float32)
    for chunk in range(split * share, min((split + 1) * share, N * chunks)):
        n = (chunk // chunks).to(tl.int64)
        p = chunk % chunks * INNER + tl.arange(0, INNER)
        h, w = p // OUT_W * STRIDE_H + shift_h, p % OUT_W * STRIDE_W + shift_w
        # dY is masked like x: what is no number would not become zero by meeting one.
        inside = (p < OUT_H * OUT_W) & (h >= 0) & (h < H) & (w >= 0) & (w < W)
        dy = tl.load(dY + (n * (OUT_H * OUT_W) + p)[None, :] * C + c[:, None], inside[None, :] & (c < C)[:, None], 0.0)
        X = tl.load(x + ((n * H + h) * W + w)[:, None] * D + d[None, :], inside[:, None] & (d < D)[None, :], 0.0)
        sums += tl.load(M + n * T + t) * _dot(dy, X, tl.zeros((ROWS, COLUMNS), tl.float32), PRECISION)
    target = dW_parts + split.to(tl.int64) * (C * T * D) + ((c * T + t) * D)[:, None] + d[None, :]
    tl.store(target, sums, (c < C)[:, None] & (d < D)[None, :])


def launch(kernel: Any, grid: Callable[[dict[str, int]], tuple[int]], **arguments: Any) -> None:
    """With the fastest tiles for the call's key, tried at its first; where nothing may be measured with the first that
    fit, so that neither a capture is broken nor a deterministic result depends on a clock."""
    key = (kernel, arguments["x"].dtype, *(arguments[name] for name in kernel.keys))
    tiles = None if tuning.fixed() else _fastest.get(key)
    if tiles is None and tuning.measures(math.prod(arguments[name] for name in _PRODUCTS)):
        if tape.collected() is not None:
            for each in _fitting(kernel.configs, arguments):
                plans.run(kernel.fn, grid, arguments | each.all_kwargs())
            return
        tape.refuse_for_now("tiles are tried")
        _compile(kernel, arguments)
        kernel[grid](**arguments)
        _fastest[key] = kernel.best_config
    else:
        tiles = tiles or _fitting(kernel.configs, arguments)[0]
        plans.run(kernel.fn, grid, arguments | tiles.all_kwargs())


def _compile(kernel: Any, arguments: dict[str, Any]) -> None:
    """All that will be tried, side by side; what does not compile is left to the trial, which goes on without it."""
    tried = _fitting(kernel.configs, arguments)

    def compile(tiles: Any) -> None:
        with contextlib.suppress(Exception):
            kernel.fn.warmup(grid=(1,), **arguments, **tiles.all_kwargs())

    with ThreadPoolExecutor(min(len(tried), os.cpu_count() or 1)) as pool:
        list(pool.map(compile, tried))


def precision(dtype: torch.dtype) -> str:
    """How float32 operands are multiplied: as torch's own convolutions are told to, by default on tensor cores. Triton
    cuts them off to TF32's bits where cuDNN rounds them."""
    return "tf32" if dtype == torch.float32 and runtime.tf32() else "ieee"


def least(kernel: Any, side: str) -> int:
    """The smallest ROWS, COLUMNS or INNER a kernel is ever run with."""
    return min(int(each.kwargs[side]) for each in kernel.configs)
