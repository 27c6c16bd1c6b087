"""Mean and population variance of every channel of every image on a GPU, and their gradient: one visit of x each.
Importing this module imports triton. x is float32, bfloat16 or float16, contiguous or channels last, below 2^31
elements an image; everything is computed in float32.

A program works on a tile of channels and a share of the pixels, a tile of them in its registers at a time: first their
mean, then the squares about it, so nothing is lost to a mean that is large beside the deviation. Tiles and shares are
put together by their means (Chan, Golub and LeVeque 1983). Both depend on an image's size alone, and nothing is added
atomically: an image's numbers have the same bits in any batch.
"""
# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False, disallow-untyped-decorators=False
# (Triton compiles these bodies: their arguments have no Python types.)

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from shconv.ops.cuda import plans

_INTERPRETED = triton.knobs.runtime.interpret  # then everything is small, so that small images have several of each
_TILE = 64 if _INTERPRETED else 16384  # elements: many reads under way at a time
_GRADIENT_TILE = 64 if _INTERPRETED else 4096
_TILE_CHANNELS = 8 if _INTERPRETED else 64  # where channels are neighbours
_TILE_PIXELS = 16 if _INTERPRETED else 1024  # where pixels are
_STEPS = 2 if _INTERPRETED else 1  # tiles a share holds, the least of them
_MOST_SHARES = 4 if _INTERPRETED else 64  # of an image
_WARPS = 8


@triton.jit
def _places(n, d, p, D, P, LAST: tl.constexpr):
    """Where channels d and pixels p of image n lie, as (d, p)."""
    inside = p[None, :] * D + d[:, None] if LAST else d[:, None] * P + p[None, :]
    return n * D * P + inside


