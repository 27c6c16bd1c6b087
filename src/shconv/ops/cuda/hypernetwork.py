"""The hypernetwork T on a GPU: everything between the partial statistics of an image and its map M in one launch, the
way back to the statistics in another, and all gradients of theta in a third.
Importing this module imports triton. Everything is computed in float32 and stored in its tensor's own type.

One program works on one image, so that an image's map has the same bits in any batch. The gradients of theta sum over
the images in their order.
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

_ELEMENTS = 64 if triton.knobs.runtime.interpret else 16384  # of a tile of the hidden layer's weight
_OUTER = {"ROWS": 16, "COLUMNS": 16 if triton.knobs.runtime.interpret else 64, "IMAGES": 16}


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


@triton.jit(do_not_specialize=["K", "T"])
def _backward(dM, M, seen, hidden, W1, W2, dlogits, dz, dseen, D, K, T,
              F: tl.constexpr, MEAN_AT: tl.constexpr, STD_AT: tl.constexpr, NEEDS_X: tl.constexpr,
              HIDDEN: tl.constexpr, TAPS: tl.constexpr, CHANNELS: tl.constexpr):  # fmt: skip
    """The gradients of both linear layers' outputs and, where x's is wanted, dseen = [dmu, dvariance] (N, 2, D)."""
    n = tl.program_id(0).to(tl.int64)
    k, t = tl.arange(0, HIDDEN), tl.arange(0, TAPS)
    m = tl.load(M + n * T + t, t < T, 0.0)
    dlogit = tl.load(dM + n * T + t, t < T, 0.0) * (1.0 - m) * m
    tl.store(dlogits + n * T + t, dlogit, t < T)
    W = tl.load(W2 + t[:, None] * K + k[None, :], (t < T)[:, None] & (k < K)[None, :], 0.0).to(tl.float32)
    h = tl.load(hidden + n * K + k, k < K, 0.0)
    back = tl.where(h <= 0, 0.0, tl.sum(W * dlogit[:, None], 0))
    tl.store(dz + n * K + k, back, k < K)
    if NEEDS_X:
        for first in range(0, D, CHANNELS):
            d = first + tl.arange(0, CHANNELS)
            inside = (k < K)[:, None] & (d < D)[None, :]
            rows = W1 + k[:, None] * (F * D) + d[None, :]
            dmu, dvariance = tl.zeros((CHANNELS,), tl.float32), tl.zeros((CHANNELS,), tl.float32)
            if MEAN_AT >= 0:
                dmu += tl.sum(tl.load(rows + MEAN_AT * D, inside, 0.0).to(tl.float32) * back[:, None], 0)
            if STD_AT >= 0:
                dsigma = tl.sum(tl.load(rows + STD_AT * D, inside, 0.0).to(tl.float32) * back[:, None], 0)
                dvariance += dsigma / (2.0 * tl.load(seen + n * 2 * D + D + d, d < D, 1.0))
            tl.store(dseen + n * 2 * D + d, dmu, d < D)
            tl.store(dseen + n * 2 * D + D + d, dvariance, d < D)


@triton.jit
def _outer(a, b, dW, db, block, N, R, C, ROWS: tl.constexpr, COLUMNS: tl.constexpr, IMAGES: tl.constexpr):
    """A block of dW (R, C) = sum over n of a_n (R,) b_n (C,)^T, and of db = sum over n of a_n."""
    across = tl.cdiv(C, COLUMNS)
    r = block // across * ROWS + tl.arange(0, ROWS)
    c = block % across * COLUMNS + tl.arange(0, COLUMNS)
    weights, biases = tl.zeros((ROWS, COLUMNS), tl.float32), tl.zeros((ROWS,), tl.float32)
    for first in range(0, N, IMAGES):
        n = first + tl.arange(0, IMAGES)
        A = tl.load(a + n.to(tl.int64)[None, :] * R + r[:, None], (n < N)[None, :] & (r < R)[:, None], 0.0)
        B = tl.load(b + n.to(tl.int64)[:, None] * C + c[None, :], (n < N)[:, None] & (c < C)[None, :], 0.0)
        weights = tl.dot(A, B, weights, input_precision="ieee")
        biases += tl.sum(A, 1)
    inside = (r < R)[:, None] & (c < C)[None, :]
    tl.store(dW + r[:, None] * C + c[None, :], weights.to(dW.dtype.element_ty), inside)
    if block % across == 0:
        tl.store(db + r, biases.to(db.dtype.element_ty), r < R)


@triton.jit(do_not_specialize=["blocks", "N", "K", "S", "T"])
def _theta(dz, s, dW1, db1, dlogits, hidden, dW2, db2, blocks, N, K, S, T,
           ROWS: tl.constexpr, COLUMNS: tl.constexpr, IMAGES: tl.constexpr):  # fmt: skip
    """The first `blocks` programs have the hidden layer's gradients, the others the output layer's."""
    block = tl.program_id(0)
    if block < blocks:
        _outer(dz, s, dW1, db1, block, N, K, S, ROWS, COLUMNS, IMAGES)
    else:
        _outer(dlogits, hidden, dW2, db2, block - blocks, N, T, K, ROWS, COLUMNS, IMAGES)


def forward(
    x: Tensor, W1: Tensor, b1: Tensor, W2: Tensor, b2: Tensor, order: Sequence[int], eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """M (N, T), [mu, sigma] (N, 2, D) and relu's output (N, K), in two launches.

    order: what W1 (K, len(order) * D) looks at, 0 for mu and 1 for sigma.
    """
    found, (K, T) = statistics.partials(x), (len(W1), len(W2))
    M, seen, hidden = (x.new_empty(len(x), *size, dtype=torch.float32) for size in ((T,), (2, x.shape[1]), (K,)))
    tile = _tile(x.shape[1], K, T)
    with torch.cuda.device_of(x):
        tensors = {
            "W1": W1.contiguous(), "b1": b1.contiguous(), "W2": W2.contiguous(), "b2": b2.contiguous(),
            "M": M, "seen": seen, "hidden": hidden,
        }  # fmt: skip
        numbers = {"K": K, "T": T, "eps": eps, **_columns(order), **tile}
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
        numbers = {"D": D, "K": K, "T": T, "NEEDS_X": needs_x, **_columns(order), **_tile(D, K, T)}
        plans.run(_backward, (N,), {**tensors, **numbers})
    if not needs_theta:
        return dseen, None, None, None, None
    s = seen if list(order) == [0, 1] else torch.cat([seen[:, which] for which in order], 1)
    dW1, db1, dW2, db2 = (each.new_empty(each.shape) for each in theta)
    first, second = (
        -(-rows // _OUTER["ROWS"]) * -(-columns // _OUTER["COLUMNS"]) for rows, columns in ((K, S), (T, K))
    )
    with torch.cuda.device_of(M):
        tensors = {
            "dz": dz, "s": s, "dW1": dW1, "db1": db1, "dlogits": dlogits, "hidden": hidden, "dW2": dW2, "db2": db2,
        }  # fmt: skip
        numbers = {"blocks": first, "N": N, "K": K, "S": S, "T": T, **_OUTER}
        plans.run(_theta, (first + second,), {**tensors, **numbers})
    return dseen, dW1, db1, dW2, db2


def _columns(order: Sequence[int]) -> dict[str, int]:
    mean_at, std_at = (order.index(which) if which in order else -1 for which in (0, 1))
    return {"F": len(order), "MEAN_AT": mean_at, "STD_AT": std_at}


def _tile(D: int, K: int, T: int) -> dict[str, Any]:
    hidden, taps, wide = (triton.next_power_of_2(size) for size in (K, T, D))
    channels = max(1, min(wide, _ELEMENTS // hidden))
    elements = hidden * max(channels, taps)
    return {"HIDDEN": hidden, "TAPS": taps, "CHANNELS": channels, "num_warps": min(16, max(4, elements // 1024))}
