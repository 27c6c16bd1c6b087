"""The two questions that decide about the defence: what is left when the hypernetwork route is blocked, and what is
left in the worst case. Sentences for ``reading``."""

from collections.abc import Iterator

from shconv.report.computed.compare import Comparison, compare
from shconv.report.computed.worst_case import OBJECTIVES, THREATS, worst_case_cell
from shconv.report.folder.run import Run
from shconv.report.numbers import between, mean, pct, pcts, points, span
from shconv.report.output.cells import Cell
from shconv.report.paper.beside import WORST, Pair, pairs
from shconv.report.paper.results import OBJECTIVE_NAMES, blocked, by_route
from shconv.report.paper.statement import Statement
from shconv.report.published import is_shc, network_name, twin

HARMLESS = 0.95  # accuracy above which an attack has hardly touched the network
TOO_WEAK = "The attack hardly touches the network, so this check has no answer. "
NO_ALARM = "This check raises no alarm, which is no evidence of robustness."


def read_routes(run: Run) -> Iterator[Statement]:
    """For each SHC network and objective of Table 4."""
    for model in filter(is_shc, run.models):
        for objective in OBJECTIVES:
            if by_route(run, model, objective, "both").scores:
                yield _blocked(run, model, objective)
            yield from _alone(run, model, objective)


def _blocked(run: Run, model: str, objective: str) -> Statement:
    """What blocking the hypernetwork route does to RAND+FGSM."""
    name, attack = network_name(model), f"RAND+FGSM ({OBJECTIVE_NAMES[objective]})"
    seen = blocked(run, model, objective)
    if seen is None:
        return Statement(f"The convolution route of {name} was not run under {attack}, so masking was not checked.")
    verb = {"lower": "lowers", "higher": "raises"}.get(seen.verdict, "changes")
    course = f"{verb} {name}'s accuracy under {attack} from {seen.shares[0]} to {seen.shares[1]}"
    if seen.verdict == "lower":
        theirs = by_route(run, twin(model), objective, "both")
        ours = [by_route(run, model, objective, route) for route in ("both", "convolution")]
        ending = f": {_masked(seen, *(compare(theirs, each) for each in ours))}"
    elif seen.verdict == "higher":
        ending = f": the convolution route alone is the weaker attack here. {NO_ALARM}"
    elif seen.verdict == "none":
        weak = TOO_WEAK if seen.first >= HARMLESS else ""
        ending = f": the two are not significantly different. {weak}{NO_ALARM}"
    else:
        masked = "in the seeds where it is lower the gradient is masked."
        ending = f"; the seeds disagree: {masked if 'lower' in seen.verdicts else NO_ALARM}"
    return Statement(f"Blocking the hypernetwork route {course}{ending}", "lower" in seen.verdicts, seen.evidence)


def _masked(seen: Comparison, before: Comparison | None, after: Comparison | None) -> str:
    """The conclusion where the convolution route is the stronger attack; ``before``, ``after``: against the twin."""
    lost = points(seen.first - seen.second).removeprefix("+")
    masked = f"{lost} points of the white-box accuracy are gradient masking"
    if before is None or after is None:
        return f"at least {masked}. Its twin was not run."
    level = pct(after.first)
    if after.verdict == "higher":
        return (
            f"at least {masked}. The rest is above the twin's {level} under this one attack. "
            "This does not make the network robust."
        )
    if after.verdict == "mixed":
        return f"at least {masked}. The seeds disagree on whether the rest is above the twin's {level}."
    left = "below" if after.verdict == "lower" else "not significantly different from"
    if before.verdict == "higher":
        return f"the white-box robustness is gradient masking. The rest is {left} the twin's {level}."
    return f"the gradient is masked. Even with both routes the network is not significantly above its twin's {level}."


def _alone(run: Run, model: str, objective: str) -> Iterator[Statement]:
    cell = by_route(run, model, objective, "hypernetwork")
    if cell.accuracy is not None and cell.interval is not None:
        if cell.interval[0] >= 0.9:
            ending = "this gradient alone does almost no harm"
        elif cell.interval[1] < 0.9:
            ending = "this gradient alone is an attack"
        else:
            ending = "these images are too few to say whether this gradient alone does harm"
        yield Statement(
            f"Under the hypernetwork route alone ({OBJECTIVE_NAMES[objective]}), the accuracy of {network_name(model)} "
            f"is {pct(cell.accuracy)}: {ending}.",
            evidence=f"{between([score.n for score in cell.scores])} images, 95 % interval {span(cell.interval)}",
        )


