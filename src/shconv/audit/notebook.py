"""An audit's report as HTML for notebooks: the worst cases, the sentences of the verdict, the checks.
Every word is escaped; what has no number says why."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from shconv.audit.findings import Finding
from shconv.audit.verdict import WORST_CASE
from shconv.report.audit.tables import budget_words
from shconv.report.numbers import DASH, percent, span

RESULTS = {True: "<strong>alarm</strong>", False: "no alarm", None: "no answer"}


def as_html(worst_case: Mapping[str, Any], verdict: str, findings: Sequence[Finding]) -> str:
    def result(finding: Finding) -> str:
        return "not run" if finding.not_run else "" if finding.check == WORST_CASE else RESULTS[finding.alarm]

    sentences = "".join(f"<li>{escape(sentence)}</li>" for sentence in verdict.splitlines())
    cases = (_case(budget_words(key, None), case) for key, case in worst_case.items())
    checks = (
        (str(each.check), escape(each.name), result(each), escape(each.not_run or each.text))
        for each in sorted(findings, key=lambda finding: finding.check)
    )
    return (
        f"{_table(('Worst case', 'Accuracy, %', '95 %', 'Right', 'Images', 'Why there is no number'), cases)}"
        f"<ul>{sentences}</ul>{_table(('#', 'Check', 'Result', 'Finding'), checks)}"
    )


def _case(words: str, case: Mapping[str, Any]) -> tuple[str, ...]:
    if case["accuracy"] is None:
        why = case["reason"] or "no image"
        return escape(words), DASH, DASH, DASH, str(case["n"]), escape(why)
    low, high = case["interval"]
    return escape(words), percent(case["accuracy"], 1), span((low, high)), str(case["correct"]), str(case["n"]), ""


def _table(titles: Iterable[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of cells that are HTML already."""
    head = "".join(f"<th>{escape(title)}</th>" for title in titles)
    lines = ("".join(f"<td>{cell}</td>" for cell in row) for row in rows)
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
