"""The table in files, with one HTML page and two charts: clean accuracy, and the price, against the worst case."""

import math
from pathlib import Path
from typing import Any

from shconv.files import replace_file, replace_text
from shconv.results.charts import Point, clean_against_worst, drawn, environment, highest, svg
from shconv.rivals.table import RivalTable

CLEAN, PRICE = "rivals-clean", "rivals-price"


def save(table: RivalTable, folder: Path) -> Path:
    """Write rivals.html, .csv and .md and both charts into the folder; returns the page."""
    replace_file(folder / "rivals.csv", table.csv().encode())
    replace_text(folder / "rivals.md", table.markdown())
    for name, chart in charts(table).items():
        replace_text(folder / f"{name}.svg", chart)
    replace_text(folder / "rivals.html", page(table))
    return folder / "rivals.html"


def page(table: RivalTable) -> str:
    template = environment("shconv.rivals").get_template("rivals.html.j2")
    return template.render(table=table, clean=_clean(table), price=_price(table), alone=False)


def charts(table: RivalTable) -> dict[str, str]:
    """Both charts as SVG files, by name."""
    return {CLEAN: svg(_clean(table)), PRICE: svg(_price(table))}


def _clean(table: RivalTable) -> dict[str, Any]:
    lines = enumerate(table.lines, start=1)
    return clean_against_worst(
        [Point(n, each.rival.name, each.shares["clean"][0], each.worst) for n, each in lines if each.worst]
    )


def _price(table: RivalTable) -> dict[str, Any]:
    """Time of a training step over the vanilla network's, each mark twice the one before."""
    points, words = [], []
    for number, line in enumerate(table.lines, start=1):
        price = line.prices["training"]
        if line.worst is not None and price:
            points.append(Point(number, line.rival.name, math.log2(price), line.worst))
            words.append(f"{line.rival.name}: {price:.2f} times the time, worst case {100 * line.worst[0]:.1f} %")
    low = math.floor(0.1 + min([0.0, *(point.across for point in points)]))  # one that is hardly cheaper needs no mark
    high = math.ceil(max([1.0, *(point.across for point in points)]))
    marks = {float(at): f"{2.0**at:g}" for at in range(low, high + 1)}
    title = "time of a training step over the vanilla network's"
    return drawn(points, words, title, marks, (low, high), highest(points))
