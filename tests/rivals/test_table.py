"""What the table computes of rows: means over seeds, and the charts."""

import math

import pytest

from shconv.rivals import page
from shconv.rivals.table import WORST, Line, RivalTable, over_seeds
from shconv.rivals.which import Rival


def test_over_seeds_the_mean_lies_in_an_interval_that_holds_each_seeds() -> None:
    assert over_seeds([(0.5, 0.4, 0.6)]) == (0.5, 0.4, 0.6)
    assert over_seeds([(0.5, 0.4, 0.6), (0.7, 0.6, 0.8)]) == (pytest.approx(0.6), 0.4, 0.8)


def line(name: str, worst: float | None, price: float | None) -> Line:
    shares = {"clean": (0.8, 0.7, 0.9)} | ({} if worst is None else {WORST: (worst, worst - 0.1, worst + 0.1)})
    prices = {"training": price, "memory": None, "inference": 1.0}
    return Line(Rival("plain10", "", name), (0,), shares, math.inf, ("masked",), 1234, prices)


def test_the_charts_have_a_point_for_each_row_with_both_numbers_and_the_page_says_alarms() -> None:
    lines = (line("pgd", 0.4, 7.9), line("trades", 0.3, None), line("stability", None, 2.0))
    table = RivalTable(lines, "demo", {}, ("A note.",))
    charts = page.charts(table)
    assert charts[page.CLEAN].count("<circle") == 2
    assert charts[page.PRICE].count("<circle") == 1
    assert "plain10-pgd: 7.90 times the time, worst case 40.0 %" in charts[page.PRICE]
    html = page.page(table)
    assert html.count("<circle") == 3
    assert "Alarms for plain10-pgd: masked." in html
    assert "A note." in html
    assert html.index(">clean<") < html.index(">worst case L∞<") < html.index(">FGSM<")  # what a telephone shows first
    rows = table.csv().splitlines()
    assert len(rows) == 4
    assert len({len(row.split(",")) for row in rows}) == 1
    assert "| plain10-pgd | 80.0 | – |" in table.markdown()
    assert "40.0 (30 to 50)" in table.markdown()
