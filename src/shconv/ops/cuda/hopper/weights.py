"""dW on Hopper, and dM beside it: the kernel that sums over pixels for a tile of one tap of the weight.
Importing this module imports triton; images are channels last, the weight is (C, T, D).

P_n,t = dY_n^T shift_t(x_n), the product over pixels of one image, is complete, in float32, before M_n,t scales it into
dW_t; <W_t, P_n,t> summed over the image is dM_n,t: one more product for each element of a tile. An image is a unit of
work, and every program gets as many units as any other, of two neighbouring tiles where need be: what it has of a tile
goes to a slot of its own, and `gather` adds the slots in their order.
"""
# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False, disallow-untyped-decorators=False
# (Triton compiles these bodies: their arguments have no Python types.)

import triton
import triton.language as tl

from shconv.ops.cuda.hopper.images import dot, tap


@triton.jit
def _place(tile, C: tl.constexpr, D: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """The tap of a tile of the weight, and c and d where it begins."""
    across: tl.constexpr = (D + COLUMNS - 1) // COLUMNS
    down: tl.constexpr = (C + ROWS - 1) // ROWS
    return tile // (across * down), tile // across % down * ROWS, tile % across * COLUMNS


@triton.jit(do_not_specialize=["N", "share", "slots"])
def shares(g, a, M, weight, parts, dM_parts, N, share, slots,
           H: tl.constexpr, W: tl.constexpr, C: tl.constexpr, D: tl.constexpr,
           S_H: tl.constexpr, S_W: tl.constexpr, STRIDE: tl.constexpr, MAP: tl.constexpr,
           PRECISION: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
           HIGH: tl.constexpr, WIDE: tl.constexpr, LINES: tl.constexpr):  # fmt: skip
    """parts (tiles, slots, ROWS, COLUMNS) of dW, and dM_parts (N, T, blocks of D, C): `share` units a program.

    g: dY (N, H, W, C); a: x (N, H, W, D), at stride 2 (N, H, 2, W, 2 * D). A step is LINES boxes of WIDE neighbours in
    a row, one below the other, or, where LINES is 0, one box of HIGH x WIDE that holds the image. Boxes that run over
    an image's edge are laid so that those of dY do where those of x do: zeros meet zeros, never what is no number."""
    T: tl.constexpr = S_H * S_W
    STEP_H: tl.constexpr = LINES if LINES else HIGH
    PIXELS: tl.constexpr = WIDE if LINES else HIGH * WIDE
    wide: tl.constexpr = (W + WIDE - 1) // WIDE
    high: tl.constexpr = (H + STEP_H - 1) // STEP_H
    chunks: tl.constexpr = high * wide
    blocks: tl.constexpr = (D + COLUMNS - 1) // COLUMNS
    tiles: tl.constexpr = T * blocks * ((C + ROWS - 1) // ROWS)
    first = tl.program_id(0) * share
    last = tl.minimum(first + share, tiles * N)
    for tile in range(first // N, tl.cdiv(last, N)):
        s, c, d = _place(tile, C, D, ROWS, COLUMNS)
        t, dh, dw, parity_h, parity_w = tap(s, False, STRIDE, S_H, S_W, 0, 0)
        top = tl.minimum(tl.maximum(dh, -1), 0) * (high * STEP_H - H)
        left = tl.minimum(tl.maximum(dw, -1), 0) * (wide * WIDE - W)
        row, column = c + tl.arange(0, ROWS), d + tl.arange(0, COLUMNS)
        sums = tl.zeros((ROWS, COLUMNS), tl.float32)
        along = tl.zeros((ROWS,), tl.float32)  # of dM, over an image
        own = sums
        if MAP:
            mask = (row < C)[:, None] & (column < D)[None, :]
            own = tl.load(weight + ((row * T + t) * D)[:, None] + column[None, :], mask, 0.0)
        for step in range(tl.maximum(first - tile * N, 0) * chunks, tl.minimum(last - tile * N, N) * chunks):
            n, chunk = step // chunks, step % chunks
            image = tl.cast(n, tl.int64)
            scale = tl.load(M + image * T + t)
            h, w = top + chunk // wide * STEP_H, left + chunk % wide * WIDE
            # Complete within a step: a matrix that is no plain box (LINES 0) gets to wgmma by registers, which must not
            # change while it works.
            P = tl.zeros((ROWS, COLUMNS), tl.float32)
            for line in tl.static_range(LINES if LINES else 1):
                G = g.load([n, h + line, w, c]).reshape(PIXELS, ROWS).T
                if STRIDE == 2:
                    A = a.load([n, h + line + dh, parity_h, w + dw, parity_w * D + d]).reshape(PIXELS, COLUMNS)
                else:
                    A = a.load([n, h + line + dh, w + dw, d]).reshape(PIXELS, COLUMNS)
                P = dot(G, A, P, PRECISION)
            sums += scale * P
            if MAP:
                products = P * own.to(tl.float32)
                if D % COLUMNS:  # at stride 2 columns past D have the other parity's pixels
                    products = tl.where((column < D)[None, :], products, 0.0)
                along += tl.sum(products, 1)
                if chunk == chunks - 1:
                    target = dM_parts + ((image * T + t) * blocks + d // COLUMNS) * C + row
                    tl.store(target, along, row < C)
                    along = tl.zeros((ROWS,), tl.float32)
        slot = parts + tl.cast(tile * slots + tl.program_id(0) - tile * N // share, tl.int64) * (ROWS * COLUMNS)
        tl.store(slot + (row - c)[:, None] * COLUMNS + (column - d)[None, :], sums)


@triton.jit(do_not_specialize=["N", "share", "slots"])
def gather(parts, dW, N, share, slots, C: tl.constexpr, D: tl.constexpr, T: tl.constexpr,
           ROWS: tl.constexpr, COLUMNS: tl.constexpr, HIGH: tl.constexpr):  # fmt: skip
    """dW (C, T, D), in its own type: HIGH rows of a tile a program, over the slots that programs of `shares` wrote."""
    strips: tl.constexpr = ROWS // HIGH
    tile, strip = tl.program_id(0) // strips, tl.program_id(0) % strips
    row, column = strip * HIGH + tl.arange(0, HIGH), tl.arange(0, COLUMNS)
    sums = tl.zeros((HIGH, COLUMNS), tl.float32)
    source = parts + tile.to(tl.int64) * slots * (ROWS * COLUMNS) + row[:, None] * COLUMNS + column[None, :]
    count = ((tile + 1) * N - 1) // share - tile * N // share + 1
    for _ in range(count):
        sums += tl.load(source)
        source += ROWS * COLUMNS
    t, c, d = _place(tile, C, D, ROWS, COLUMNS)
    mask = (c + row < C)[:, None] & (d + column < D)[None, :]
    tl.store(dW + (((c + row) * T + t) * D)[:, None] + (d + column)[None, :], sums.to(dW.dtype.element_ty), mask)
