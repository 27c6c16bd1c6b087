"""shconv.compare: runs, audits and modules in one table; what it refuses; what it writes."""

import io
import re
import xml.etree.ElementTree as ET
from html import escape, unescape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from rich.console import Console

import shconv
from shconv.attacks import FGSM
from shconv.attacks.budget import Budget
from shconv.errors import InputError
from shconv.intervals import wilson
from shconv.paired import Paired
from shconv.results import Results, shown
from shconv.results.charts import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, svg
from shconv.results.compared import Compared, Worst, on_shared_images
from shconv.results.comparison import Comparison
from toys import colour_networks, colours

LABELS = torch.tensor([i % 3 for i in range(20)])
IMAGES = colours(LABELS.tolist()).float() / 255
QUICK: dict[str, Any] = {"batch_size": 8, "progress": False}
ATTACKS = {"small": FGSM(0.02, objective="untargeted"), "large": FGSM(0.08, objective="untargeted")}
WORST = "worst case L∞ 0.08"


def networks() -> dict[str, torch.nn.Module]:
    plain, shc = colour_networks()
    return {"plain": plain, "shc": shc, "soft <b>": colour_networks(5.0)[0]}


def right(model: torch.nn.Module, attack: FGSM | None) -> np.ndarray:
    with torch.no_grad():
        images = IMAGES if attack is None else attack(model, IMAGES, LABELS)
        return (model(images).argmax(1) == LABELS).numpy()


def test_a_line_for_each_network_sorted_by_worst_case_and_tested_against_the_baseline() -> None:
    given = networks()
    table = shconv.compare(given, (IMAGES, LABELS), ATTACKS, baseline="shc", **QUICK).table()
    assert table[WORST].tolist() == sorted(table[WORST], reverse=True)
    lines = table.set_index("model")
    standing = {}
    for name, model in given.items():
        small, large = (right(model, attack) for attack in ATTACKS.values())
        standing[name] = small & large
        line = lines.loc[name]
        assert line["clean"] == right(model, None).mean()
        assert line["small, untargeted"] == small.mean()
        assert line[WORST] == standing[name].mean()
        assert (line[f"{WORST}_low"], line[f"{WORST}_high"]) == wilson(int(standing[name].sum()), 20)
        assert line["parameters"] == sum(each.numel() for each in model.parameters())
    counts = Paired.of(standing["plain"], standing["shc"])
    plain = lines.loc["plain"]
    assert plain["difference"] == counts.difference
    assert (plain["difference_low"], plain["difference_high"]) == counts.interval
    assert plain["p"] == counts.p
    assert np.isnan(lines.loc["shc", "p"])


def test_runs_results_and_modules_on_the_same_images_are_one_table(tmp_path: Path) -> None:
    given = networks()
    at = {"selection": range(3, 15)}
    shconv.evaluate({"plain": given["plain"]}, (IMAGES, LABELS), ATTACKS, folder=tmp_path / "a", **at, **QUICK)
    held = shconv.evaluate({"shc": given["shc"]}, (IMAGES, LABELS), ATTACKS, **at, **QUICK)
    mixed = {"a": tmp_path / "a", "b": held, "fresh": given["plain"]}
    table = shconv.compare(mixed, (IMAGES, LABELS), ATTACKS, **QUICK).table().set_index("model")
    assert set(table.index) == {"plain", "shc", "fresh"}
    assert table.loc["fresh", WORST] == table.loc["plain", WORST]
    assert table.loc["shc", "large, untargeted"] == right(given["shc"], ATTACKS["large"])[3:15].mean()


def test_pairs_of_one_run_are_compared_on_the_images_that_they_share() -> None:
    def network(name: str, source: str, *places: int) -> Compared:
        index, right = np.array(places), np.array([place % 2 == 0 for place in places])
        measures = {"clean": (np.arange(9), np.ones(9, bool)), "FGSM": (index, right), "own": (index[-1:], right[-1:])}
        return Compared(name, 0, source, measures, {Budget("linf", 0.1): Worst(index, right, ("FGSM",), False)}, 1.0)

    a, b, elsewhere = on_shared_images(
        [network("a", "run", 4, 2, 3), network("b", "run", 1, 3, 4), network("c", "x", 7)]
    )
    for each, places in ((a, [4, 3]), (b, [3, 4]), (elsewhere, [7])):
        worst = each.worst[Budget("linf", 0.1)]
        assert worst.places.tolist() == each.measures["FGSM"][0].tolist() == places
        assert worst.right.tolist() == each.measures["FGSM"][1].tolist() == [place % 2 == 0 for place in places]
        assert len(each.measures["clean"][0]) == 9
    assert ["own" in each.measures for each in (a, b, elsewhere)] == [False, False, True]


