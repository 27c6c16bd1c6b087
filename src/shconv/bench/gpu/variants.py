"""Every pass of Hopper's kernels with every tile that it may have."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from shconv.bench.gpu.problems import Problem
from shconv.ops.cuda.hopper import launches, passes
from shconv.ops.cuda.hopper.tiles import Shape, Tile, candidates
from shconv.ops.geometry import Geometry

PASSES = ("forward", "dX", "dX + dM", "dX + statistics", "dW", "dW + dM")
Plan = tuple[dict[str, Tensor], list[launches.Launch]]  # results by names of `truth`, and what computes them


class Variant(NamedTuple):
    """A pass with one tile."""

    name: str
    tile: Tile
    plan: Callable[[], Plan]

    def run(self) -> dict[str, Tensor]:
        results, launched = self.plan()
        for each in launched:
            each.run()
        return results

    def compile(self) -> None:
        for each in self.plan()[1]:
            each.compile()


def variants(of: Problem) -> Iterator[Variant]:
    """Every pass with every tile, the rule's first."""
    pixels = (of.layer.H // of.layer.stride) ** 2
    for name in PASSES if of.x.element_size() == 2 else PASSES[:3]:
        shape, plan = _planned(of, name)
        for tile in candidates(shape):
            if "statistics" not in name or tile.rows <= pixels:
                yield Variant(name, tile, partial(plan, tile))


def variant(of: Problem, name: str, tile: Tile) -> Variant:
    return next(each for each in variants(of) if (each.name, each.tile) == (name, tile))


def _planned(of: Problem, name: str) -> tuple[Shape, Callable[[Tile], Plan]]:
    """A pass's shape, for which there are tiles, and what plans it with one of them."""
    (_, _, _, _, stride), x, weight, M, dY, seen, dseen = of
    first, _, second = name.partition(" + ")
    map, joined = second == "dM", second == "statistics"
    flatly = not map and passes.flat(x, Geometry((stride, stride), (1, 1), (1, 1), 1))
    precision = "tf32" if x.dtype == torch.float32 else "ieee"

    def forward(tile: Tile) -> Plan:
        Y, launched = launches.forward(x, weight, M, stride, tile, precision)
        return {"Y": Y}, launched

    def input_gradient(tile: Tile) -> Plan:
        statistics = (seen, dseen) if joined else None
        dX, dM, launched = launches.input_gradient(dY, x, weight, M, stride, tile, precision, map, statistics)
        return {name if joined else "dX": dX} | ({} if dM is None else {"dM": dM}), launched

    def weight_gradient(tile: Tile) -> Plan:
        dW, dM, launched = launches.weight_gradient(dY, x, weight, M, stride, tile, precision, map, flatly=flatly)
        return {"dW": dW} | ({} if dM is None else {"dM": dM}), launched

    if first == "forward":
        return launches.forward_shape(x, weight, stride), forward
    if first == "dX":
        return launches.input_shape(x, weight, stride, map), input_gradient
    return launches.weight_shape(x, weight, stride, map, flatly), weight_gradient
