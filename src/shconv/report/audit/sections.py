"""The audit section of a page or a terminal: for each audited network its tables without what says the same in every
line, and above them all networks side by side."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import fmean, stdev

from shconv.numbers import counted
from shconv.report.audit.tables import ROUTES, attacks, budget_words, checks, results, threat_of
from shconv.report.folder.audits import ALARM, CONFIDENT, SHARED, Accuracy, Audit, Twin, Verdict
from shconv.report.numbers import NOT_RUN, count, p_text, pct, percent, said, span
from shconv.report.output.cells import Grid, GridColumn

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


def answer(audits: Sequence[Audit]) -> list[tuple[str, list[str]]]:
    """What was found, in three lines for each network whose checks have an answer: a topic, and a sentence for each."""
    found = [(audit, audit.verdict) for audit in audits if audit.verdict and _told(audit)]
    topics = {
        "To clear up first": [said for _, verdict in found for said in verdict.preflight] if len(audits) > 1 else [],
        "Correct without an attack": [f"{audit.name}: {_share(verdict.clean)}." for audit, verdict in found],
        "Correct in the worst case": [f"{audit.name}: {_worst(audit, verdict)}." for audit, verdict in found],
        "Alarms": [f"{audit.name}: {_alarm(audit)}" for audit, _ in found],
    }
    return [(topic, sentences) for topic, sentences in topics.items() if sentences]


def _share(known: Accuracy) -> str:
    if known.accuracy is None:
        return f"no number ({known.reason})"
    return pct(known.accuracy) + said(known.interval, lambda ends: f" (95 % interval {span(ends)})")


def _worst(audit: Audit, verdict: Verdict) -> str:
    held = {key: each for key, each in verdict.worst_case.items() if key != CONFIDENT and not key.endswith(SHARED)}
    return ", ".join(f"{_share(each)} within {budget_words(key, audit.epsilon(key))}" for key, each in held.items())


def _alarm(audit: Audit) -> str:
    alarms = [f"check {each.check}, {each.name}" for each in audit.checks if each.result == ALARM]
    if not alarms:
        return f"none from the {counted(_told(audit), 'check')} with an answer. This is no evidence of robustness."
    return f"{'; '.join(alarms)}. Some attacks failed, but not for robustness: the worst case may be far too high."


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
    over = f" and over the same {counted(twin.attacks, 'attack')}" if twin.attacks else ""
    difference, bracket, interval = twin.text.partition(" (")
    theirs = said(twin.twin_accuracy, lambda share: f"; the twin's worst case is {pct(share)}")
    p = said(twin.p, lambda p: f", {p_text(p)}")
    return f"Against its {twin.words} on the same images{over}: {difference} points{bracket}{interval}{p}{theirs}."


def _narrowed(grid: Grid, name: str, title: str, keys: Sequence[str]) -> Grid:
    """The columns of these keys, less those that say nothing about this audit."""
    known = {column.key: column for column in (*grid.columns, GridColumn("budget", "Budget"))}
    values = {key: {record[key] for record in grid.records} - {None, ""} for key in keys}
    used = [key for key in keys if values[key] and not (key == "route" and values[key] == {ROUTES["both"]})]
    return replace(grid, name=name, title=title, columns=tuple(known[key] for key in used))


def comparison(audits: Sequence[Audit]) -> Grid:
    """All audited networks side by side, a line for each seed."""
    held = dict.fromkeys(key for audit in audits for key in audit.worst_cases)
    return Grid.over(
        audits,
        name="audit-comparison",
        title="The audited networks side by side",
        caption="Accuracy in per cent with its 95 % interval: on clean images and, for each budget, in the worst case "
        "per image, which is an upper bound. Compare networks over the shared attacks, which can be run on any "
        "network. The other worst case also counts a network's own gradient routes, transfers and searches, which "
        "differ. Alarms: the checks that raised one, and how many gave an answer. A network without alarm is not "
        "necessarily robust.",
        columns=(
            GridColumn("network", "Network", of=lambda audit: audit.name),
            GridColumn("seed", "Seed"),
            GridColumn(
                "clean", "Clean", of=lambda audit: audit.verdict.clean.text if audit.verdict else "not finished"
            ),
            *(GridColumn(key, shared_budget(audits, key), of=partial(_worst_text, key)) for key in held),
            GridColumn("twin", "Minus twin", of=_twin_text),
            GridColumn("alarms", "Alarms", of=_alarms),
            GridColumn("not_run", "Not run", of=lambda audit: _numbers(audit, NOT_RUN) or None),
            GridColumn("n", "Images", count, of=lambda audit: audit.verdict.n if audit.verdict else None),
        ),
        notes=tuple(_over_seeds(audits, held)),
    )


def _twin_text(audit: Audit) -> str | None:
    return audit.verdict.twin.text if audit.verdict and audit.verdict.twin else None


def _worst_text(key: str, audit: Audit) -> str | None:
    return audit.worst_cases[key].text if key in audit.worst_cases else None


def _over_seeds(audits: Sequence[Audit], held: Iterable[str]) -> Iterator[str]:
    """For a network that was trained more than once: mean ± standard deviation over its seeds."""
    for model in dict.fromkeys(audit.model for audit in audits):
        same = [audit for audit in audits if audit.model == model and audit.verdict]
        verdicts = [audit.verdict for audit in same if audit.verdict]
        shares = {"clean": [verdict.clean.accuracy for verdict in verdicts]}
        shares |= {
            shared_budget(same, key): [each.worst_case[key].accuracy for each in verdicts if key in each.worst_case]
            for key in held
        }
        parts = []
        for words, each in shares.items():
            known = [accuracy for accuracy in each if accuracy is not None]
            if len(known) > 1:
                text = f"{percent(fmean(known), 1)} ± {percent(stdev(known), 1)} %".replace(" ", "\N{NO-BREAK SPACE}")
                some = "" if len(known) == len(same) else f" ({len(known)} of the seeds)"
                parts.append(f"{words} {text}{some}")
        if parts:
            yield f"{same[0].name}, mean ± standard deviation over {len(same)} training seeds: {'; '.join(parts)}."


def shared_budget(audits: Sequence[Audit], key: str) -> str:
    """A worst case's budget, with the radius where all audits share it."""
    radii = {audit.epsilon(threat_of(key)) for audit in audits if key in audit.worst_cases}
    return budget_words(key, radii.pop() if len(radii) == 1 else None)


def _alarms(audit: Audit) -> str:
    """The numbers of the checks that raised one, and how many could have."""
    return f"{_numbers(audit, ALARM) or 'none'} (of {_told(audit)})"


def _told(audit: Audit) -> int:
    """How many checks gave an answer."""
    return sum(finding.alarm is not None and not finding.not_run for finding in audit.checks)


def _numbers(audit: Audit, result: str) -> str:
    return ", ".join(dict.fromkeys(str(finding.check) for finding in audit.checks if finding.result == result))
