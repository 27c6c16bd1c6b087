"""An audit's report as HTML for notebooks: the worst cases, the sentences of the verdict, the checks.
Every word is escaped; what has no number says why."""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup, escape

from shconv.audit.findings import Finding
from shconv.audit.verdict import WORST_CASE
from shconv.report.audit.tables import budget_words
from shconv.report.numbers import DASH, percent, span
from shconv.report.output.render import html_table

RESULTS = {True: Markup("<strong>alarm</strong>"), False: "no alarm", None: "no answer"}


def as_html(worst_case: Mapping[str, Any], verdict: str, findings: Sequence[Finding]) -> str:
    def result(finding: Finding) -> str:
        return "not run" if finding.not_run else "" if finding.check == WORST_CASE else RESULTS[finding.alarm]

    sentences = "".join(f"<li>{escape(sentence)}</li>" for sentence in verdict.splitlines())
    cases = (_case(budget_words(key, None), case) for key, case in worst_case.items())
    checks = (
        (str(each.check), each.name, result(each), each.not_run or each.text)
        for each in sorted(findings, key=lambda finding: finding.check)
    )
    return (
        f"{html_table(('Worst case', 'Accuracy, %', '95 %', 'Right', 'Images', 'Why there is no number'), cases)}"
        f"<ul>{sentences}</ul>{html_table(('#', 'Check', 'Result', 'Finding'), checks)}"
    )


def _case(words: str, case: Mapping[str, Any]) -> tuple[str, ...]:
    if case["accuracy"] is None:
        why = case["reason"] or "no image"
        return words, DASH, DASH, DASH, str(case["n"]), why
    low, high = case["interval"]
    return words, percent(case["accuracy"], 1), span((low, high)), str(case["correct"]), str(case["n"]), ""
