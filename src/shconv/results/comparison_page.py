"""A comparison as Markdown, LaTeX, SVG and one HTML page without script or anything from elsewhere."""

import math
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from typing import TYPE_CHECKING, Any, NamedTuple

from jinja2 import Environment, FunctionLoader, StrictUndefined

from shconv.results.labels import Box, Marked, led, placed

if TYPE_CHECKING:
    from shconv.results.comparison import Comparison

WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 640, 420, 56, 48, 16, 16
TEX = {"\\": r"\textbackslash{}", "∞": r"$_\infty$", "–": "--", "<": "$<$", ">": "$>$", "~": r"\textasciitilde{}"}
TEX |= {sign: f"\\{sign}" for sign in "%&_#${}"} | {"^": r"\textasciicircum{}"}


def markdown(comparison: "Comparison") -> str:
    header, rows = comparison.text()
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    escaped = ["| " + " | ".join(text.replace("|", r"\|") for text in line) + " |" for line in lines]
    return "\n".join([*escaped, "", *(f"{note}\n" for note in comparison.notes)])


def latex(comparison: "Comparison") -> str:
    """A booktabs table."""
    header, rows = comparison.text()

    def line(cells: list[str]) -> str:
        return " & ".join("".join(TEX.get(sign, sign) for sign in cell) for cell in cells) + r" \\"

    body = [r"\toprule", line(header), r"\midrule", *map(line, rows), r"\bottomrule"]
    return "\n".join([rf"\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}", *body, r"\end{tabular}", ""])


def scatter(comparison: "Comparison") -> str:
    """Clean accuracy (across) against the worst case (up), a numbered point for each network, as an SVG file."""
    return environment().get_template("comparison.svg.j2").render(alone=True, **_scatter(comparison))


def page(comparison: "Comparison") -> str:
    header, rows = comparison.text()
    template = environment().get_template("comparison.html.j2")
    images = [("; ".join(titles), n) for n, titles in _by_count(comparison).items()]
    order = _answer_first(comparison)
    header, rows = [header[i] for i in order], [[row[i] for i in order] for row in rows]
    return template.render(
        comparison=comparison, header=header, rows=rows, images=images, alone=False, **_scatter(comparison)
    )


def _answer_first(comparison: "Comparison") -> list[int]:
    """The columns for a screen: name, clean, worst case and its test, which else lie behind thirty attacks."""
    worst = len(comparison.columns)  # behind the name
    paired = [worst + 3, worst + 4] if comparison.baseline else []
    return [0, 1, worst, *paired, *range(2, worst), worst + 1, worst + 2]


def _by_count(comparison: "Comparison") -> dict[int, list[str]]:
    """Titles of columns by how many images they rest on."""
    found: dict[int, list[str]] = {}
    for title, n in zip(comparison.columns, comparison.images, strict=True):
        found.setdefault(n, []).append(title)
    return found


def environment(package: str | None = __package__) -> Environment:
    """Templates of this package, and of another one that has some."""

    def load(name: str) -> str:
        places = [files(each).joinpath(name) for each in (package, __package__) if each]
        return next(each for each in places if each.is_file()).read_text(encoding="utf-8")

    return Environment(
        loader=FunctionLoader(load), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )


class Point(NamedTuple):
    """Of a chart: a row's number and name, where it is across, and its worst case with the interval, shares of 1."""

    number: int
    name: str
    across: float
    worst: tuple[float, float, float]


def _scatter(comparison: "Comparison") -> dict[str, Any]:
    lines = [(number, each) for number, each in enumerate(comparison.lines, start=1) if each.clean and each.worst]
    points = [
        Point(number, each.name, each.clean[0], each.worst) for number, each in lines if each.clean and each.worst
    ]
    return clean_against_worst(points)


def clean_against_worst(points: Sequence[Point], *, fitted: bool = False) -> dict[str, Any]:
    """What the SVG template draws of clean accuracies, shares of 1, and worst cases. fitted: both axes end where the
    points do, in tens of per cent; else both go from 0 to 100."""
    first, last, top = 0, 10, 1.0
    if fitted and points:
        clean = [p.across for p in points]
        first = min(math.floor(10 * min(clean)), 8)
        last = max(math.ceil(10 * max(clean)), first + 2)
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
