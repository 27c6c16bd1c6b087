"""A comparison as Markdown, LaTeX, SVG and one HTML page without script or anything from elsewhere."""

from importlib.resources import files
from typing import TYPE_CHECKING, Any

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
    return _environment().get_template("comparison.svg.j2").render(alone=True, **_scatter(comparison))


def page(comparison: "Comparison") -> str:
    header, rows = comparison.text()
    template = _environment().get_template("comparison.html.j2")
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


def _environment() -> Environment:
    def load(name: str) -> str:
        return files(__package__).joinpath(name).read_text(encoding="utf-8")

    return Environment(
        loader=FunctionLoader(load), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )


def _scatter(comparison: "Comparison") -> dict[str, Any]:
    """What the SVG template draws: ticks, and of each network place and interval in pixels."""
    across, up = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def x(share: float) -> float:
        return round(LEFT + share * across, 1)

    def y(share: float) -> float:
        return round(TOP + (1 - share) * up, 1)

    points = []
    for number, line in enumerate(comparison.lines, start=1):
        if line.clean is None or line.worst is None:
            continue
        points.append(
            {
                "number": number,
                "name": line.name,
                "x": x(line.clean[0]),
                "y": y(line.worst[0]),
                "low": y(line.worst[1]),
                "high": y(line.worst[2]),
                "words": f"{line.name}: clean {100 * line.clean[0]:.1f} %, worst case {100 * line.worst[0]:.1f} %",
            }
        )
    ticks = [{"share": tick, "x": x(tick / 100), "y": y(tick / 100)} for tick in range(0, 101, 20)]
    frame = {"left": LEFT, "right": WIDTH - RIGHT, "top": TOP, "bottom": HEIGHT - BOTTOM}
    return {"points": points, "ticks": ticks, "frame": frame, "width": WIDTH, "height": HEIGHT}
