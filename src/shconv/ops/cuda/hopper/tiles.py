"""Which tiles the Hopper kernels run with: a rule for every shape, from what was measured on an H100, and what tuning
tries beside it, among it what is newer than those measurements. Never by the number of images: an image's bits must not
depend on its batch. Imports no triton."""

import functools
from typing import NamedTuple

_REGISTERS = 65536  # of a multiprocessor
SHARED_BYTES = 227 * 1024  # of a block, the most a multiprocessor has room for
FEW_PIXELS = 100  # below that tiles of 128 x 128 are too few to fill a card, and an image's product too small
MANY_PIXELS = 4 * FEW_PIXELS  # from there an image fills tiles and steps of its own


class Tile(NamedTuple):
    """ROWS x COLUMNS sums, INNER products at a time, `stages` of them under way.

    parts: 0: a product is whole before it is scaled: a tap's over all channels, or an image's over its pixels. Else a
    step's is scaled at once; 2: half of the tile's after the other half's, so that registers hold a tile twice as
    large, which reads less: halves of the rows in Y and dX, of the columns in dW."""

    rows: int
    columns: int
    inner: int
    warps: int
    stages: int
    parts: int = 0

    @property
    def halves(self) -> int:
        """How many parts the tile is made in, one after the other."""
        return max(1, self.parts)

    def operands(self, size: int) -> int:
        """Bytes of shared memory, for elements of `size` bytes."""
        return (self.rows + self.columns) * self.inner * size * self.stages

    def resident(self, size: int, sums: float) -> int:
        """How many programs fit one multiprocessor, about, that keep so many tiles of sums (or the like) in registers,
        for elements of `size` bytes."""
        threads = 32 * self.warps
        registers = int(sums * self.rows * self.columns) // threads + 60
        return max(1, min(_REGISTERS // (threads * registers), SHARED_BYTES // (self.operands(size) + 2048)))

    def __str__(self) -> str:
        parts = f" p{self.parts}" if self.parts else ""
        return f"{self.rows}x{self.columns}x{self.inner} w{self.warps} s{self.stages}{parts}"


class Shape(NamedTuple):
    """What a choice depends on. H x W: of the smaller of x and Y; K channels are summed over in "forward" and "input",
    COLS come out; in "weight" and "flat", which are two ways to dW, they are C and D."""

    purpose: str  # "forward", "input", "weight" or "flat"
    K: int
    COLS: int
    H: int
    W: int
    stride: int
    size: int  # bytes of an element
    map: bool  # dM beside it

    def __str__(self) -> str:
        dM = " + dM" if self.map else ""
        return f"{self.purpose}{dM} {self.K}->{self.COLS} {self.H}x{self.W}/{self.stride} {8 * self.size} bit"

    @property
    def products(self) -> float:
        """Multiplications for an image, by a kernel of 3 x 3."""
        return 9.0 * self.K * self.COLS * self.H * self.W

    @property
    def known(self) -> bool:
        """Whether whole products were measured for such channels."""
        channels = (64, 128, 256, 512)
        return self.size == 2 and self.K in channels and self.COLS in channels


def rule(shape: Shape) -> Tile:
    """The tile to take where nothing else was measured."""
    return candidates(shape)[0]


@functools.cache
def candidates(shape: Shape) -> tuple[Tile, ...]:
    """The rule's first, then what else may be fast: all fit into shared memory. Where whole products were measured none
    but the fastest of them is here; products in parts were measured nowhere so far, so tuning tries them."""
    found = {"weight": _weight, "flat": _flat}.get(shape.purpose, _products)(shape)
    if shape.known:
        found = [found[0], *(each for each in found[1:] if each.parts)]
    return tuple(each for each in dict.fromkeys(found) if each.operands(shape.size) <= SHARED_BYTES - 8192)


def _products(shape: Shape) -> list[Tile]:
    """A tile of 128 x 128 keeps 128 sums in each of 256 threads, a map's share of dM another 32."""
    few = shape.H * shape.W < FEW_PIXELS
    if shape.size == 4:
        wide, narrow = Tile(128, 128, 32, 8, 3), Tile(128, 64, 32, 4, 3)
        found = [narrow, wide] if few or shape.COLS < 128 else [wide, narrow]
    else:
        deep, wide = Tile(128, 128, 128, 8, 3), Tile(128, 128, 64, 8, 4)
        narrow, low, tall = Tile(128, 64, 64, 4, 3), Tile(64, 128, 64, 4, 3), Tile(256, 64, 64, 8, 3)
        parted = [Tile(128, 128, 64, 4, 3, 2), low._replace(parts=1)]
        if shape.H * shape.W >= MANY_PIXELS:
            parted.append(Tile(256, 128, 64, 8, 3, 2))
        if shape.COLS < 128:
            parted, found = [Tile(256, 64, 64, 4, 2, 2)], [narrow, tall]
        elif (few and shape.map) if shape.stride == 2 else (shape.map or shape.K > 128):
            found = [deep, wide, low]
        else:
            found = [low, deep, wide]
        found += [] if shape.map else parted
    return [
        each._replace(inner=_inner(each.inner, shape.K), columns=_columns(each.columns, shape.COLS)) for each in found
    ]


def _weight(shape: Shape) -> list[Tile]:
    """INNER is the pixels of a step."""
    C, D = shape.K, shape.COLS
    if C <= 64 and D <= 64:
        found = [Tile(64, 64, 64, 4, 4), Tile(64, 64, 64, 4, 3)]
    elif C <= 64:
        found = [Tile(64, 128, 32, 4, 6), Tile(64, 128, 64, 4, 4)]
    elif D <= 64:
        found = [Tile(128, 64, 32, 4, 6), Tile(128, 64, 64, 4, 4)]
    elif shape.H * shape.W >= MANY_PIXELS:
        found = [Tile(64, 128, 64, 4, 4), Tile(128, 128, 128, 8, 3), Tile(64, 128, 32, 4, 6)]
    elif shape.H * shape.W >= FEW_PIXELS:
        found = [Tile(128, 128, 128, 8, 3), Tile(128, 128, 64, 8, 4), Tile(64, 128, 64, 4, 4)]
    else:
        found = [Tile(128, 128, 64, 8, 4), Tile(128, 128, 64, 8, 3)]
    return [each._replace(columns=_columns(each.columns, D)) for each in [*found, *_parted(shape)]]


def _flat(shape: Shape) -> list[Tile]:
    """Or, in parts, of boxes as "weight"."""
    found = [Tile(128, 256, 64, 8, 3), Tile(128, 128, 64, 4, 3), Tile(128, 128, 64, 8, 3)]
    return [*found, *_parted(shape)] if shape.COLS > 128 else found[1:]


def _parted(shape: Shape) -> list[Tile]:
    """For dW of many channels."""
    if shape.map or shape.K <= 64 or shape.COLS <= 128:
        return []
    return [Tile(128, 256, 64, 8, 3, 2) if shape.H * shape.W < FEW_PIXELS else Tile(128, 256, 128, 8, 2, 2)]


def _inner(most: int, K: int) -> int:
    """At most `most`, dividing K where it can, so that no product is with zeros; at least 32."""
    return next((inner for inner in (128, 64, 32) if inner <= most and K % inner == 0), min(most, 64 if K > 32 else 32))


def _columns(most: int, channels: int) -> int:
    return most if channels > 32 else 32


@functools.cache
def box(H: int, W: int, pixels: int) -> tuple[int, int]:
    """The box (high, wide) of so many pixels that covers least beside an image of H x W; of those the widest."""
    widths = [each for each in (64, 32, 16, 8) if each <= pixels]
    return min(
        ((pixels // wide, wide) for wide in widths), key=lambda each: -(-H // each[0]) * -(-W // each[1])
    )  # fmt: skip


def pieces(boxes: int) -> int:
    """How many units of work an image of so many steps is."""
    return 2 if boxes % 2 == 0 and boxes >= 16 else 1


def places(units: int, tiles: int, programs: int) -> tuple[int, int]:
    """Places of a tile of dW for so many units of work, and how many of them a program has: none of two tiles where
    that leaves few programs idle; elsewhere all have as many, of two tiles where need be."""
    each = programs // tiles
    if each < 4:
        return units, -(-tiles * units // min(tiles * units, programs))
    share = -(-units // each)
    return share * -(-units // share), share
