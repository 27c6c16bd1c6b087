"""What audits say, as tables: the worst case per image, the twelve checks, and every attack that was tried.
The worst case is an upper bound; a check without alarm is no proof of anything."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from shconv.numbers import radius_text
from shconv.paired import p_cell
from shconv.report.folder.audits import CONFIDENT, SHARED, Audit, Finding, Tried
from shconv.report.numbers import count, percent, points_span, signed, span
from shconv.report.output.cells import Grid, GridColumn
from shconv.report.published import network_name

THREATS = {"linf": "L∞", "l2": "L2", "pixels": "few pixels", "undetected": "past the detector, L∞"}
ROUTES = {
    "both": "both routes",
    "convolution": "convolution route",
    "hypernetwork": "hypernetwork route",
    "strict": "hypernetwork route, strict",
    "frozen": "kernels frozen",
    "straight-through": "identity where none passes",
}
NETWORK = (GridColumn("network", "Network"), GridColumn("seed", "Seed"))


def audit_tables(audits: Sequence[Audit]) -> tuple[Grid, ...]:
    """The tables that are written to files: all audits in each."""
    return (results(audits), checks(audits), attacks(audits)) if audits else ()


def results(audits: Sequence[Audit]) -> Grid:
    """Clean accuracy, the worst case of each threat, and the paired difference from the twin."""
    return Grid(
        name="audit",
        title="Audit: worst case per image",
        caption="An image counts as correct only if no attack within the budget breaks it. This is an upper bound: a "
        "stronger attack can only lower it. Shared attacks can be run on any network: through both routes, made on the "
        "network itself, and run on every image that survived the others. Confident images are those that the network "
        "classifies correctly with a high probability without an attack (above 0.9 by default). If some images were "
        "not attacked, there is no worst case. The difference is network minus twin, over the same images and the "
        "same attacks (p: McNemar's exact test).",
        columns=(
            *NETWORK,
            GridColumn("what", "Measure"),
            GridColumn("epsilon", "ε", radius_text),
            GridColumn("accuracy", "Accuracy, %", percent),
            GridColumn("interval", "95 %", span),
            GridColumn("correct", "Correct", count),
            GridColumn("n", "Images", count),
            GridColumn("attacks", "Attacks", count),
            GridColumn("untried", "Not attacked", count),
            GridColumn("difference", "Difference, points", lambda value: signed(100 * value)),
            GridColumn("difference_interval", "95 %", points_span),
            GridColumn("p", "p", p_cell),
            GridColumn("reason", "Why there is no number"),
        ),
        records=tuple(record for audit in audits for record in _result_records(audit)),
    )


def _result_records(audit: Audit) -> Iterator[dict[str, Any]]:
    if audit.verdict is None:
        return
    empty = ("epsilon", "accuracy", "interval", "correct", "n", "attacks", "untried", "reason")
    compared = ("difference", "difference_interval", "p")
    about = {"network": audit.name, "seed": audit.seed, **dict.fromkeys((*empty, *compared))}
    yield {**about, "what": "clean", **vars(audit.verdict.clean)}
    for key, worst in audit.verdict.worst_case.items():
        epsilon = audit.epsilon(threat_of(key))
        yield {**about, "what": f"worst case, {budget_words(key, epsilon)}", "epsilon": epsilon, **vars(worst)}
    twin = audit.verdict.twin
    if twin is None:
        return
    about |= {"n": audit.verdict.n, "epsilon": audit.epsilon("linf"), "attacks": twin.attacks}
    if twin.difference is None:
        yield {**about, "what": f"minus {twin.words}", "n": None, "attacks": None, "reason": twin.reason or None}
        return
    if twin.attacks:
        yield {**about, "what": f"worst case, attacks shared with the {twin.words}", "accuracy": twin.accuracy}
    yield {**about, "what": f"worst case of the {twin.words}", "accuracy": twin.twin_accuracy}
    difference = {"difference": twin.difference, "difference_interval": twin.interval, "p": twin.p}
    yield {**about, "what": f"worst case minus {twin.words}", **difference}


def checks(audits: Sequence[Audit]) -> Grid:
    """The twelve checks by number; one that was not run says why."""
    return Grid(
        name="audit_checks",
        title="Audit: the twelve checks",
        caption="An alarm means that the accuracy under attack is, or may be, higher than the network's robustness. No "
        "alarm only means that this check found nothing with this effort, not that the network is robust. Neither: "
        "the check has no answer.",
        columns=(
            *NETWORK,
            GridColumn("check", "#"),
            GridColumn("name", "Check"),
            GridColumn("result", "Result"),
            GridColumn("text", "Finding"),
            GridColumn("source", "Source"),
            GridColumn("seconds", "Seconds", lambda value: f"{value:,.1f}"),
            GridColumn("numbers", "Numbers"),
        ),
        records=tuple(_check_record(audit, finding) for audit in audits for finding in audit.checks),
    )


def _check_record(audit: Audit, finding: Finding) -> dict[str, Any]:
    return {
        **vars(finding),
        "network": audit.name,
        "seed": audit.seed,
        "result": finding.result,
        "text": finding.not_run or finding.text or None,
        "source": finding.source or None,
        "numbers": named(finding.numbers) or None,
    }


def attacks(audits: Sequence[Audit]) -> Grid:
    """Every attack that was tried, in the order tried."""
    return Grid(
        name="audit_attacks",
        title="Audit: the attacks tried",
        caption="Tried: images attacked. Broken: those on which the whole network was then wrong, within the budget. "
        "For the worst case, a broken image is not attacked again, so later attacks have fewer and harder images. "
        "Accuracy is over all images, counting only this attack; a dash means that it was not tried on all.",
        columns=(
            *NETWORK,
            GridColumn("attack", "Attack"),
            GridColumn("threat", "Threat"),
            GridColumn("epsilon", "ε", radius_text),
            GridColumn("route", "Gradient"),
            GridColumn("source", "Made on"),
            GridColumn("n", "Tried", count),
            GridColumn("successes", "Broken", count),
            GridColumn("accuracy", "Accuracy, %", percent),
            GridColumn("interval", "95 %", span),
            GridColumn("ran", "Ran"),
            GridColumn("seconds", "Seconds", lambda value: f"{value:,.1f}"),
            GridColumn("counts", "In the worst case"),
            GridColumn("parameters", "Parameters"),
        ),
        records=tuple(_attack_record(audit, tried) for audit in audits for tried in audit.tried),
    )


def _ran(tried: Tried) -> str:
    if not tried.complete:
        return "stopped by the budget"
    return f"on the closest, {tried.spared} left out" if tried.spared else "complete"


def _attack_record(audit: Audit, tried: Tried) -> dict[str, Any]:
    return {
        **vars(tried),
        "network": audit.name,
        "seed": audit.seed,
        "threat": THREATS.get(tried.threat, tried.threat),
        "budget": budget_words(tried.threat, tried.epsilon),
        "route": route_words(tried.route) if tried.route else None,
        "source": None if tried.source is None else network_name(tried.source),
        "ran": _ran(tried),
        "counts": "yes" if tried.headline else "no",
        "parameters": named(tried.parameters) or None,
    }


def threat_of(key: str) -> str:
    """The threat of a worst case."""
    return "linf" if key == CONFIDENT else key.removesuffix(SHARED)


def budget_words(key: str, epsilon: float | None) -> str:
    """A threat with its radius, as in L∞ 8/255."""
    threat = threat_of(key)
    words = THREATS.get(threat, threat) + ("" if epsilon is None else f" {radius_text(epsilon)}")
    more = ", confident images" if key == CONFIDENT else ", shared attacks" if key.endswith(SHARED) else ""
    return words + more


def route_words(route: str) -> str:
    weight = route.removeprefix("mixture:")
    return f"hypernetwork route × {weight}" if weight != route else ROUTES.get(route, route)


def named(values: Mapping[str, Any]) -> str:
    """Parameters or numbers in one cell, unrounded."""
    return ", ".join(f"{key} {value if isinstance(value, str) else json.dumps(value)}" for key, value in values.items())
