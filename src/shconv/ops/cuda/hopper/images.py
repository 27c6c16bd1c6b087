"""Y and dX on Hopper: the kernel that sums over taps and channels for a tile of pixels.
Importing this module imports triton; images are channels last, the weight is (C, T, D) or, turned, (D, T, C).

TMA descriptors feed both operands, without address arithmetic or masks. At stride 1 pixels are one flat dimension over
all images: a tile is any ROWS consecutive ones, and a tap reads the same box some rows further on. A tap's product is
complete, in float32, before its scale touches it; a pixel that the tap takes over an image's edge read another image,
and its product is passed over, not multiplied by zero: it may be no number.
"""
# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False, disallow-untyped-decorators=False
# (Triton compiles these bodies: their arguments have no Python types.)

import triton
import triton.language as tl

_WIDEN = tl.constexpr(triton.knobs.runtime.interpret)  # the interpreter would multiply the bits of bfloat16 as integers
_FAR = tl.constexpr(64)  # beyond any padding, so that numbers divided are positive


@triton.jit
def dot(a, b, sums, PRECISION: tl.constexpr):
    if _WIDEN:
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, sums, input_precision=PRECISION)


@triton.jit
def settled(sums):
    """Sums once their products are done: what those read of registers may change from then on."""
    if _WIDEN:
        return sums
    return tl.inline_asm_elementwise("", "=f,0", [sums], tl.float32, is_pure=True, pack=1)


