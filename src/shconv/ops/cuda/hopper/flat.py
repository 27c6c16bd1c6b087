"""dW on Hopper for small images: the kernel that sums over pixels of all images as one flat dimension, dY scaled on its
way. Importing this module imports triton; images are channels last, the weight is (C, T, D).

An image's product would be too short to be scaled on its own, and boxes that hold it too empty. So dY is scaled in
registers, and rounded to bfloat16 once more; a pixel that a tap takes over an image's edge gets scale 0. What is no
number in x or dY is in dW in any case; here it may be there for every tap.
"""
# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False, disallow-untyped-decorators=False
# (Triton compiles these bodies: their arguments have no Python types.)

import triton
import triton.language as tl

from shconv.ops.cuda.hopper.images import dot, settled, tap
from shconv.ops.cuda.hopper.weights import place, turn


@triton.jit(do_not_specialize=["N"])
def scales(M, found, N, H: tl.constexpr, W: tl.constexpr, S_H: tl.constexpr, S_W: tl.constexpr, BLOCK: tl.constexpr):
    """found (T, N * H * W): M of a pixel's image and a tap, 0 where the tap is over the image's edge."""
    T: tl.constexpr = S_H * S_W
    r = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    n, h, w = r // (H * W), r // W % H, r % W
    for s in tl.static_range(T):
        t, dh, dw, _, _ = tap(s, False, 1, S_H, S_W, 0, 0)
        reached = (n < N) & (h + dh >= 0) & (h + dh < H) & (w + dw >= 0) & (w + dw < W)
        scale = tl.load(M + n.to(tl.int64) * T + t, reached, 0.0)
        tl.store(found + t * (N.to(tl.int64) * (H * W)) + r, scale, n < N)


@triton.jit(do_not_specialize=["N", "places", "share", "slots"])
def sums(g, a, scales, parts, N, places, share, slots, H: tl.constexpr, W: tl.constexpr, C: tl.constexpr,
         D: tl.constexpr, S_H: tl.constexpr, S_W: tl.constexpr, PRECISION: tl.constexpr,
         ROWS: tl.constexpr, COLUMNS: tl.constexpr, INNER: tl.constexpr):  # fmt: skip
    """parts (tiles, slots, ROWS, COLUMNS) of dW, which weights.gather adds: INNER pixels a step, which has a place in
    each tile, `share` places a program. g: dY (N * H * W, C); a: x (N * H * W, D)."""
    T: tl.constexpr = S_H * S_W
    tiles: tl.constexpr = T * ((D + COLUMNS - 1) // COLUMNS) * ((C + ROWS - 1) // ROWS)
    pixels = N.to(tl.int64) * (H * W)
    program = turn(tiles, places, share)
    first = program * share
    last = tl.minimum(first + share, tiles * places)
    for tile in range(first // places, tl.cdiv(last, places)):
        s, c, d = place(tile, C, D, ROWS, COLUMNS)
        t, dh, dw, _, _ = tap(s, False, 1, S_H, S_W, 0, 0)
        total = tl.zeros((ROWS, COLUMNS), tl.float32)
        steps = tl.cdiv(N * (H * W), INNER)
        end = tl.minimum(tl.minimum(last - tile * places, places), steps)
        for step in range(tl.maximum(first - tile * places, 0), end):
            r = step * INNER + tl.arange(0, INNER)
            scale = tl.load(scales + t * pixels + r, r < pixels, 0.0)
            G = g.load([step * INNER, c]).T
            A = a.load([step * INNER + dh * W + dw, d])
            scaled = (G.to(tl.float32) * scale[None, :]).to(G.dtype)
            total = settled(dot(scaled, A, total, PRECISION))
        slot = parts + tl.cast(tile * slots + program - tile * places // share, tl.int64) * (ROWS * COLUMNS)
        tl.store(slot + tl.arange(0, ROWS)[:, None] * COLUMNS + tl.arange(0, COLUMNS)[None, :], total)
