"""The hypernetwork T on a GPU: everything between the partial statistics of an image and its map M in one launch, the
way back to the statistics in another, and all gradients of theta in a third.
Importing this module imports triton. Everything is computed in float32 and stored in its tensor's own type.

A program works on one image on the way there. On the way back it has a tile of images and a block of W1's columns, so
that W1 is read once a tile. An image is a row of its tile, which nothing of the other rows enters, and tiles depend on
the layer's sizes alone: an image's map and gradients have the same bits in any batch, wherever it is in it. The
gradients of theta sum over the images in a fixed order.
"""
# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False, disallow-untyped-decorators=False
# (Triton compiles these bodies: their arguments have no Python types.)

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from shconv.ops.cuda import plans, statistics

_INTERPRETED = triton.knobs.runtime.interpret  # then tiles are small, so that small layers have several
_ELEMENTS = 64 if _INTERPRETED else 16384  # of a tile of the hidden layer's weight


@triton.jit(do_not_specialize=["shares", "K", "T"])
def _forward(partials, W1, b1, W2, b2, M, seen, hidden, D, P, share, shares, K, T, eps,
             F: tl.constexpr, MEAN_AT: tl.constexpr, STD_AT: tl.constexpr, SHARES: tl.constexpr,
             HIDDEN: tl.constexpr, TAPS: tl.constexpr, CHANNELS: tl.constexpr):  # fmt: skip
    """M (N, T) = sigmoid(W2 relu(W1 s + b1) + b2), and what the way back needs: seen = [mu, sigma] and relu's output.

    W1 (K, F * D) has mu's columns from MEAN_AT * D on, sigma's from STD_AT * D; -1 where it does not look at it.
    """
    n = tl.program_id(0).to(tl.int64)
    k, t = tl.arange(0, HIDDEN), tl.arange(0, TAPS)
    sums = tl.zeros((HIDDEN, CHANNELS), tl.float32)
    for first in range(0, D, CHANNELS):
        d = first + tl.arange(0, CHANNELS)
        mu, variance = statistics.combined(partials, n, d, D, P, share, shares, SHARES)
        sigma = tl.sqrt_rn(variance + eps)
        tl.store(seen + n * 2 * D + d, mu, d < D)
        tl.store(seen + n * 2 * D + D + d, sigma, d < D)
        inside = (k < K)[:, None] & (d < D)[None, :]
        rows = W1 + k[:, None] * (F * D) + d[None, :]
        if MEAN_AT >= 0:
            sums += tl.load(rows + MEAN_AT * D, inside, 0.0).to(tl.float32) * mu[None, :]
        if STD_AT >= 0:
            sums += tl.load(rows + STD_AT * D, inside, 0.0).to(tl.float32) * sigma[None, :]
    z = tl.sum(sums, 1) + tl.load(b1 + k, k < K, 0.0).to(tl.float32)
    h = tl.where(z < 0, 0.0, z)  # a NaN stays one
    tl.store(hidden + n * K + k, h, k < K)
    W = tl.load(W2 + t[:, None] * K + k[None, :], (t < T)[:, None] & (k < K)[None, :], 0.0).to(tl.float32)
    logits = tl.sum(W * h[None, :], 1) + tl.load(b2 + t, t < T, 0.0).to(tl.float32)
    tl.store(M + n * T + t, 1.0 / (1.0 + tl.exp(-logits)), t < T)


@triton.jit
def _of_logits(dM, M, dlogits, n, t, N, T, writes):
    """The gradients of the logits as (n, t): stored, if this program writes them."""
    inside = (n < N)[:, None] & (t < T)[None, :]
    places = n.to(tl.int64)[:, None] * T + t[None, :]
    m = tl.load(M + places, inside, 0.0)
    dlogit = tl.load(dM + places, inside, 0.0) * (1.0 - m) * m
    tl.store(dlogits + places, dlogit, inside & writes)
    return dlogit


@triton.jit
def _through(dlogit, W2, t, k, K, T):
    """What the logits of taps t give to the neurons, as (n, k)."""
    W = tl.load(W2 + t[:, None] * K + k[None, :], (t < T)[:, None] & (k < K)[None, :], 0.0).to(tl.float32)
    return tl.dot(dlogit, W, input_precision="ieee")