@triton.jit(do_not_specialize=["shares"])
def moments(x, partials, D, P, share, shares, LAST: tl.constexpr, CHANNELS: tl.constexpr, PIXELS: tl.constexpr):
    """partials (N, shares, 2, D): mean and summed squared deviation of every share of the pixels."""
    blocks = tl.cdiv(D, CHANNELS)
    n = (tl.program_id(0) // (blocks * shares)).to(tl.int64)
    which = tl.program_id(0) % shares
    d = tl.program_id(0) // shares % blocks * CHANNELS + tl.arange(0, CHANNELS)
    first = which * share
    last = tl.minimum(first + share, P)
    mean = tl.zeros((CHANNELS,), tl.float32)
    squares = tl.zeros((CHANNELS,), tl.float32)
    for start in range(first, last, PIXELS):
        p = start + tl.arange(0, PIXELS)
        inside = (d < D)[:, None] & (p < last)[None, :]
        X = tl.load(x + _places(n, d, p, D, P, LAST), inside, 0.0).to(tl.float32)
        before, count = (start - first).to(tl.float32), tl.minimum(last - start, PIXELS).to(tl.float32)
        own = tl.sum(X, 1) / count
        away = tl.where(inside, X - own[:, None], 0.0)
        off, part = own - mean, count / (before + count)
        mean += off * part
        squares += tl.sum(away * away, 1) + off * off * (before * part)
    target = partials + (n * shares + which) * 2 * D + d
    tl.store(target, mean, d < D)
    tl.store(target + D, squares, d < D)


@triton.jit
def combined(partials, n, d, D, P, share, shares, SHARES: tl.constexpr):
    """Mean and variance of channels d of image n, from all its shares."""
    which = tl.arange(0, SHARES)
    inside = (which < shares)[:, None] & (d < D)[None, :]
    source = partials + (n * shares + which)[:, None] * 2 * D + d[None, :]
    means = tl.load(source, inside, 0.0)
    squares = tl.load(source + D, inside, 0.0)
    pixels = tl.minimum(tl.maximum(P - which * share, 0), share).to(tl.float32)[:, None]
    mean = tl.sum(pixels * means, 0) / P
    away = means - mean[None, :]
    return mean, tl.sum(squares + pixels * away * away, 0) / P


@triton.jit(do_not_specialize=["shares"])
def _finish(partials, mean, variance, D, P, share, shares, SHARES: tl.constexpr, CHANNELS: tl.constexpr):
    n = (tl.program_id(0) // tl.cdiv(D, CHANNELS)).to(tl.int64)
    d = tl.program_id(0) % tl.cdiv(D, CHANNELS) * CHANNELS + tl.arange(0, CHANNELS)
    mu, sigma_squared = combined(partials, n, d, D, P, share, shares, SHARES)
    tl.store(mean + n * D + d, mu, d < D)
    tl.store(variance + n * D + d, sigma_squared, d < D)


@triton.jit
def gradient(x, mean, dmean, dvariance, dX, row, D, P, LAST: tl.constexpr, CHANNELS: tl.constexpr,
             PIXELS: tl.constexpr, ADD: tl.constexpr):  # fmt: skip
    """dX, or with ADD what it is beside dX, = (dmean + 2 dvariance (x - mean)) / P; those three have `row` elements an
    image."""
    blocks, across = tl.cdiv(P, PIXELS), tl.cdiv(D, CHANNELS)
    n = (tl.program_id(0) // (blocks * across)).to(tl.int64)
    d = tl.program_id(0) // blocks % across * CHANNELS + tl.arange(0, CHANNELS)
    p = tl.program_id(0) % blocks * PIXELS + tl.arange(0, PIXELS)
    inside = (d < D)[:, None] & (p < P)[None, :]
    places = _places(n, d, p, D, P, LAST)
    level = tl.load(dmean + n * row + d, d < D, 0.0) / P
    slope = tl.load(dvariance + n * row + d, d < D, 0.0) * (2.0 / P)
    middle = tl.load(mean + n * row + d, d < D, 0.0)
    X = tl.load(x + places, inside, 0.0).to(tl.float32)
    result = level[:, None] + slope[:, None] * (X - middle[:, None])
    if ADD:
        result += tl.load(dX + places, inside, 0.0).to(tl.float32)
    tl.store(dX + places, result.to(dX.dtype.element_ty), inside)


class Partials(NamedTuple):
    """What moments leaves, and how the pixels were shared out: arguments of `combined` by name."""

    partials: Tensor  # (N, shares, 2, D)
    D: int
    P: int
    share: int
    shares: int
    SHARES: int


def partials(x: Tensor) -> Partials:
    """One launch over x (N, D, H, W), contiguous or channels last."""
    tile, (D, P) = _tile(x), (x.shape[1], x.shape[2] * x.shape[3])
    least = _blocks(P, _MOST_SHARES * tile["PIXELS"])
    share = tile["PIXELS"] * max(_STEPS, least)
    shares = _blocks(P, share)
    found = torch.empty(len(x), shares, 2, D, dtype=torch.float32, device=x.device)
    with torch.cuda.device_of(x):
        grid = (len(x) * _blocks(D, tile["CHANNELS"]) * shares,)
        numbers = {"D": D, "P": P, "share": share, "shares": shares, **tile, "num_warps": _WARPS}
        plans.run(moments, grid, {"x": x, "partials": found, **numbers})
    return Partials(found, D, P, share, shares, triton.next_power_of_2(shares))


def mean_variance(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and population variance (N, D) of x (N, D, H, W), in float32."""
    found = partials(x)
    mean, variance = (torch.empty(x.shape[:2], dtype=torch.float32, device=x.device) for _ in range(2))
    channels = min(triton.next_power_of_2(found.D), 64)
    with torch.cuda.device_of(x):
        grid = (len(x) * _blocks(found.D, channels),)
        plans.run(_finish, grid, {"mean": mean, "variance": variance, "CHANNELS": channels, **found._asdict()})
    return mean, variance


def input_gradient(x: Tensor, mean: Tensor, dmean: Tensor, dvariance: Tensor, beside: Tensor | None = None) -> Tensor:
    """dX, in x's layout; the others are (N, D).

    beside: another gradient of x in its layout and dtype, which then becomes the sum and is what is returned."""
    tile, (D, P), dX = _tile(x, _GRADIENT_TILE), (x.shape[1], x.shape[2] * x.shape[3]), beside
    dX = torch.empty_like(x) if dX is None else dX
    if not mean.stride() == dmean.stride() == dvariance.stride() == (mean.stride(0), 1):  # the kernel has one for all
        mean, dmean, dvariance = mean.contiguous(), dmean.contiguous(), dvariance.contiguous()
    grid = (len(x) * _blocks(D, tile["CHANNELS"]) * _blocks(P, tile["PIXELS"]),)
    with torch.cuda.device_of(x):
        tensors = {"x": x, "mean": mean, "dmean": dmean, "dvariance": dvariance, "dX": dX}
        plans.run(gradient, grid, {**tensors, "row": mean.stride(0), "D": D, "P": P, **tile,
                                   "ADD": beside is not None, "num_warps": _WARPS})  # fmt: skip
    return dX


def _tile(x: Tensor, elements: int = _TILE) -> dict[str, Any]:
    D, P, last = triton.next_power_of_2(x.shape[1]), triton.next_power_of_2(x.shape[2] * x.shape[3]), _last(x)
    if last:
        channels = min(D, _TILE_CHANNELS)
        pixels = min(P, elements // channels)
    else:
        pixels = min(P, _TILE_PIXELS)
        channels = min(D, elements // pixels)
    return {"LAST": last, "CHANNELS": channels, "PIXELS": pixels}


def _last(x: Tensor) -> bool:
    return not x.is_contiguous()


def _blocks(size: int, block: int) -> int:
    return -(-size // block)
