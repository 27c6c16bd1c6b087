"""A comparison as Markdown, LaTeX, SVG and one HTML page without script or anything from elsewhere."""

from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import TYPE_CHECKING, Any, NamedTuple

from jinja2 import Environment, FunctionLoader, StrictUndefined

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


def clean_against_worst(points: Sequence[Point]) -> dict[str, Any]:
    """What the SVG template draws of clean accuracies, shares of 1, and worst cases."""
    ticks = {tick / 100: str(tick) for tick in range(0, 101, 20)}
    words = [f"{p.name}: clean {100 * p.across:.1f} %, worst case {100 * p.worst[0]:.1f} %" for p in points]
    return drawn(points, words, "clean accuracy, %", ticks) | {"diagonal": True}


def drawn(points: Sequence[Point], words: Sequence[str], title: str, marks: Mapping[float, str]) -> dict[str, Any]:
    """What the SVG template draws: ticks, and of each point place and interval in pixels.

    marks: where there are lines from the left end to the right one, and what they are called.
    """
    across, up = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    first, last = min(marks), max(marks)

    def x(value: float) -> float:
        return round(LEFT + (value - first) / (last - first) * across, 1)

    def y(share: float) -> float:
        return round(TOP + (1 - share) * up, 1)

    placed = [
        {
            "number": point.number,
            "name": point.name,
            "x": x(point.across),
            "y": y(point.worst[0]),
            "low": y(point.worst[1]),
            "high": y(point.worst[2]),
            "words": said,
        }
        for point, said in zip(points, words, strict=True)
    ]
    ticks = [{"said": tick, "y": y(tick / 100)} for tick in range(0, 101, 20)]
    frame = {"left": LEFT, "right": WIDTH - RIGHT, "top": TOP, "bottom": HEIGHT - BOTTOM}
    about = {"points": placed, "ticks": ticks, "marks": [{"x": x(at), "said": said} for at, said in marks.items()]}
    return {**about, "frame": frame, "width": WIDTH, "height": HEIGHT, "across": title, "diagonal": False}