@triton.jit(do_not_specialize=["N", "T"])
def _backward(dM, M, seen, hidden, W1, W2, dlogits, dz, dseen, N, D, K, T,
              F: tl.constexpr, STD_AT: tl.constexpr, NEEDS_X: tl.constexpr, ONE: tl.constexpr,
              IMAGES: tl.constexpr, TAPS: tl.constexpr, NEURONS: tl.constexpr, CHANNELS: tl.constexpr):  # fmt: skip
    """The gradients of both linear layers' outputs and, where x's is wanted, dseen = [dmu, dvariance] (N, 2, D).

    The programs of the first block of columns write what all of them compute. ONE: one tile has all taps.
    """
    across = tl.cdiv(D, CHANNELS)
    blocks = F * across if NEEDS_X else 1
    block = tl.program_id(0) % blocks
    n = tl.program_id(0) // blocks * IMAGES + tl.arange(0, IMAGES)
    row = n.to(tl.int64)[:, None]
    at, d = block // across, block % across * CHANNELS + tl.arange(0, CHANNELS)
    t, writes = tl.arange(0, TAPS), block == 0
    dlogit = _of_logits(dM, M, dlogits, n, t, N, T, writes)
    sums = tl.zeros((IMAGES, CHANNELS), tl.float32)
    for first in range(0, K, NEURONS):
        k = first + tl.arange(0, NEURONS)
        inside = (n < N)[:, None] & (k < K)[None, :]
        back = _through(dlogit, W2, t, k, K, T)
        if not ONE:  # Triton reads ahead in innermost loops only: one tile of taps needs none here
            for tap in range(TAPS, T, TAPS):
                others = _of_logits(dM, M, dlogits, n, tap + t, N, T, writes & (first == 0))
                back += _through(others, W2, tap + t, k, K, T)
        h = tl.load(hidden + row * K + k[None, :], inside, 0.0)
        back = tl.where(h <= 0, 0.0, back)
        tl.store(dz + row * K + k[None, :], back, inside & writes)
        if NEEDS_X:
            columns = W1 + k[:, None] * (F * D) + at * D + d[None, :]
            W = tl.load(columns, (k < K)[:, None] & (d < D)[None, :], 0.0).to(tl.float32)
            sums = tl.dot(back, W, sums, input_precision="ieee")
    if NEEDS_X:
        inside = (n < N)[:, None] & (d < D)[None, :]
        places = row * (2 * D) + d[None, :]
        of_sigma = at == STD_AT
        sigma = tl.load(seen + places + D, inside & of_sigma, 0.5)  # dvariance = dsigma / (2 sigma); dmu stays
        tl.store(dseen + places + tl.where(of_sigma, D, 0), sums / (2.0 * sigma), inside)
        if F == 1:  # W1 does not look at the other
            tl.store(dseen + places + tl.where(of_sigma, 0, D), tl.zeros_like(sums), inside)


@triton.jit
def _outer(a, b, dW, db, block, N, R, C, ROWS: tl.constexpr, COLUMNS: tl.constexpr, IMAGES: tl.constexpr):
    """A block of dW (R, C) = sum over n of a_n (R,) b_n (C,)^T, and of db = sum over n of a_n."""
    across = tl.cdiv(C, COLUMNS)
    r = block // across * ROWS + tl.arange(0, ROWS)
    c = block % across * COLUMNS + tl.arange(0, COLUMNS)
    weights, biases = tl.zeros((ROWS, COLUMNS), tl.float32), tl.zeros((ROWS, IMAGES), tl.float32)
    for first in range(0, N, IMAGES):
        n = first + tl.arange(0, IMAGES)
        A = tl.load(a + n.to(tl.int64)[None, :] * R + r[:, None], (n < N)[None, :] & (r < R)[:, None], 0.0)
        B = tl.load(b + n.to(tl.int64)[:, None] * C + c[None, :], (n < N)[:, None] & (c < C)[None, :], 0.0)
        weights = tl.dot(A, B, weights, input_precision="ieee")
        biases += A
    inside = (r < R)[:, None] & (c < C)[None, :]
    tl.store(dW + r[:, None] * C + c[None, :], weights.to(dW.dtype.element_ty), inside)
    if block % across == 0:
        tl.store(db + r, tl.sum(biases, 1).to(db.dtype.element_ty), r < R)


@triton.jit(do_not_specialize=["blocks", "N", "T"])
def _theta(dz, s, dW1, db1, dlogits, hidden, dW2, db2, blocks, N, K, S, T,
           ROWS: tl.constexpr, COLUMNS: tl.constexpr, IMAGES: tl.constexpr):  # fmt: skip
    """The first `blocks` programs have the hidden layer's gradients, the others the output layer's."""
    block = tl.program_id(0)
    if block < blocks:
        _outer(dz, s, dW1, db1, block, N, K, S, ROWS, COLUMNS, IMAGES)
    else:
        _outer(dlogits, hidden, dW2, db2, block - blocks, N, T, K, ROWS, COLUMNS, IMAGES)


