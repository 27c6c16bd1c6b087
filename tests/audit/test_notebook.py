"""An audit's report in a notebook: the verdict's numbers, whole HTML, nothing read as markup."""

from html.parser import HTMLParser

from core_toys import EPS, Brightest, Shift, ToyCheck, attacking, colour_images

from shconv import audit


class Cells(HTMLParser):
    """Collects the cells, and asserts that every tag that opens closes."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.rows: list[list[str]] = []
        self.items: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
        elif tag == "li":
            self.items.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "td" in self.open or "th" in self.open:
            self.rows[-1][-1] += data
        elif "li" in self.open:
            self.items[-1] += data


def test_a_report_is_tables_and_sentences() -> None:
    checks = [
        attacking(2, "<i>step</i>", alarm=True),
        attacking(8, "side", alarm=False),
        ToyCheck(3, "cut", alarm=None),
        ToyCheck(5, "transfer", why="no twin"),
        ToyCheck(6, "part", lambda a: a.attack("far", Shift(EPS), threat="pixels", on=a.sample(3))),
    ]
    report = audit.run(Brightest(), colour_images(), EPS, checks=checks, progress=False)
    page = Cells()
    page.feed(report._repr_html_())
    assert page.open == []
    assert "\n".join(page.items) == report.verdict
    rows = {row[0]: row for row in page.rows}
    case = report.worst_case["linf"]
    assert rows["L∞"][1:2] + rows["L∞"][3:] == [f"{100 * case['accuracy']:.1f}", str(case["correct"]), "24", ""]
    assert rows["few pixels"][1] == "–"
    assert rows["few pixels"][-1] == "21 images were not attacked"
    results = {row[1]: row[2] for row in page.rows if len(row) == 4}
    assert results["<i>step</i>"] == "alarm"
    assert (results["side"], results["cut"], results["transfer"]) == ("no alarm", "no answer", "not run")


def test_lines_of_the_log_carry_the_network_s_name(capsys) -> None:
    options = {"twin": Brightest(30.0), "twin_name": "plain", "checks": [attacking(2, "step")]}
    audit.run(Brightest(), colour_images(), EPS, name="ours", **options)
    lines = capsys.readouterr().err.splitlines()
    for name in ("ours/seed0", "plain/seed0"):
        assert any(line.startswith(f"  {name}, step, linf: breaks") for line in lines), lines
        assert any(line.startswith(f"  {name}: no alarm.") for line in lines), lines