def test_every_output_holds_the_same_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    comparison = shconv.compare(networks(), (IMAGES, LABELS), ATTACKS, baseline="plain", **QUICK)
    page = comparison.save(tmp_path / "out")
    header, rows = comparison.text()
    html = page.read_text()
    assert "<script" not in html
    assert "soft &lt;b&gt;" in html
    assert "soft <b>" not in html
    shown = [unescape(text) for text in re.findall(r"<th scope=\"col\"[^>]*>([^<]+)</th>", html)]
    assert shown[:5] == ["network", "clean", WORST, "worst case minus plain", "p"]  # what a narrow screen has to show
    assert sorted(shown) == sorted(header)
    lines = [re.findall(r"<t[dh][^>]*>([^<]*)</t[dh]>", line) for line in html.split("<tr>")[2:]]
    cells = [list(map(unescape, line[1:])) for line in lines]
    assert [dict(zip(shown, line, strict=True)) for line in cells] == [
        dict(zip(header, row, strict=True)) for row in rows
    ]
    markdown = (tmp_path / "out" / "comparison.md").read_text().splitlines()
    assert markdown[0] == "| " + " | ".join(header) + " |"
    assert markdown[2:5] == ["| " + " | ".join(map(escape, row)) + " |" for row in rows]
    tex = (tmp_path / "out" / "comparison.tex").read_text()
    assert tex.count(r"\\") == 4
    assert r"worst case L$\infty$ 0.08" in tex
    csv = pd.read_csv(tmp_path / "out" / "comparison.csv")
    assert csv[WORST].tolist() == comparison.table()[WORST].tolist()
    drawing = ET.parse(tmp_path / "out" / "comparison.svg").getroot()
    assert len(drawing.findall(".//{*}circle")) == len(re.findall("<circle", html)) == 3
    comparison.print()
    printed = capsys.readouterr().out
    assert all(line.name in printed for line in comparison.lines)
    assert "soft &lt;b&gt;" in comparison._repr_html_()


def test_what_latex_has_no_letter_for_is_a_command_in_its_table() -> None:
    table = shown.latex(["network", "noise, σ 0.1, L∞"], [["ε 8/255 – 2 × wide_|_", "1.0 ± 0.1"]])
    assert table.isascii()
    assert r"noise, $\sigma$ 0.1, L$\infty$" in table
    assert r"-- 2 $\times$ wide\_\textbar{}\_" in table


@pytest.mark.parametrize("networks", [3, 12])
def test_a_terminal_shows_every_number_whole(networks: int) -> None:
    header = ["accuracy, %", *(f"a network of a long name, seed {place}" for place in range(networks))]
    rows = [[f"attack {row}", *(f"{10 + row}.{place:02d}" for place in range(networks))] for row in range(5)]
    out = io.StringIO()
    Console(file=out, width=60).print(shown.terminal(header, rows, 60))
    assert max(map(len, out.getvalue().splitlines())) <= 60
    assert sorted(re.findall(r"\d\d\.\d\d", out.getvalue())) == sorted(text for row in rows for text in row[1:])
    assert out.getvalue().count("accuracy, %") == (1 if networks == 3 else 2)


def test_a_name_stays_on_its_line_of_a_table_and_is_no_command_there() -> None:
    names = [["[x]", "1"], ["*y*", "2"], ["line\n\nbreak", "3"], ["`a_b`\\", "4"]]
    tex = shown.latex(["network", "p"], names).splitlines()[4:-2]
    assert tex == [r"{[}x] & 1 \\", r"{*}y{*} & 2 \\", r"line break & 3 \\", r"`a\_b`\textbackslash{} & 4 \\"]
    markdown = shown.markdown(["network", "p"], names, ()).splitlines()[2:6]
    assert markdown[0::3] == ["| [x] | 1 |", r"| &#96;a\_b&#96;&#92; | 4 |"]
    assert markdown[1:3] == [r"| \*y\* | 2 |", "| line break | 3 |"]