def read_worst_cases(run: Run) -> Iterator[Statement]:
    """Each network's worst cases beside its table's means, then each pair's against each other."""
    for model in run.models:
        yield from _against_mean(run, model)
    for pair in pairs(run):
        yield from _against_twin(pair)


def _against_mean(run: Run, model: str) -> Iterator[Statement]:
    parts, evidence = [], []
    for threat in THREATS:
        cell = worst_case_cell(run, model, threat)
        table_mean = mean(score.table_mean for score in cell.scores)
        if cell.accuracy is not None:
            beside = "" if table_mean is None else f", Table 2's mean {pct(table_mean)}"
            parts.append(f"{pct(cell.accuracy)} within {threat.name}{beside}")
            evidence.append(f"{threat.name}: {_evidence(cell)}")
    if parts:
        route = ", gradient of both routes" if is_shc(model) else ""
        yield Statement(
            f"Worst case of {network_name(model)}{route}, on the selected images: {'; '.join(parts)}.",
            evidence="; ".join(evidence),
        )
    if is_shc(model):
        yield from _own_routes(run, model)


def _own_routes(run: Run, model: str) -> Iterator[Statement]:
    """What an SHC network's own routes add to its worst case over both."""
    parts, evidence, masked = [], [], False
    words = {"lower": "significantly below", "mixed": "in some of the seeds significantly below"}
    for threat in THREATS:
        both, cell = (worst_case_cell(run, model, threat, own) for own in (False, True))
        seen = compare(both, cell)
        if seen is None or [score.attacks for score in cell.scores] == [score.attacks for score in both.scores]:
            continue
        word = words.get(seen.verdict, "not significantly different from")
        parts.append(f"{seen.shares[1]} within {threat.name}, {word} the {seen.shares[0]} through both routes")
        evidence.append(f"{threat.name}: {_evidence(cell)}")
        masked |= "lower" in seen.verdicts
    if parts:
        ending = " Where it is below, the accuracy through both routes was partly masked." if masked else ""
        yield Statement(
            f"The worst case of {network_name(model)} through all its routes, which its twin does not have, is "
            f"{'; '.join(parts)}.{ending}",
            masked,
            "; ".join(evidence),
        )


def _evidence(cell: Cell) -> str:
    images = between([score.n for score in cell.scores])
    return f"{images} images, {cell.text('attacks')} attacks, 95 % {cell.text('95 %')}"


def _against_twin(pair: Pair) -> Iterator[Statement]:
    parts, gone, evidence, verdicts = [], [], [], set()
    words = {
        "higher": "above the twin's",
        "lower": "below the twin's",
        "none": "not significantly different from the twin's",
        "mixed": "the seeds disagree, the twin's",
    }
    for each in pair.of(WORST):
        seen, threat = each.seen, each.words
        parts.append(f"{threat}, {seen.shares[1]}, {words[seen.verdict]} {seen.shares[0]}")
        attacks = between([score.attacks or 0 for score in each.twin.scores])
        evidence.append(f"{threat}: the same {attacks} attacks, {seen.evidence}")
        verdicts.add(seen.verdict)
        theirs, ours = (mean(score.table_mean for score in cell.scores) or 0.0 for cell in (each.twin, each.shc))
        if ours > theirs and seen.verdict in ("none", "lower"):
            gone.append("{} ({}, twin {})".format(threat, *pcts(ours, theirs)))
    if parts:
        text = f"Worst case of {pair.shc} over the attacks that its twin had too, on the selected images,"
        text += f" within {'; within '.join(parts)}."
        if gone:
            text += f" The mean over these attacks is higher for SHC, but not the worst case: {'; '.join(gone)}."
        if "higher" in verdicts:
            text += " It is above the twin's under these attacks only: a worst case is an upper bound."
        yield Statement(text, bool(gone) or "lower" in verdicts, "; ".join(evidence))
