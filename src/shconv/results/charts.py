"""Charts of something across against the worst case up, as SVG, and the templates of pages without script or anything
from elsewhere."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from shconv.results.labels import Box, Marked, led, placed

PACKAGE = "shconv.results"
WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 640, 420, 56, 48, 16, 16


@cache
def environment(package: str = PACKAGE) -> Environment:
    """Templates of another package, and of this one."""
    places = ChoiceLoader([PackageLoader(each, "") for each in (package, PACKAGE)])
    return Environment(loader=places, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)


class Point(NamedTuple):
    """Of a chart: a row's number and name, where it is across, and its worst case with the interval, shares of 1."""

    number: int
    name: str
    across: float
    worst: tuple[float, float, float]


def svg(chart: Mapping[str, Any]) -> str:
    """A chart as a file of its own."""
    return environment().get_template("comparison.svg.j2").render(alone=True, **chart)


def clean_against_worst(points: Sequence[Point]) -> dict[str, Any]:
    """What the SVG template draws of clean accuracies, shares of 1, and worst cases. Both axes end where the points do,
    in tens of per cent."""
    clean = [p.across for p in points]
    first = min(math.floor(10 * min(clean, default=0)), 8)
    last = max(math.ceil(10 * max(clean, default=1)), first + 2)
    top = highest(points)
    marks = {tick / 10: str(10 * tick) for tick in range(first, last + 1, 1 if last - first < 6 else 2)}
    words = [f"{p.name}: clean {100 * p.across:.1f} %, worst case {100 * p.worst[0]:.1f} %" for p in points]
    chart = drawn(points, words, "clean accuracy, %", marks, (first / 10, last / 10), top)
    return chart | {"diagonal": _diagonal(first / 10, last / 10, top)}


def highest(points: Sequence[Point]) -> float:
    """Where an axis up may end: the tenth above all intervals."""
    return max([2, *(math.ceil(10 * point.worst[2]) for point in points)]) / 10


def _diagonal(first: float, last: float, top: float) -> dict[str, float] | None:
    """From and to where both axes have one value; None where they have none in common."""
    end = min(last, top)
    if first >= end:
        return None
    x, y = _scales(first, last, top)
    return {"x1": x(first), "y1": y(first), "x2": x(end), "y2": y(end)}


def _scales(first: float, last: float, top: float) -> tuple[Callable[[float], float], Callable[[float], float]]:
    """From values to pixels."""
    across, up = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    return (
        lambda value: round(LEFT + (value - first) / (last - first) * across, 1),
        lambda share: round(TOP + (1 - share / top) * up, 1),
    )


def drawn(
    points: Sequence[Point],
    words: Sequence[str],
    title: str,
    marks: Mapping[float, str],
    ends: tuple[float, float],
    top: float = 1.0,
) -> dict[str, Any]:
    """What the SVG template draws: ticks, and of each point place, interval and number in pixels.

    marks: where there are lines across, and what they are called. ends: of the axis across; top: the highest share.
    """
    x, y = _scales(*ends, top)
    marked = [
        Marked(x(point.across), y(point.worst[0]), y(point.worst[1]), y(point.worst[2]), str(point.number))
        for point in points
    ]
    labels = placed(marked, Box(LEFT + 1, TOP + 1, WIDTH - RIGHT - 1, HEIGHT - BOTTOM - 1))
    shown = [
        {**mark._asdict(), "words": said, "at": {"x": round(at[0], 1), "y": round(at[1], 1)}, "led": led(mark, at)}
        for mark, said, at in zip(marked, words, labels, strict=True)
    ]
    tens = range(0, round(10 * top) + 1, 1 if top <= 0.5 else 2)
    ticks = [{"said": str(10 * ten), "y": y(ten / 10)} for ten in tens]
    frame = {"left": LEFT, "right": WIDTH - RIGHT, "top": TOP, "bottom": HEIGHT - BOTTOM}
    about = {"points": shown, "ticks": ticks, "marks": [{"x": x(at), "said": said} for at, said in marks.items()]}
    return {**about, "frame": frame, "width": WIDTH, "height": HEIGHT, "across": title, "diagonal": None}
