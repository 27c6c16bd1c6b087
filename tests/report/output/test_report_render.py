"""Tables as CSV, Markdown and terminal text."""

import csv
import io
import os
import re

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console

from shconv.errors import InputError
from shconv.report import load_run, print_tables, write
from shconv.report.output import canvas
from shconv.report.output.render import to_csv, to_markdown
from shconv.report.output.tex import to_tex
from shconv.report.paper.charts import draw_routes
from shconv.report.paper.extra_steps import extra_steps
from shconv.report.paper.figures import figure2
from shconv.report.paper.summaries import summaries, worst_case
from shconv.report.paper.tables import paper_tables, table2


def read_csv(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_csv_gives_every_number_back_unrounded(run_folder):
    for seed in (0, 1):
        run_folder.gradient("resnet18", "fgsm", "least_likely", (seed + 1, 7), rcd=1 / 3, rcd_median=1e-17, seed=seed)
    run = load_run(run_folder.save())
    records = [record for record in read_csv(to_csv(table2(run), "demo")) if record["status"] == "run"]
    attacked = [record for record in records if record["group"] == "FGSM"]
    assert [float(record["accuracy"]) for record in attacked] == [1 / 7, 2 / 7]
    assert [(record["seed"], record["n"], record["wanted"]) for record in attacked] == [
        *(("0", "7", "5000"), ("1", "7", "5000")),
    ]
    assert float(attacked[0]["rcd_mean"]) == 1 / 3
    assert float(attacked[0]["rcd_median"]) == 1e-17
    for row, record in zip(run.rows, attacked, strict=True):
        assert (float(record["interval_low"]), float(record["interval_high"])) == row.interval
    assert float(attacked[1]["difference_points"]) == 100 * (2 / 7) - 10.54
    worst = [record for record in records if record["group"] == "worst case"]
    assert {(record["attacks"], record["attacks_wanted"]) for record in worst} == {("1", "4"), ("1", "6"), ("1", "8")}


def test_csv_has_a_line_for_every_cell_that_was_not_run(run_folder):
    run_folder.add("other", "resnet18", "clean", (1, 2))
    run_folder.add("other", "resnet18_shc", "clean", (1, 2))
    records = read_csv(to_csv(table2(load_run(run_folder.save())), "demo"))
    assert len(records) == 2 * 14
    assert [record["status"] for record in records].count("does not apply") == 3  # vanilla: no own routes
    assert {record["status"] for record in records} == {"not run", "does not apply"}
    papers = [record for record in records if record["paper_accuracy_percent"]]
    assert len(papers) == 8
    assert all(record["accuracy"] == "" for record in records)


def test_every_table_is_rectangular_csv(run_folder):
    run = load_run(run_folder.everything(n=20).save())
    for table in (*paper_tables(run), *summaries(run)):
        rows = list(csv.reader(io.StringIO(to_csv(table, run.data.name))))
        assert len(rows) > 1
        assert len({len(row) for row in rows}) == 1


def imagenet(run_folder):
    run_folder.data.update(name="imagenet", classes=[f"class {place}" for place in range(1000)])


def test_the_papers_numbers_stand_beside_ours_on_the_papers_data_alone(run_folder):
    run_folder.gradient("resnet18", "fgsm", "least_likely", (1, 7), rcd=2.5, rcd_median=1.25, rcd_floored=2)

    def shown():
        table = paper_tables(load_run(run_folder.save()))[1]
        lines = to_markdown(table).splitlines(), to_tex(table).splitlines()
        return (next(line for line in each if "ResNet-18 " in line and "14.29" in line) for each in lines)

    markdown, tex = shown()
    assert markdown.split(" | ")[2:] == [*("14.29", "2.6–51.3", "2.50", "1.25", "2", "7 of 5,000", "– |")]
    assert tex.startswith("ResNet-18 & ours & 14.29 / 2.50 & ")
    imagenet(run_folder)
    table = paper_tables(load_run(run_folder.save()))[1]
    line = next(line for line in to_markdown(table).splitlines() if line.startswith("| ResNet-18 | FGSM, least-likely"))
    assert line.split(" | ")[2:] == [
        *("10.54", "14.29", "+3.75", "2.6–51.3", "9.78", "2.50", "−7.28", "1.25", "2", "7 of 5,000", "– |"),
    ]
    assert "ResNet-18 & paper & 10.54 / 9.78 & " in to_tex(table)


def test_every_table_is_a_rectangle_of_latex_with_booktabs_and_nothing_raw(run_folder):
    run_folder.add("table1", r"a_b & 100% \ {x} $y$ #1 ~^", "clean", (1, 2))
    run = load_run(run_folder.everything(n=20).save())
    for table in (*paper_tables(run), *summaries(run)):
        text = to_tex(table)
        for rule in (r"\begin{tabular}", r"\toprule", r"\bottomrule", rf"\label{{tab:{table.name.replace('_', '-')}}}"):
            assert text.count(rule) == 1
        body = text[text.index(r"\midrule") : text.index(r"\bottomrule")].splitlines()[1:]
        columns = re.search(r"begin{tabular}{([lr]+)}", text)[1]
        assert {line.count(" & ") for line in body} == {len(columns) - 1}
        assert all(line.endswith(r" \\") for line in body)
        assert all(ord(letter) < 128 or letter.isalpha() for letter in text), table.name
    assert r"a\_b \& 100\% \textbackslash{}" in to_tex(paper_tables(run)[0])


@pytest.mark.usefixtures("blank")
def test_figures_and_tables_come_in_the_formats_asked_for(run_folder):
    folder = run_folder.everything(n=10).save()
    write(folder, figures=("pdf", "svg"), tables=("tex",))
    assert {file.suffix for file in (folder / "figures").iterdir()} == {".pdf", ".svg"}
    assert {file.suffix for file in (folder / "tables").iterdir()} == {".tex"}
    with pytest.raises(InputError, match="figures: got 'gif', want one of pdf, svg, png"):
        write(folder, figures=("gif",))


def test_a_figures_letters_are_in_its_file_and_the_same_rows_give_the_same_bytes(run_folder):
    run = load_run(run_folder.everything(n=10).save())
    assert b"/FontFile2" in draw_routes(run).saved("pdf")
    once, again = (figure2(run.folder / "arrays" / "figure2.npz").saved("svg") for _ in range(2))
    assert b"<text" not in once
    assert once == again


def _shades(png: bytes) -> NDArray[np.int64]:
    return np.asarray(Image.open(io.BytesIO(png))).astype(np.int64)


def test_a_report_is_the_same_where_its_figures_are_painted_side_by_side(run_folder, monkeypatch):
    folder, written, printed = run_folder.everything(n=10).save(), [], []
    for name in ("figure2", "figure3_resnet18-seed0"):  # their many axes take longer than all others
        (folder / "arrays" / f"{name}.npz").unlink()
    for count in (1, 3):
        monkeypatch.setattr(canvas, "processors", lambda count=count: count)
        printed.append(io.StringIO())
        write(folder, console=Console(file=printed[-1], width=100))
        written.append({path.name: path.read_bytes() for path in (*folder.glob("figures/*"), folder / "report.html")})
        assert len(written[-1]) == 7
    pixels = [{name: files.pop(name) for name in sorted(files) if name.endswith(".png")} for files in written]
    assert written[0] == written[1]
    for alone, beside in zip(*(map(_shades, each.values()) for each in pixels), strict=True):
        assert np.abs(alone - beside).max() <= 8, "of 255: matplotlib sets a title a little apart from time to time"
    print_tables(folder, Console(file=(alone := io.StringIO()), width=100))
    assert [each.getvalue() for each in printed] == [alone.getvalue()] * 2


@pytest.mark.usefixtures("blank")
def test_figures_that_no_other_process_could_paint_are_painted_here(run_folder, monkeypatch):
    folder, here = run_folder.everything(n=10).save(), os.getpid()
    monkeypatch.setattr(canvas, "processors", lambda: 2)
    monkeypatch.setattr(canvas.Drawn, "saved", lambda *_: b"painted" if os.getpid() == here else os._exit(1))
    write(folder)
    assert {path.read_bytes() for path in folder.glob("figures/*")} == {b"painted"}


def test_markdown_escapes_what_came_from_files(run_folder):
    run_folder.add("table1", "<b>|*evil*`", "clean", (1, 2))
    run = load_run(run_folder.save())
    text = "".join(to_markdown(table) for table in (*paper_tables(run), *summaries(run)))
    assert "<b>" not in text
    assert "&lt;b&gt;&#124;\\*evil\\*&#96;" in text


@pytest.mark.parametrize("width", [80, 120])
def test_the_terminal_shows_paper_ours_and_not_run_and_reads_no_markup_from_files(run_folder, width):
    run_folder.add("table1", "[bold]net[/bold]", "clean", (1, 2))
    run_folder.add("table1", "resnet18", "clean", (3, 4))
    out = io.StringIO()
    print_tables(run_folder.save(), Console(file=out, width=width))
    text = out.getvalue()
    assert "[bold]net[/bold]" in text
    assert "75.00" in text
    assert "not run" in text
    assert "How sure these numbers are" in text
    assert max(map(len, text.splitlines())) <= width


@pytest.mark.parametrize("width", [60, 80, 100, 160])
def test_the_terminal_cuts_no_cell_off(run_folder, width):
    run_folder.everything(n=20)
    run = load_run(run_folder.save())
    out = io.StringIO()
    print_tables(run_folder.folder, Console(file=out, width=width))
    text = out.getvalue()
    assert "…" not in text
    assert [line for line in text.splitlines() if "exclude_" in line and "exclude_rounds" not in line] == []
    for grid in (worst_case(run), extra_steps(run)):
        for cell in grid.shown()[0]:
            assert all(word in text for word in cell.split()), (grid.name, cell)  # a cell folds between its words


def test_written_files_are_whole_and_readable_and_leave_no_scraps(run_folder):
    run_folder.add("table1", "resnet18", "clean", (3, 4))
    folder = run_folder.save()
    path = write(folder)
    assert path == folder / "report.html"
    names = {file.stem for file in (folder / "tables").iterdir()}
    assert names == {
        *("table1", "table2", "table3", "table4", "table3_steps"),
        *("worst_case", "twins", "route_verdicts", "search_verdicts", "quasi_boundary", "training", "attacks"),
    }
    assert not [file for file in folder.rglob("*") if file.name.startswith(".")]
    first = path.read_bytes()
    assert write(folder).read_bytes() == first  # the same rows give the same page
