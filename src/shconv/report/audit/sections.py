"""The audit section of a page or a terminal: for each audited network its tables without what says the same in every
line, and above them all networks side by side."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from shconv.report.audit.tables import (
    NETWORK,
    ROUTES,
    attacks,
    budget_words,
    checks,
    results,
    threat_of,
)
from shconv.report.folder.audits import ALARM, SHARED, Accuracy, Audit, Twin, Verdict
from shconv.report.output.cells import Grid, GridColumn
from shconv.report.output.numbers import DASH, NOT_RUN, count, deviation, mean, p_text, pct, percent, said, span

RESULT_KEYS = ("what", "accuracy", "interval", "correct", "n", "attacks", "untried", "reason")
CHECK_KEYS = ("check", "name", "result", "text", "source", "seconds")
ATTACK_KEYS = ("attack", "budget", "route", "source", "n", "successes", "accuracy", "interval", "ran", "seconds")


@dataclass(frozen=True)
class Section:
    """One audit on the page or the terminal: its tables without the columns that say the same in every line."""

    title: str
    anchor: str
    results: Grid | None  # None before there is a verdict
    text: tuple[str, ...]
    preflight: tuple[str, ...]
    checks: Grid
    attacks: tuple[Grid, ...]  # those that count for the worst case, then those that do not


def sections(audits: Sequence[Audit]) -> tuple[Section, ...]:
    return tuple(_section(audit, f"audit-{place}") for place, audit in enumerate(audits, start=1))


def _section(audit: Audit, anchor: str) -> Section:
    verdict, tried = audit.verdict, attacks([audit])
    counted, aside = (
        replace(tried, records=tuple(record for record in tried.records if record["counts"] == counts))
        for counts in ("yes", "no")
    )
    pages = (
        (counted, "counted", "Attacks that count for the worst case", tried.caption),
        (aside, "aside", "Attacks of the checks alone", "Not counted: on a part of the images, or with other budgets."),
    )
    return Section(
        title=f"{audit.name}, seed {audit.seed}",
        anchor=anchor,
        results=_results(audit, verdict, anchor) if verdict else None,
        text=verdict.text if verdict else (),
        preflight=verdict.preflight if verdict else (),
        checks=_narrowed(checks([audit]), f"{anchor}-checks", "The twelve checks", CHECK_KEYS),
        attacks=tuple(
            _narrowed(replace(grid, caption=caption), f"{anchor}-{name}", f"{words} ({len(grid.records)})", ATTACK_KEYS)
            for grid, name, words, caption in pages
            if grid.records
        ),
    )


def _results(audit: Audit, verdict: Verdict, anchor: str) -> Grid:
    """Clean and worst case in lines; the comparison with the twin, where there is one, in a sentence."""
    whole = results([audit])
    shown = ["clean", *verdict.worst_case]  # in the records' order; shared attacks alone say nothing where all are
    same = {key + SHARED for key, worst in verdict.worst_case.items() if _all_shared(verdict, key, worst)}
    records = tuple(record for key, record in zip(shown, whole.records, strict=False) if key not in same)
    grid = _narrowed(replace(whole, records=records), f"{anchor}-results", "Worst case per image", RESULT_KEYS)
    return grid if verdict.twin is None else replace(grid, notes=(_twin_note(verdict.twin),))


def _all_shared(verdict: Verdict, key: str, worst: Accuracy) -> bool:
    shared = verdict.worst_case.get(key + SHARED)
    return shared is not None and (shared.attacks, shared.accuracy) in ((worst.attacks, worst.accuracy), (0, None))


def _twin_note(twin: Twin) -> str:
    if twin.difference is None:
        return f"Against its {twin.words}: {twin.text}."
    over = f" and over the same {twin.attacks} attack{'' if twin.attacks == 1 else 's'}" if twin.attacks else ""
    difference, bracket, interval = twin.text.partition(" (")
    theirs = said(twin.twin_accuracy, lambda share: f"; the twin's worst case is {pct(share)}")
    p = said(twin.p, lambda p: f", {p_text(p)}")
    return f"Against its {twin.words} on the same images{over}: {difference} points{bracket}{interval}{p}{theirs}."


def _narrowed(grid: Grid, name: str, title: str, keys: Sequence[str]) -> Grid:
    """The columns of these keys, less those that say nothing about this audit."""
    known = {column.key: column for column in (*grid.columns, GridColumn("budget", "Budget"))}
    values = {key: {record[key] for record in grid.records} - {None} for key in keys}
    used = [key for key in keys if values[key] and not (key == "route" and values[key] == {ROUTES["both"]})]
    return replace(grid, name=name, title=title, columns=tuple(known[key] for key in used))


def comparison(audits: Sequence[Audit]) -> Grid:
    """All audited networks side by side, a line for each seed."""
    held = dict.fromkeys(key for audit in audits if audit.verdict for key in audit.verdict.worst_case)
    return Grid(
        name="audit-comparison",
        title="The audited networks side by side",
        caption="Accuracy in per cent with its 95 % interval: on clean images and, for each budget, in the worst case "
        "per image, which is an upper bound. Compare networks over the shared attacks, which can be run on any "
        "network. The other worst case also counts a network's own gradient routes, transfers and searches, which "
        "differ. Alarms: the checks that raised one, and how many gave an answer. A network without alarm is not "
        "necessarily robust.",
        columns=(
            *NETWORK,
            GridColumn("clean", "Clean"),
            *(GridColumn(key, shared_budget(audits, key)) for key in held),
            GridColumn("twin", "Minus twin"),
            GridColumn("alarms", "Alarms"),
            GridColumn("not_run", "Not run"),
            GridColumn("n", "Images", count),
        ),
        records=tuple(_comparison_record(audit, list(held)) for audit in audits),
        notes=tuple(_over_seeds(audits, list(held))),
    )


def _comparison_record(audit: Audit, held: Sequence[str]) -> dict[str, Any]:
    verdict, worst = audit.verdict, _worst_cases(audit)
    twin = verdict.twin if verdict else None
    return {
        "network": audit.name,
        "seed": audit.seed,
        "n": verdict.n if verdict else None,
        "clean": _with_interval(verdict.clean) if verdict else "not finished",
        **{key: _with_interval(worst[key]) if key in worst else None for key in held},
        "twin": None if twin is None else twin.text,
        "alarms": _alarms(audit),
        "not_run": _numbers(audit, NOT_RUN) or None,
    }


def _over_seeds(audits: Sequence[Audit], held: Sequence[str]) -> Iterator[str]:
    """For a network that was trained more than once: mean ± standard deviation over its seeds."""
    for model in dict.fromkeys(audit.model for audit in audits):
        same = [audit for audit in audits if audit.model == model and audit.verdict]
        if len(same) > 1:
            shares = {"clean": [audit.verdict.clean for audit in same if audit.verdict]}
            for key in held:
                known = [_worst_cases(audit).get(key) for audit in same]
                shares[shared_budget(same, key)] = [each for each in known if each and each.accuracy is not None]
            parts = [
                f"{words} {_mean_text(each)}" + ("" if len(each) == len(same) else f" ({len(each)} of the seeds)")
                for words, each in shares.items()
                if len(each) > 1
            ]
            yield f"{same[0].name}, mean ± standard deviation over {len(same)} training seeds: {'; '.join(parts)}."


def _mean_text(shares: Sequence[Accuracy]) -> str:
    values = [share.accuracy for share in shares]
    middle, spread = mean(values), deviation(values)
    if middle is None or spread is None:
        return DASH
    return f"{percent(middle, 1)} ± {percent(spread, 1)} %".replace(" ", "\N{NO-BREAK SPACE}")


def shared_budget(audits: Sequence[Audit], key: str) -> str:
    """A worst case's budget, with the radius where all audits share it."""
    radii = {audit.epsilon(threat_of(key)) for audit in audits if key in _worst_cases(audit)}
    return budget_words(key, radii.pop() if len(radii) == 1 else None)


def _worst_cases(audit: Audit) -> Mapping[str, Accuracy]:
    return audit.verdict.worst_case if audit.verdict else {}


def _with_interval(share: Accuracy) -> str | None:
    if share.accuracy is None:
        return f"{DASH} ({share.reason})" if share.reason else None
    return percent(share.accuracy, 1) + (f" ({span(share.interval)})" if share.interval else "")


def _alarms(audit: Audit) -> str:
    """The numbers of the checks that raised one, and how many could have."""
    told = sum(finding.alarm is not None and not finding.not_run for finding in audit.checks)
    return f"{_numbers(audit, ALARM) or 'none'} (of {told})"


def _numbers(audit: Audit, result: str) -> str:
    return ", ".join(dict.fromkeys(str(finding.check) for finding in audit.checks if finding.result == result))