def test_the_points_of_the_chart_lie_at_clean_and_worst(tmp_path: Path) -> None:
    comparison = shconv.compare(networks(), (IMAGES, LABELS), ATTACKS, **QUICK)
    chart = comparison.chart()
    first, last, top = (int(chart[name][at]["said"]) / 100 for name, at in (("marks", 0), ("marks", -1), ("ticks", -1)))
    circles = ET.fromstring(svg(chart)).findall(".//{*}circle")
    for circle, line in zip(circles, comparison.lines, strict=True):
        assert line.clean is not None
        assert line.worst is not None
        clean = first + (last - first) * (float(circle.get("cx", "")) - LEFT) / (WIDTH - LEFT - RIGHT)
        worst = top * (HEIGHT - BOTTOM - float(circle.get("cy", ""))) / (HEIGHT - TOP - BOTTOM)
        assert (clean, worst) == pytest.approx((line.clean[0], line.worst[0]), abs=1e-3)


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    given = networks()
    data = (IMAGES, LABELS)
    for name, model, how in (
        ("a", "plain", {"selection": range(10)}),
        ("b", "shc", {"selection": range(12)}),
    ):
        shconv.evaluate({name: given[model]}, data, ATTACKS, folder=tmp_path / name, **how, **QUICK)
    with pytest.raises(InputError, match=r"a and b were judged on other images \(clean: 10 and 12\)"):
        shconv.compare([tmp_path / "a", tmp_path / "b"])
    shconv.evaluate({"c": given["shc"]}, (IMAGES, LABELS.flip(0)), ATTACKS, folder=tmp_path / "c", images=10, **QUICK)
    with pytest.raises(InputError, match="about other data: files or labels differ"):
        shconv.compare([tmp_path / "a", tmp_path / "c"])
    shconv.evaluate({"d": given["shc"]}, (IMAGES * 0.9, LABELS), ATTACKS, folder=tmp_path / "d", images=10, **QUICK)
    with pytest.raises(InputError, match=r"about other data \(images_and_labels"):
        shconv.compare([tmp_path / "a", tmp_path / "d"])
    weak = {**ATTACKS, "large": FGSM(0.03, objective="untargeted")}
    shconv.evaluate({"e": given["shc"]}, data, weak, folder=tmp_path / "e", selection=range(10), **QUICK)
    with pytest.raises(
        InputError, match=r"large has epsilon = 0\.08 in .*a and .* in .*e; want one attack under one name"
    ):
        shconv.compare([tmp_path / "a", tmp_path / "e"])
    with pytest.raises(InputError, match="baseline: got 'plan'; did you mean plain"):
        shconv.compare(given, data, ATTACKS, baseline="plan", **QUICK)
    with pytest.raises(InputError, match="got 1 network; want at least two"):
        shconv.compare([tmp_path / "a"])
    with pytest.raises(InputError, match="have to be evaluated; want data"):
        shconv.compare(given)
    with pytest.raises(InputError, match="no budget within which every network was attacked alike"):
        shconv.compare(given, data, {"any": lambda model, images, labels: images}, **QUICK)


def test_networks_of_two_runs_keep_what_their_detectors_reject(tmp_path: Path) -> None:
    class Bright(torch.nn.Sequential):
        """Takes bright images for attacked ones."""

        def score(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean((1, 2, 3))

    for name in "ab":
        network = Bright(colour_networks()[0])
        network.joint = network.threshold = None
        shconv.evaluate({name: network}, (IMAGES, LABELS), ATTACKS, folder=tmp_path / name, **QUICK)
    titles = [f"{name}, right or rejected" for name in ("small, untargeted", "large, untargeted")]
    table = shconv.compare([tmp_path / "a", tmp_path / "b"]).table()
    alone = shconv.results.load(tmp_path / "a").summary()
    for title in ("clean, right and not rejected", *titles):
        assert table[title].tolist() == [float(alone[title].iloc[0])] * 2


def test_a_run_that_has_no_row_yet_or_no_clean_row_is_no_fault(tmp_path: Path) -> None:
    held = shconv.evaluate(networks(), (IMAGES, LABELS), ATTACKS, **QUICK)
    attacked = [row for row in held.records if row["attack"] != "clean"]
    comparison = Comparison.of([Results(attacked, held.outcomes)])
    assert comparison.images[0] == 0
    assert "<svg" in comparison.save(tmp_path / "page").read_text()
    (tmp_path / "rows.jsonl").touch()
    with pytest.raises(InputError, match="holds no results yet"):
        shconv.compare([tmp_path])
