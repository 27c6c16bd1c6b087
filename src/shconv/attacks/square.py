"""Square attack: random search over squares, from scores alone, in L-inf and L2 (Andriushchenko et al. 2020)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shconv.attacks.ball import Ball
from shconv.attacks.base import Model, generators
from shconv.attacks.budget import Norm
from shconv.attacks.checks import check_choice, check_count
from shconv.attacks.cost import Cost
from shconv.attacks.search import SearchAttack, Strongest
from shconv.attacks.spelling import other_names
from shconv.numbers import read_budgets, read_numbers

STREAM = 12
HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # of the share p, for 10,000 queries


@other_names
@dataclass(frozen=True)
class Square(SearchAttack):
    """Square Attack (Andriushchenko et al. 2020, Algorithms 1 to 3): a search without gradients.

    It changes one random square at a time and keeps the change if the margin rises. It starts with vertical stripes
    (L-infinity) or a grid of bumps (L2). The square's share of the image starts at `share` and is halved at the paper's
    points, scaled to `queries`. Unlike the published code, every image has its own squares. A broken image is not
    changed any more.
    """

    aims: ClassVar[bool] = True
    epsilon: float
    norm: Norm = "linf"
    queries: int = 5000
    share: float = 0.8

    def __post_init__(self) -> None:
        check_choice("norm", self.norm, Norm)
        read_budgets(self, "epsilon", norm=self.norm)
        check_count("queries", self.queries, 1)
        read_numbers(self, "share", high=1)

    @property
    def cost(self) -> Cost:
        return Cost(1 + self.queries, 0)

    def side(self, query: int, height: int, width: int) -> int:
        """The side of the square at a query, 1, 2, ...: sqrt(p H W), at least a pixel (3, and odd, for L2)."""
        halved = sum(query * 10_000 > after * self.queries for after in HALVINGS)
        s = round(math.sqrt(self.share / 2**halved * height * width))
        return min(max(s, 1) if self.norm == "linf" else max(s, 3) | 1, height, width)

    def search(
        self, model: Model, x: Tensor, y: Tensor, index: Sequence[int], seed: int, goal: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        ball, strongest = Ball(x, self.epsilon, self.norm), Strongest(model, x, y, hold=True, goal=goal)
        draws = _Draws.of(generators(seed, STREAM, index), self.queries, x)
        begin, change = (_stripes, _recoloured) if self.norm == "linf" else (_bumps, _moved)
        strongest.look(x)
        z = begin(ball, draws)
        rise = strongest.rise(strongest.look(z))
        for k in range(1, self.queries):
            if strongest.settled:
                break
            changed = change(ball, z, draws, k, self.side(k, *x.shape[2:]))
            risen = strongest.rise(strongest.look(changed))
            z = torch.where((risen > rise)[:, None, None, None], changed, z)
            rise = rise.maximum(risen)
        return strongest.images, strongest.queries


class _Draws(NamedTuple):
    """All random numbers of a search, image by image (N), query by query (Q)."""

    place: Tensor  # (Q, N, 4) in [0, 1): row and column of the square, and of the one that L2 takes mass from
    sign: Tensor  # (Q, N, C) of -1 and 1
    turned: Tensor  # bool (Q, N)
    start: Tensor  # (N, C, W) of -1 and 1, the stripes; (N, C, 25) for the grid of bumps

    @classmethod
    def of(cls, sources: Sequence[np.random.Generator], queries: int, x: Tensor) -> Self:
        channels, width = x.shape[1], max(x.shape[3], 25)
        drawn = [
            (
                g.integers(0, 2, (channels, width), np.int8),
                g.random((queries, 4), np.float32),
                g.integers(0, 2, (queries, channels + 1), np.int8),
            )
            for g in sources
        ]
        first, place, bits = (torch.from_numpy(np.stack(each)).to(x.device) for each in zip(*drawn, strict=True))
        signs = (2 * bits[:, :, 1:] - 1).transpose(0, 1)
        return cls(place.transpose(0, 1), signs.to(x.dtype), bits[:, :, 0].bool().T, (2 * first - 1).to(x.dtype))


def _stripes(ball: Ball, draws: _Draws) -> Tensor:
    return ball.project(ball.x + ball.epsilon * draws.start[:, :, None, : ball.x.shape[3]])


def _recoloured(ball: Ball, z: Tensor, draws: _Draws, k: int, s: int) -> Tensor:
    """z with one square of side s set to +epsilon or -epsilon, one sign a channel (Algorithm 2)."""
    inside = _window(ball.x, draws.place[k, :, :2], s)[0]
    return ball.project(torch.where(inside, ball.x + ball.epsilon * draws.sign[k, :, :, None, None], z))


def _bumps(ball: Ball, draws: _Draws) -> Tensor:
    """A grid of 5 by 5 bumps of random sign, filling the L2 ball."""
    height, width = ball.x.shape[2:]
    s = max(min(height, width) // 5, 1)
    bump = _bump(s, ball.x)
    delta = torch.zeros_like(ball.x)
    for i in range(min(25, (height // s) * (width // s))):
        top, left = (i // min(5, width // s)) * s, (i % min(5, width // s)) * s
        if top + s <= height:
            delta[:, :, top : top + s, left : left + s] = bump * draws.start[:, :, i, None, None]
    return ball.project(ball.x + ball.epsilon * _unit(delta, (1, 2, 3)))


def _moved(ball: Ball, z: Tensor, draws: _Draws, k: int, s: int) -> Tensor:
    """z with the mass of one square, and the budget left, moved into a bump in another (Algorithm 3)."""
    delta = z - ball.x
    (into, row, column), (out, *_) = (_window(ball.x, draws.place[k, :, at : at + 2], s) for at in (0, 2))
    bump = _bump(s, ball.x)  # (S, S)
    bumps = torch.where(draws.turned[k, :, None, None], bump.T[row, column], bump[row, column])  # (N, H, W)
    fresh = torch.where(into, bumps[:, None] * draws.sign[k, :, :, None, None] + _unit(delta * into, (2, 3)), 0.0)
    left = (ball.epsilon**2 - _energy(delta, (1, 2, 3))).clamp_min(0.0) / delta.shape[1]
    mass = (_energy(delta * (into | out), (2, 3)) + left).sqrt()  # (N, C, 1, 1)
    delta = torch.where(into, mass * _unit(fresh, (2, 3)), torch.where(out, 0.0, delta))
    return ball.project(ball.x + ball.epsilon * _unit(delta, (1, 2, 3)))


def _window(x: Tensor, place: Tensor, s: int) -> tuple[Tensor, Tensor, Tensor]:
    """bool (N, 1, H, W), true in the square of side s that place (N, 2) picks; each pixel's row and column in it."""
    height, width = x.shape[2:]
    top, left = ((place * torch.tensor([height - s + 1, width - s + 1], device=x.device)).long()).unbind(1)
    row = torch.arange(height, device=x.device) - top[:, None]  # (N, H)
    column = torch.arange(width, device=x.device) - left[:, None]
    inside = ((row >= 0) & (row < s))[:, :, None] & ((column >= 0) & (column < s))[:, None]
    return inside[:, None], row.clamp(0, s - 1)[:, :, None], column.clamp(0, s - 1)[:, None]


def _bump(s: int, like: Tensor) -> Tensor:
    """eta (S, S) of unit norm: two halves of opposite sign, each a sum of nested rectangles (equation 2)."""
    upper, lower = _rectangles(s // 2, s), _rectangles(s - s // 2, s)
    return _unit(torch.from_numpy(np.concatenate([upper, -lower])).to(like), (0, 1))


def _rectangles(rows: int, columns: int) -> NDArray[np.float64]:
    """Rectangles that grow from the middle, the M-th weighted 1 / (M + 1)^2, so that the middle counts most."""
    eta = np.zeros((rows, columns))
    half = max(rows, columns) // 2 + 1
    for m in range(half):
        top, left = rows // 2 - m, columns // 2 - m
        eta[max(top, 0) : max(top + 2 * m + 1, 0), max(left, 0) : max(left + 2 * m + 1, 0)] += 1 / (m + 1) ** 2
    return eta / max(float(np.linalg.norm(eta)), 1e-12)


def _energy(delta: Tensor, over: tuple[int, ...]) -> Tensor:
    return delta.square().sum(over, keepdim=True)


def _unit(delta: Tensor, over: tuple[int, ...]) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(delta, dim=over, keepdim=True)
    return delta / length.clamp_min(1e-12)
