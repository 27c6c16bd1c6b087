"""dW on Hopper, and dM beside it: the kernel that sums over pixels for a tile of one tap of the weight.
Importing this module imports triton; images are channels last, the weight is (C, T, D).

P_n,t = dY_n^T shift_t(x_n), the product over pixels of one image, is complete, in float32, before M_n,t scales it into
dW_t; <W_t, P_n,t> summed over the image is dM_n,t: one more product for each element of a tile. A piece of an image is
a unit of work, and every program gets as many units as any other, of two neighbouring tiles where need be: what it has
of a tile goes to a slot of its own, and `gather` adds the slots in their order.
"""
# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False, disallow-untyped-decorators=False
# (Triton compiles these bodies: their arguments have no Python types.)

import triton
import triton.language as tl

from shconv.ops.cuda.hopper.images import added, dot, settled, summed, tap


@triton.jit
def place(tile, C: tl.constexpr, D: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """The tap of a tile of the weight, and c and d where it begins."""
    across: tl.constexpr = (D + COLUMNS - 1) // COLUMNS
    down: tl.constexpr = (C + ROWS - 1) // ROWS
    return tile // (across * down), tile // across % down * ROWS, tile % across * COLUMNS


@triton.jit
def turn(tiles: tl.constexpr, places, share):
    """Whose turn a program is, of all that have `share` of the places of all tiles. Where none has places of two tiles,
    neighbours have different tiles and the same places: a card fetches once what they read at a time."""
    program = tl.program_id(0)
    each = places // share
    return tl.where(places % share == 0, program % tiles * each + program // tiles, program)


@triton.jit
def _box_of_dy(g, n, h, w, c, ROWS: tl.constexpr, HIGH: tl.constexpr, WIDE: tl.constexpr):
    """A box of dY, its channels first."""
    return g.load([n, h, w, c]).reshape(HIGH * WIDE, ROWS).T


@triton.jit
def _box_of_x(a, n, h, w, parity_h, parity_w, d, D: tl.constexpr, STRIDE: tl.constexpr, COLUMNS: tl.constexpr,
          HIGH: tl.constexpr, WIDE: tl.constexpr):  # fmt: skip
    """A box of x."""
    if STRIDE == 2:  # noqa: SIM108 (chosen when it is compiled)
        A = a.load([n, h, parity_h, w, parity_w * D + d])
    else:
        A = a.load([n, h, w, d])
    return A.reshape(HIGH * WIDE, COLUMNS)


@triton.jit
def _product(P, g, a, n, h, w, dh, dw, parity_h, parity_w, c, d, D: tl.constexpr, STRIDE: tl.constexpr,
             PRECISION: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
             HIGH: tl.constexpr, WIDE: tl.constexpr):  # fmt: skip
    """P and a box of HIGH x WIDE pixels more of it."""
    G = _box_of_dy(g, n, h, w, c, ROWS, HIGH, WIDE)
    A = _box_of_x(a, n, h + dh, w + dw, parity_h, parity_w, d, D, STRIDE, COLUMNS, HIGH, WIDE)
    P = dot(G, A, P, PRECISION)
    return settled(P) if HIGH > 1 else P  # a box of several lines gets to wgmma by registers


@triton.jit
def _flush(sums, P, scale, own, shares, unit, t, c, d, C: tl.constexpr, D: tl.constexpr, T: tl.constexpr,
           MAP: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):  # fmt: skip
    """The sums with a unit's P; each of its rows' <W, P> is a share of dM."""
    if MAP:
        row, column = c + tl.arange(0, ROWS), d + tl.arange(0, COLUMNS)
        products = P * own.to(tl.float32)
        if D % COLUMNS:  # at stride 2 columns past D have the other parity's pixels
            products = tl.where((column < D)[None, :], products, 0.0)
        blocks: tl.constexpr = (D + COLUMNS - 1) // COLUMNS
        target = shares + ((tl.cast(unit, tl.int64) * T + t) * blocks + d // COLUMNS) * C + row
        tl.store(target, tl.sum(products, 1), row < C)
    return sums + scale * P


@triton.jit(do_not_specialize=["units", "places", "share", "slots"])
def sums(g, a, M, weight, parts, shares, units, places, share, slots,
         H: tl.constexpr, W: tl.constexpr, C: tl.constexpr, D: tl.constexpr,
         S_H: tl.constexpr, S_W: tl.constexpr, STRIDE: tl.constexpr, MAP: tl.constexpr, PRECISION: tl.constexpr,
         ROWS: tl.constexpr, COLUMNS: tl.constexpr, HIGH: tl.constexpr, WIDE: tl.constexpr,
         PIECES: tl.constexpr, NESTED: tl.constexpr, PARTS: tl.constexpr):  # fmt: skip
    """parts (tiles, slots, ROWS, ALL) of dW, and shares (units, T, blocks of D, C) of dM.

    A tile has `places` for its `units`, images in PIECES each; a program has `share` places.
    g: dY (N, H, W, C); a: x (N, H, W, D), at stride 2 (N, H, 2, W, 2 * D). A step is a box of HIGH x WIDE pixels. Those
    that run over an image's edge are laid so that those of dY do where those of x do: zeros meet zeros, never what is
    no number. NESTED: a loop over an image's steps inside that over images, for long images; else one over both.
    PARTS: 0, or in how many parts of COLUMNS a tile's product of one step is made, scaled at once; no dM then."""
    T: tl.constexpr = S_H * S_W
    wide: tl.constexpr = (W + WIDE - 1) // WIDE
    high: tl.constexpr = (H + HIGH - 1) // HIGH
    steps: tl.constexpr = high * wide // PIECES
    ALL: tl.constexpr = COLUMNS * (2 if PARTS == 2 else 1)
    tiles: tl.constexpr = T * ((D + ALL - 1) // ALL) * ((C + ROWS - 1) // ROWS)
    program = turn(tiles, places, share)
    first = program * share
    last = tl.minimum(first + share, tiles * places)
    for tile in range(first // places, tl.cdiv(last, places)):
        s, c, d = place(tile, C, D, ROWS, ALL)
        t, dh, dw, parity_h, parity_w = tap(s, False, STRIDE, S_H, S_W, 0, 0)
        top = tl.minimum(tl.maximum(dh, -1), 0) * (high * HIGH - H)
        left = tl.minimum(tl.maximum(dw, -1), 0) * (wide * WIDE - W)
        row, column = c + tl.arange(0, ROWS), d + tl.arange(0, COLUMNS)
        own = 0.0
        if MAP:
            mask = (row < C)[:, None] & (column < D)[None, :]
            own = tl.load(weight + ((row * T + t) * D)[:, None] + column[None, :], mask, 0.0)
        begin = tl.maximum(first - tile * places, 0)
        end = tl.minimum(tl.minimum(last - tile * places, places), units)
        total = tl.zeros((ROWS, COLUMNS), tl.float32)
        P = tl.zeros((ROWS, COLUMNS), tl.float32)
        more = 0.0
        if PARTS > 0:
            zeros = tl.zeros((ROWS, COLUMNS), tl.float32)
            if PARTS == 2:
                more = tl.zeros((ROWS, COLUMNS), tl.float32)
            for step in range(begin * steps, end * steps):
                n, box = step // (steps * PIECES), step % (steps * PIECES)
                scale = tl.load(M + tl.cast(n, tl.int64) * T + t)
                h, w = top + box // wide * HIGH, left + box % wide * WIDE
                G = _box_of_dy(g, n, h, w, c, ROWS, HIGH, WIDE)
                A = _box_of_x(a, n, h + dh, w + dw, parity_h, parity_w, d, D, STRIDE, COLUMNS, HIGH, WIDE)
                total = added(total, scale, dot(G, A, zeros, PRECISION))
                if PARTS == 2:
                    A = _box_of_x(a, n, h + dh, w + dw, parity_h, parity_w, d + COLUMNS, D, STRIDE, COLUMNS, HIGH, WIDE)
                    more = added(more, scale, dot(G, A, zeros, PRECISION))
        elif NESTED:
            for unit in range(begin, end):
                n, before = unit // PIECES, unit % PIECES * steps
                scale = tl.load(M + tl.cast(n, tl.int64) * T + t)
                P = tl.zeros((ROWS, COLUMNS), tl.float32)
                for step in range(steps):
                    h = top + (before + step) // wide * HIGH
                    w = left + (before + step) % wide * WIDE
                    P = _product(P, g, a, n, h, w, dh, dw, parity_h, parity_w, c, d, D, STRIDE, PRECISION,
                                 ROWS, COLUMNS, HIGH, WIDE)  # fmt: skip
                total = _flush(total, P, scale, own, shares, unit, t, c, d, C, D, T, MAP, ROWS, COLUMNS)
        else:
            for step in range(begin * steps, end * steps):
                unit, n, box = step // steps, step // (steps * PIECES), step % (steps * PIECES)
                scale = tl.load(M + tl.cast(n, tl.int64) * T + t)
                P = _product(P, g, a, n, top + box // wide * HIGH, left + box % wide * WIDE, dh, dw, parity_h, parity_w,
                             c, d, D, STRIDE, PRECISION, ROWS, COLUMNS, HIGH, WIDE)  # fmt: skip
                if step % steps == steps - 1:
                    total = _flush(total, P, scale, own, shares, unit, t, c, d, C, D, T, MAP, ROWS, COLUMNS)
                    P = tl.zeros((ROWS, COLUMNS), tl.float32)
        slot = parts + tl.cast(tile * slots + program - tile * places // share, tl.int64) * (ROWS * ALL)
        slot += (row - c)[:, None] * ALL + (column - d)[None, :]
        tl.store(slot, total)
        if PARTS == 2:
            tl.store(slot + COLUMNS, more)


@triton.jit(do_not_specialize=["places", "share", "slots", "pieces"])
def gather(parts, dW, shares, dM, places, share, slots, pieces, C: tl.constexpr, D: tl.constexpr, T: tl.constexpr,
           ROWS: tl.constexpr, COLUMNS: tl.constexpr, HIGH: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    """dW (C, T, D), in its own type, HIGH rows of a tile a program, over the slots that programs wrote in their order;
    the programs after those: dM (N, T), over an image's pieces."""
    strips: tl.constexpr = ROWS // HIGH
    blocks: tl.constexpr = (D + COLUMNS - 1) // COLUMNS
    tiles: tl.constexpr = T * blocks * ((C + ROWS - 1) // ROWS)
    program = tl.program_id(0)
    if program < tiles * strips:
        tile = program // strips
        row, column = program % strips * HIGH + tl.arange(0, HIGH), tl.arange(0, COLUMNS)
        found = tl.zeros((HIGH, COLUMNS), tl.float32)
        source = parts + tile.to(tl.int64) * slots * (ROWS * COLUMNS) + row[:, None] * COLUMNS + column[None, :]
        count = ((tile + 1) * places - 1) // share - tile * places // share + 1
        for _ in tl.range(0, count, loop_unroll_factor=4):
            found += tl.load(source)
            source += ROWS * COLUMNS
        t, c, d = place(tile, C, D, ROWS, COLUMNS)
        mask = (c + row < C)[:, None] & (d + column < D)[None, :]
        tl.store(dW + (((c + row) * T + t) * D)[:, None] + (d + column)[None, :], found.to(dW.dtype.element_ty), mask)
    else:
        n, t = (program - tiles * strips) // T, (program - tiles * strips) % T
        run = shares + ((n * pieces).to(tl.int64) * T + t) * (blocks * C)
        tl.store(dM + n.to(tl.int64) * T + t, summed(run, blocks * C, pieces, T * blocks * C, BLOCK))