def forward(
    x: Tensor, W1: Tensor, b1: Tensor, W2: Tensor, b2: Tensor, order: Sequence[int], eps: float,
    into: tuple[Tensor, Tensor, Tensor],
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """M (N, T), [mu, sigma] (N, 2, D) and relu's output (N, K), in two launches. into: float32 memory for them.

    order: what W1 (K, len(order) * D) looks at, 0 for mu and 1 for sigma.
    """
    found, (K, T) = statistics.partials(x), (len(W1), len(W2))
    M, seen, hidden = into
    tile = _tile(x.shape[1], K, T)
    with torch.cuda.device_of(x):
        tensors = {
            "W1": W1.contiguous(), "b1": b1.contiguous(), "W2": W2.contiguous(), "b2": b2.contiguous(),
            "M": M, "seen": seen, "hidden": hidden,
        }  # fmt: skip
        columns = {"F": len(order), "MEAN_AT": _place(0, order), "STD_AT": _place(1, order)}
        numbers = {"K": K, "T": T, "eps": eps, **columns, **tile}
        plans.run(_forward, (len(x),), {**found._asdict(), **tensors, **numbers})
    return M, seen, hidden


def backward(
    dM: Tensor, M: Tensor, seen: Tensor, hidden: Tensor, theta: tuple[Tensor, Tensor, Tensor, Tensor],
    order: Sequence[int], needs_x: bool, needs_theta: bool,
) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None, Tensor | None]:  # fmt: skip
    """[dmu, dvariance] (N, 2, D), undefined unless x's gradient is wanted, and the gradients of theta = (W1, b1, W2,
    b2): one launch, one more for theta."""
    W1, _, W2, _ = theta
    N, D, (K, S), T = len(M), seen.shape[2], W1.shape, len(W2)
    dlogits, dz, dseen = torch.empty_like(M), torch.empty_like(hidden), torch.empty_like(seen)
    with torch.cuda.device_of(M):
        tensors = {
            "dM": dM.contiguous(), "M": M, "seen": seen, "hidden": hidden, "W1": W1.contiguous(),
            "W2": W2.contiguous(), "dlogits": dlogits, "dz": dz, "dseen": dseen,
        }  # fmt: skip
        tile = _backward_tile(D, K, T)
        blocks = len(order) * triton.cdiv(D, tile["CHANNELS"]) if needs_x else 1
        known = {"F": len(order), "STD_AT": _place(1, order), "NEEDS_X": needs_x, **tile}
        numbers = {"N": N, "D": D, "K": K, "T": T, **known}
        plans.run(_backward, (triton.cdiv(N, tile["IMAGES"]) * blocks,), {**tensors, **numbers})
    if not needs_theta:
        return dseen, None, None, None, None
    s = seen if list(order) == [0, 1] else torch.cat([seen[:, which] for which in order], 1)
    dW1, db1, dW2, db2 = (each.new_empty(each.shape) for each in theta)
    tile = _theta_tile(K)
    first, second = (
        triton.cdiv(rows, tile["ROWS"]) * triton.cdiv(columns, tile["COLUMNS"]) for rows, columns in ((K, S), (T, K))
    )
    with torch.cuda.device_of(M):
        tensors = {
            "dz": dz, "s": s, "dW1": dW1, "db1": db1, "dlogits": dlogits, "hidden": hidden, "dW2": dW2, "db2": db2,
        }  # fmt: skip
        numbers = {"blocks": first, "N": N, "K": K, "S": S, "T": T, **tile}
        plans.run(_theta, (first + second,), {**tensors, **numbers})
    return dseen, dW1, db1, dW2, db2


def _place(which: int, order: Sequence[int]) -> int:
    return order.index(which) if which in order else -1


def _tile(D: int, K: int, T: int) -> dict[str, Any]:
    hidden, taps, wide = (triton.next_power_of_2(size) for size in (K, T, D))
    channels = max(1, min(wide, _ELEMENTS // hidden))
    elements = hidden * max(channels, taps)
    return {"HIDDEN": hidden, "TAPS": taps, "CHANNELS": channels, "num_warps": min(16, max(4, elements // 1024))}


def _backward_tile(D: int, K: int, T: int) -> dict[str, Any]:
    taps, neurons, channels = _side(T, 32), _side(K, 32), _side(D, 64)
    sides = {"IMAGES": 16, "TAPS": taps, "NEURONS": neurons, "CHANNELS": channels}
    return {**sides, "ONE": taps >= T, "num_warps": 4, "num_stages": 3}


def _theta_tile(K: int) -> dict[str, Any]:
    rows, stages = (32, 4) if K >= 256 else (16, 3)  # where few neurons would make few programs
    columns = 16 if _INTERPRETED else 64
    return {"ROWS": rows, "COLUMNS": columns, "IMAGES": 16, "num_warps": 4, "num_stages": stages}


def _side(size: int, most: int) -> int:
    """A side of a tile of tl.dot, which takes no less than 16."""
    return 16 if _INTERPRETED else min(most, max(16, triton.next_power_of_2(size)))