@triton.jit
def tap(step, BACK: tl.constexpr, STRIDE: tl.constexpr, S_H: tl.constexpr, S_W: tl.constexpr, odd_h, odd_w):
    """Tap t of a step, how many rows and columns further on it reads, and which parity of them.

    BACK: from a pixel of x to those of dY; at stride 2 from pixels of one parity, (odd_h, odd_w). Else from a pixel of
    Y to those of x, which at stride 2 come by parity."""
    PAD_H: tl.constexpr = S_H // 2
    PAD_W: tl.constexpr = S_W // 2
    parity_h, parity_w = 0, 0
    if STRIDE == 1:
        i, j = step // S_W, step % S_W
        if BACK:
            dh, dw = PAD_H - i, PAD_W - j
        else:
            dh, dw = i - PAD_H, j - PAD_W
    elif BACK:
        first_h, first_w = (odd_h + PAD_H) % 2, (odd_w + PAD_W) % 2
        taps_w = (S_W - first_w + 1) // 2
        i, j = first_h + 2 * (step // taps_w), first_w + 2 * (step % taps_w)
        dh = (odd_h + PAD_H - i + 2 * _FAR) // 2 - _FAR
        dw = (odd_w + PAD_W - j + 2 * _FAR) // 2 - _FAR
    else:
        i, j = step // S_W, step % S_W
        dh, dw = (i - PAD_H + 2 * _FAR) // 2 - _FAR, (j - PAD_W + 2 * _FAR) // 2 - _FAR
        parity_h, parity_w = (i - PAD_H + 2 * _FAR) % 2, (j - PAD_W + 2 * _FAR) % 2
    return i * S_W + j, dh, dw, parity_h, parity_w


@triton.jit
def _add(sums, scale, P, reached):
    """sums + scale * P in the rows that are reached. Written out since some versions of ptxas make two instructions of
    a choice where one under a condition does."""
    if _WIDEN:
        return tl.where(reached[:, None], sums + scale[:, None] * P, sums)
    return tl.inline_asm_elementwise(
        "{ .reg .pred wanted; setp.ne.b32 wanted, $4, 0; mov.f32 $0, $3; @wanted fma.rn.f32 $0, $1, $2, $3; }",
        "=f,f,f,f,r", [scale[:, None], P, sums, reached.to(tl.int32)[:, None]], tl.float32, is_pure=True, pack=1,
    )  # fmt: skip


@triton.jit
def added(sums, scale, P):
    """sums + scale * P, not put off: where it waits for the next product, registers do not suffice for both."""
    if _WIDEN:
        return sums + scale * P
    return tl.inline_asm_elementwise("fma.rn.f32 $0, $1, $2, $3;", "=f,f,f,f", [scale, P, sums], tl.float32,
                                     is_pure=False, pack=1)  # fmt: skip


@triton.jit
def _places(tile, N, ROWS: tl.constexpr, H: tl.constexpr, W: tl.constexpr, COLUMN: tl.constexpr):
    """Of each row of a tile: its image, row and column, its number among all pixels, whether there is such an image."""
    i = tl.arange(0, ROWS)
    if COLUMN:
        line = tile // W * ROWS + i
        n, h, w = line // H, line % H, tile % W + i * 0
        r = line * W + w
    else:
        r = tile * ROWS + i
        n, h, w = r // (H * W), r // W % H, r % W
    return n, h, w, r, n < N


@triton.jit
def _load(a, tile, dh, dw, parity_h, parity_w, k, W: tl.constexpr, ROWS: tl.constexpr, INNER: tl.constexpr,
          COLUMN: tl.constexpr):  # fmt: skip
    """INNER channels of the pixels that a tile's read through a tap."""
    if COLUMN:
        A = a.load([tile % W + dw, parity_w, parity_h, tile // W * ROWS + dh, k])
    else:
        A = a.load([tile * ROWS + dh * W + dw, k])
    return A.reshape(ROWS, INNER)


@triton.jit
def _scales(M, places, t, dh, dw, T: tl.constexpr, H: tl.constexpr, W: tl.constexpr):
    """M of each row's image at tap t, and whether the tap reads in that image."""
    n, h, w, _, inside = places
    reached = inside & (h + dh >= 0) & (h + dh < H) & (w + dw >= 0) & (w + dw < W)
    return tl.load(M + n.to(tl.int64) * T + t, inside, 0.0), reached


@triton.jit
def _share(P, X, shares, places, reached, t, block, pixels, T: tl.constexpr):
    """Each row's <P, X> of tap t, its share of dM."""
    _, _, _, r, inside = places
    share = tl.where(reached, tl.sum(P * X.to(tl.float32), 1), 0.0)
    tl.store(shares + (block * T + t).to(tl.int64) * pixels + r, share, inside)


@triton.jit
def _addresses(places, c, odd_h, odd_w, COLS: tl.constexpr, H: tl.constexpr, W: tl.constexpr, FINE: tl.constexpr):
    """Where a tile lies in out and in x, and what of it is there."""
    n, h, w, r, inside = places
    pixel = r.to(tl.int64)
    if FINE:
        pixel = (n.to(tl.int64) * (2 * H) + 2 * h + odd_h) * (2 * W) + 2 * w + odd_w
    return pixel[:, None] * COLS + c[None, :], inside[:, None] & (c < COLS)[None, :]


@triton.jit
def _of_statistics(x, at, mask, seen, dseen, tile, n, c, N, P: tl.constexpr, COLS: tl.constexpr,
                   PIXELS: tl.constexpr, ROWS: tl.constexpr):  # fmt: skip
    """(dmu + 2 dvariance (x - mu)) / P for a tile, which lies in two images at most."""
    first = tl.cast(tile * ROWS // PIXELS, tl.int64)
    second = tl.minimum(first + 1, N - 1)
    mu, slope, level = seen + c, dseen + COLS + c, dseen + c
    real = c < COLS
    slope_1 = tl.load(slope + first * (2 * COLS), real, 0.0) * (2.0 / P)
    slope_2 = tl.load(slope + second * (2 * COLS), real, 0.0) * (2.0 / P)
    level_1 = tl.load(level + first * (2 * COLS), real, 0.0) / P
    level_2 = tl.load(level + second * (2 * COLS), real, 0.0) / P
    level_1 -= slope_1 * tl.load(mu + first * (2 * COLS), real, 0.0)
    level_2 -= slope_2 * tl.load(mu + second * (2 * COLS), real, 0.0)
    later = (n > first)[:, None]
    X = tl.load(x + at, mask, 0.0).to(tl.float32)
    return tl.where(later, level_2[None, :], level_1[None, :]) + tl.where(later, slope_2[None, :], slope_1[None, :]) * X


@triton.jit
def _finish(sums, out, x, seen, dseen, tile, places, c, odd_h, odd_w, N, STATISTICS: tl.constexpr,
            H: tl.constexpr, W: tl.constexpr, COLS: tl.constexpr, STRIDE: tl.constexpr, FINE: tl.constexpr,
            ROWS: tl.constexpr):  # fmt: skip
    """A tile of out."""
    at, mask = _addresses(places, c, odd_h, odd_w, COLS, H, W, FINE)
    if STATISTICS:
        n, _, _, _, _ = places
        sums += _of_statistics(x, at, mask, seen, dseen, tile, n, c, N, H * W * STRIDE * STRIDE, COLS, H * W, ROWS)
    tl.store(out + at, sums.to(out.dtype.element_ty), mask)


@triton.jit(do_not_specialize=["N"])
def products(a, b, out, M, x, shares, seen, dseen, N,
             H: tl.constexpr, W: tl.constexpr, K: tl.constexpr, COLS: tl.constexpr,
             S_H: tl.constexpr, S_W: tl.constexpr, STRIDE: tl.constexpr,
             BACK: tl.constexpr, TURNED: tl.constexpr, MAP: tl.constexpr, STATISTICS: tl.constexpr,
             PRECISION: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, INNER: tl.constexpr,
             PARTS: tl.constexpr):  # fmt: skip
    """out = the sum over taps and K channels, COLS channels of it; N images of H x W pixels, of the smaller of x and Y.

    a: x, or dY if BACK. b: the weight as (T, COLS, K) if TURNED, else as (T, K, COLS).
    BACK at stride 2: x's pixels in four classes by parity, each reached by taps of its own.
    Forward at stride 2: a is x as (W, 2, 2, N * H, K), a column and both parities first; a tile is one column of ROWS
    rows of any images.
    MAP: shares (blocks, T, N * H * W) of dM, to be summed.
    STATISTICS: out has the gradient through the statistics too: seen = [mu, sigma] and dseen = [dmu, dvariance]
    (N, 2, COLS). H * W is at least ROWS.
    PARTS: 0: a tap's product is whole, over all channels, before it is scaled. Else a step's is scaled at once, which
    keeps no product between steps; 2: a program has two tiles, of ROWS rows each, for which the weight is loaded once.
    No dM then."""
    T: tl.constexpr = S_H * S_W
    KB: tl.constexpr = (K + INNER - 1) // INNER
    FINE: tl.constexpr = BACK and STRIDE == 2
    COLUMN: tl.constexpr = STRIDE == 2 and not BACK
    EACH: tl.constexpr = 2 if PARTS == 2 else 1
    blocks: tl.constexpr = (COLS + COLUMNS - 1) // COLUMNS
    block, tile = tl.program_id(0) % blocks, tl.program_id(0) // blocks
    col = block * COLUMNS
    pixels = N.to(tl.int64) * (H * W)
    odd_h, odd_w = 0, 0
    taps = T
    if FINE:
        turns = tl.cdiv(N * H * W, ROWS * EACH)
        parity = 3 - tile // turns
        tile = tile % turns
        odd_h, odd_w = parity // 2, parity % 2
        taps = ((S_H - (odd_h + S_H // 2) % 2 + 1) // 2) * ((S_W - (odd_w + S_W // 2) % 2 + 1) // 2)
    tile *= EACH
    places = _places(tile, N, ROWS, H, W, COLUMN)
    c = col + tl.arange(0, COLUMNS)
    X = 0.0
    if MAP:
        at, mask = _addresses(places, c, odd_h, odd_w, COLS, H, W, FINE)
        X = tl.load(x + at, mask, 0.0)
    zeros = tl.zeros((ROWS, COLUMNS), tl.float32)
    sums = tl.zeros((ROWS, COLUMNS), tl.float32)
    P = tl.zeros((ROWS, COLUMNS), tl.float32)
    if PARTS == 2:
        others = _places(tile + 1, N, ROWS, H, W, COLUMN)
        more = tl.zeros((ROWS, COLUMNS), tl.float32)
    for step in range(taps * KB):
        t, dh, dw, parity_h, parity_w = tap(step // KB, BACK, STRIDE, S_H, S_W, odd_h, odd_w)
        k = step % KB * INNER
        A = _load(a, tile, dh, dw, parity_h, parity_w, k, W, ROWS, INNER, COLUMN)
        if TURNED:  # noqa: SIM108 (chosen when it is compiled)
            B = b.load([t, col, k]).reshape(COLUMNS, INNER).T
        else:
            B = b.load([t, k, col]).reshape(INNER, COLUMNS)
        if KB == 1 or PARTS > 0:
            scale, reached = _scales(M, places, t, dh, dw, T, H, W)  # before the product, which it then waits beside
            P = dot(A, B, zeros, PRECISION)
            if MAP:
                _share(P, X, shares, places, reached, t, block, pixels, T)
            sums = _add(sums, scale, P, reached)
            if PARTS == 2:
                A = _load(a, tile + 1, dh, dw, parity_h, parity_w, k, W, ROWS, INNER, COLUMN)
                scale, reached = _scales(M, others, t, dh, dw, T, H, W)
                P = dot(A, B, zeros, PRECISION)
                more = _add(more, scale, P, reached)
        else:
            P = dot(A, B, P, PRECISION)
            if step % KB == KB - 1:
                scale, reached = _scales(M, places, t, dh, dw, T, H, W)
                if MAP:
                    _share(P, X, shares, places, reached, t, block, pixels, T)
                sums = _add(sums, scale, P, reached)
                P = zeros + (N >> 31)  # 0, and ptxas does not know: of zeros that it knows it makes two copies
    _finish(sums, out, x, seen, dseen, tile, places, c, odd_h, odd_w, N, STATISTICS, H, W, COLS, STRIDE, FINE, ROWS)
    if PARTS == 2:
        _finish(more, out, x, seen, dseen, tile + 1, others, c, odd_h, odd_w, N, STATISTICS, H, W, COLS, STRIDE, FINE,
                ROWS)  # fmt: skip


@triton.jit
def summed(run, LENGTH, REPEATS, further, BLOCK: tl.constexpr):
    """The sum of REPEATS runs of LENGTH numbers each, `further` apart: always in this order."""
    found = tl.zeros((BLOCK,), tl.float32)
    for _ in range(REPEATS):
        for first in range(0, LENGTH, BLOCK):
            e = first + tl.arange(0, BLOCK)
            found += tl.load(run + e, e < LENGTH, 0.0)
        run += further
    return tl.sum(found, 0)


@triton.jit(do_not_specialize=["image", "place", "further"])
def fold(parts, sums, LENGTH, REPEATS, image, place, further, T: tl.constexpr, BLOCK: tl.constexpr):
    """sums (N, T) of REPEATS runs of LENGTH numbers each, which begin at parts + n * image + t * place and lie
    `further` apart, whatever N is."""
    n, t = (tl.program_id(0) // T).to(tl.int64), tl.program_id(0) % T
    run = parts + n * image + t.to(tl.int64) * place
    tl.store(sums + n * T + t, summed(run, LENGTH, REPEATS, further, BLOCK))
