"""dW on Hopper, and dM beside it: the kernel that sums over pixels for a tile of the weight.
Importing this module imports triton; images are channels last, the weight is (C, T, D).

P_n,t = dY_n^T shift_t(x_n), the product over pixels of one image, is complete, in float32, before M_n,t scales it into
dW_t; <W_t, P_n,t> is dM_n,t: one more product for each element of a tile. An image is a unit of work, and every program
gets as many units as any other, of two neighbouring tiles where need be: what it has of a tile goes to a slot of its
own, and `gather` adds the slots in their order. Small tiles hold three taps, for what is read counts there.
"""
# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False, disallow-untyped-decorators=False
# (Triton compiles these bodies: their arguments have no Python types.)

import triton
import triton.language as tl

from shconv.ops.cuda.hopper.images import dot, tap


@triton.jit
def _place(tile, C: tl.constexpr, D: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """The group of taps of a tile of the weight, and c and d where it begins."""
    across: tl.constexpr = (D + COLUMNS - 1) // COLUMNS
    down: tl.constexpr = (C + ROWS - 1) // ROWS
    return tile // (across * down), tile // across % down * ROWS, tile % across * COLUMNS


@triton.jit
def _x(a, n, h, w, d, dh, dw, parity_h, parity_w, D: tl.constexpr, STRIDE: tl.constexpr,
       PIXELS: tl.constexpr, COLUMNS: tl.constexpr):  # fmt: skip
    """The box of x that a tap pairs with dY's box at (h, w)."""
    if STRIDE == 2:  # noqa: SIM108 (chosen when it is compiled)
        box = a.load([n, h + dh, parity_h, w + dw, parity_w * D + d])
    else:
        box = a.load([n, h + dh, w + dw, d])
    return box.reshape(PIXELS, COLUMNS)


@triton.jit
def _own(weight, row, column, t, C: tl.constexpr, D: tl.constexpr, T: tl.constexpr):
    """A tap's tile of the weight."""
    mask = (row < C)[:, None] & (column < D)[None, :]
    return tl.load(weight + ((row * T + t) * D)[:, None] + column[None, :], mask, 0.0)


@triton.jit
def _flush(sums, P, own, M, dM_parts, image, t, row, column, block,
           C: tl.constexpr, D: tl.constexpr, T: tl.constexpr, COLUMNS: tl.constexpr, MAP: tl.constexpr):  # fmt: skip
    """sums and what an image adds to a tap's; its share of dM is stored."""
    blocks: tl.constexpr = (D + COLUMNS - 1) // COLUMNS
    if MAP:
        products = P * own.to(tl.float32)
        if D % COLUMNS:  # at stride 2 columns past D have the other parity's pixels
            products = tl.where((column < D)[None, :], products, 0.0)
        tl.store(dM_parts + ((image * T + t) * blocks + block) * C + row, tl.sum(products, 1), row < C)
    return sums + tl.load(M + image * T + t) * P


@triton.jit(do_not_specialize=["N", "share", "slots"])
def shares(g, a, cut, M, weight, parts, dM_parts, N, share, slots,
           H: tl.constexpr, W: tl.constexpr, C: tl.constexpr, D: tl.constexpr,
           S_H: tl.constexpr, S_W: tl.constexpr, STRIDE: tl.constexpr, MAP: tl.constexpr,
           PRECISION: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, TAPS: tl.constexpr,
           HIGH: tl.constexpr, WIDE: tl.constexpr):  # fmt: skip
    """parts (tiles, slots, TAPS, ROWS, COLUMNS) of dW, and dM_parts (N, T, blocks of D, C): `share` units a program.

    g: dY (N, H, W, C); a: x (N, H, W, D), at stride 2 (N, H, 2, W, 2 * D). A step is a box of HIGH x WIDE pixels: of a
    line, or of the whole image. A step is one product: of several, each would be waited for. Boxes that run over an
    image's edge are laid so that those of dY do where those of x do: zeros meet zeros, never what is no number.
    TAPS: neighbours in a row of three that share the box of dY, or 1. The three begin at the same column, so the first
    of them reads `cut`, which is x without its last column: no pixel of Y pairs with that."""
    T: tl.constexpr = S_H * S_W
    PIXELS: tl.constexpr = HIGH * WIDE
    wide: tl.constexpr = (W + WIDE - 1) // WIDE
    high: tl.constexpr = (H + HIGH - 1) // HIGH
    chunks: tl.constexpr = high * wide
    tiles: tl.constexpr = T // TAPS * ((D + COLUMNS - 1) // COLUMNS) * ((C + ROWS - 1) // ROWS)
    first = tl.program_id(0) * share
    last = tl.minimum(first + share, tiles * N)
    for tile in range(first // N, tl.cdiv(last, N)):
        group, c, d = _place(tile, C, D, ROWS, COLUMNS)
        t, dh, dw, parity_h, parity_w = tap(group * TAPS, False, STRIDE, S_H, S_W, 0, 0)
        top = tl.minimum(tl.maximum(dh, -1), 0) * (high * HIGH - H)
        left = 0
        if TAPS == 1:
            left = tl.minimum(tl.maximum(dw, -1), 0) * (wide * WIDE - W)
        row, column = c + tl.arange(0, ROWS), d + tl.arange(0, COLUMNS)
        sums = tl.zeros((ROWS, COLUMNS), tl.float32)
        own, own1, own2 = 0.0, 0.0, 0.0
        if MAP:
            own = _own(weight, row, column, t, C, D, T)
        if TAPS == 3:
            _, _, dw1, _, parity_w1 = tap(group * TAPS + 1, False, STRIDE, S_H, S_W, 0, 0)
            _, _, dw2, _, parity_w2 = tap(group * TAPS + 2, False, STRIDE, S_H, S_W, 0, 0)
            sums1 = tl.zeros((ROWS, COLUMNS), tl.float32)
            sums2 = tl.zeros((ROWS, COLUMNS), tl.float32)
            if MAP:
                own1 = _own(weight, row, column, t + 1, C, D, T)
                own2 = _own(weight, row, column, t + 2, C, D, T)
        for n in range(tl.maximum(first - tile * N, 0), tl.minimum(last - tile * N, N)):
            P = tl.zeros((ROWS, COLUMNS), tl.float32)
            if TAPS == 3:
                P1 = tl.zeros((ROWS, COLUMNS), tl.float32)
                P2 = tl.zeros((ROWS, COLUMNS), tl.float32)
            for chunk in range(chunks):
                h, w = top + chunk // wide * HIGH, left + chunk % wide * WIDE
                G = g.load([n, h, w, c]).reshape(PIXELS, ROWS).T
                A = _x(cut if TAPS == 3 else a, n, h, w, d, dh, dw, parity_h, parity_w, D, STRIDE, PIXELS, COLUMNS)
                P = dot(G, A, P, PRECISION)
                if TAPS == 3:
                    A = _x(a, n, h, w, d, dh, dw1, parity_h, parity_w1, D, STRIDE, PIXELS, COLUMNS)
                    P1 = dot(G, A, P1, PRECISION)
                    A = _x(a, n, h, w, d, dh, dw2, parity_h, parity_w2, D, STRIDE, PIXELS, COLUMNS)
                    P2 = dot(G, A, P2, PRECISION)
            image, block = tl.cast(n, tl.int64), d // COLUMNS
            sums = _flush(sums, P, own, M, dM_parts, image, t, row, column, block, C, D, T, COLUMNS, MAP)
            if TAPS == 3:
                sums1 = _flush(sums1, P1, own1, M, dM_parts, image, t + 1, row, column, block, C, D, T, COLUMNS, MAP)
                sums2 = _flush(sums2, P2, own2, M, dM_parts, image, t + 2, row, column, block, C, D, T, COLUMNS, MAP)
        AREA: tl.constexpr = ROWS * COLUMNS
        slot = parts + tl.cast(tile * slots + tl.program_id(0) - tile * N // share, tl.int64) * (TAPS * AREA)
        slot += (row - c)[:, None] * COLUMNS + (column - d)[None, :]
        tl.store(slot, sums)
        if TAPS == 3:
            tl.store(slot + AREA, sums1)
            tl.store(slot + 2 * AREA, sums2)


@triton.jit(do_not_specialize=["N", "share", "slots"])
def gather(parts, dW, N, share, slots, C: tl.constexpr, D: tl.constexpr, T: tl.constexpr, TAPS: tl.constexpr,
           ROWS: tl.constexpr, COLUMNS: tl.constexpr, HIGH: tl.constexpr):  # fmt: skip
    """dW (C, T, D), in its own type: HIGH rows of a tap's tile a program, over the slots that `shares` wrote."""
    AREA: tl.constexpr = ROWS * COLUMNS
    strips: tl.constexpr = ROWS // HIGH
    part, strip = tl.program_id(0) // strips, tl.program_id(0) % strips
    tile, which = part // TAPS, part % TAPS
    row, column = strip * HIGH + tl.arange(0, HIGH), tl.arange(0, COLUMNS)
    sums = tl.zeros((HIGH, COLUMNS), tl.float32)
    source = parts + (tile.to(tl.int64) * slots * TAPS + which) * AREA + row[:, None] * COLUMNS + column[None, :]
    count = ((tile + 1) * N - 1) // share - tile * N // share + 1
    for _ in range(count):
        sums += tl.load(source)
        source += TAPS * AREA
    group, c, d = _place(tile, C, D, ROWS, COLUMNS)
    t = group * TAPS + which
    mask = (c + row < C)[:, None] & (d + column < D)[None, :]
    tl.store(dW + (((c + row) * T + t) * D)[:, None] + (d + column)[None, :], sums.to(dW.dtype.element_ty), mask)
