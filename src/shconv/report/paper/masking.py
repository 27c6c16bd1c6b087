"""The two questions that decide about the defence: what is left when the hypernetwork route is blocked, and what is
left in the worst case. Sentences for ``reading``."""

from collections.abc import Iterator

from shconv.report.computed.compare import Comparison, Measured, Said, compare, measured, measured_worst, pct
from shconv.report.computed.worst_case import OBJECTIVES, THREATS, over_same_attacks, worst_case_cell, worst_cases
from shconv.report.folder.run import Run
from shconv.report.output.cells import Cell, attacks_text, between, mean, span
from shconv.report.paper.tables import OBJECTIVE_NAMES, route_rows
from shconv.report.published import is_shc, network_name, twin

HARMLESS = 0.95  # accuracy above which an attack has hardly touched the network
TOO_WEAK = "The attack hardly touches the network, so this check has no answer. "
NO_ALARM = "This check raises no alarm, which is no evidence of robustness."


def read_routes(run: Run) -> Iterator[Said]:
    """For each SHC network and objective of Table 4."""
    for model in filter(is_shc, run.models):
        for objective in OBJECTIVES:
            both = _accuracies(run, model, objective, "both")
            if both:
                yield _blocked(run, model, objective, both)
            yield from _alone(run, model, objective)


def _blocked(run: Run, model: str, objective: str, both: dict[int, Measured]) -> Said:
    """What blocking the hypernetwork route does to RAND+FGSM."""
    name, attack = network_name(model), f"RAND+FGSM ({OBJECTIVE_NAMES[objective]})"
    convolution = _accuracies(run, model, objective, "convolution")
    seen = compare(both, convolution)
    if seen is None:
        return Said(f"The convolution route of {name} was not run under {attack}, so masking was not checked.")
    course = f"{name}'s accuracy under {attack} from {pct(seen.first)} to {pct(seen.second)}"
    if seen.verdict == "lower":
        theirs = _accuracies(run, twin(model), objective, "both")
        ending = _masked(seen, compare(theirs, both), compare(theirs, convolution))
        return Said(f"Blocking the hypernetwork route lowers {course}: {ending}", True, seen.evidence)
    if seen.verdict == "higher":
        ending = f"the convolution route alone is the weaker attack here. {NO_ALARM}"
        return Said(f"Blocking the hypernetwork route raises {course}: {ending}", False, seen.evidence)
    if seen.verdict == "none":
        weak = TOO_WEAK if seen.first >= HARMLESS else ""
        ending = f"the two are not significantly different. {weak}{NO_ALARM}"
        return Said(f"Blocking the hypernetwork route changes {course}: {ending}", False, seen.evidence)
    alarm = "lower" in seen.verdicts
    ending = "in the seeds where it is lower the gradient is masked." if alarm else NO_ALARM
    text = f"Blocking the hypernetwork route changes {course}; the seeds disagree: {ending}"
    return Said(text, alarm, seen.evidence)


def _masked(seen: Comparison, before: Comparison | None, after: Comparison | None) -> str:
    """The conclusion where the convolution route is the stronger attack; ``before``, ``after``: against the twin."""
    points = f"{-seen.points:.1f} points of the white-box accuracy are gradient masking"
    if before is None or after is None:
        return f"at least {points}. Its twin was not run."
    level = pct(after.first)
    if after.verdict == "higher":
        return (
            f"at least {points}. The rest is above the twin's {level} under this one attack. "
            "This does not make the network robust."
        )
    if after.verdict == "mixed":
        return f"at least {points}. The seeds disagree on whether the rest is above the twin's {level}."
    left = "below" if after.verdict == "lower" else "not significantly different from"
    if before.verdict == "higher":
        return f"the white-box robustness is gradient masking. The rest is {left} the twin's {level}."
    return f"the gradient is masked. Even with both routes the network is not significantly above its twin's {level}."


def _alone(run: Run, model: str, objective: str) -> Iterator[Said]:
    found = list(_accuracies(run, model, objective, "hypernetwork").values())
    if found:
        low, high = min(each.interval[0] for each in found), max(each.interval[1] for each in found)
        if low >= 0.9:
            ending = "this gradient alone does almost no harm"
        elif high < 0.9:
            ending = "this gradient alone is an attack"
        else:
            ending = "these images are too few to say whether this gradient alone does harm"
        accuracy = pct(mean(each.accuracy for each in found) or 0.0)
        yield Said(
            f"Under the hypernetwork route alone ({OBJECTIVE_NAMES[objective]}), the accuracy of {network_name(model)} "
            f"is {accuracy}: {ending}.",
            evidence=f"{between([each.n for each in found])} images, 95 % interval {span((low, high))}",
        )


def _accuracies(run: Run, model: str, objective: str, route: str) -> dict[int, Measured]:
    return measured(run, route_rows(run, model, "rand_fgsm", objective, route))


def read_worst_cases(run: Run) -> Iterator[Said]:
    """Each network's worst cases beside its table's means, then each pair's against each other."""
    for model in run.models:
        yield from _against_mean(run, model)
    for vanilla, shc in run.pairs:
        yield from _against_twin(run, vanilla, shc)


def _against_mean(run: Run, model: str) -> Iterator[Said]:
    parts, evidence = [], []
    for threat in THREATS:
        worst, cell = worst_cases(run, model, threat), worst_case_cell(run, model, threat)
        table_mean = mean(each.table_mean for each in worst.values())
        if cell.accuracy is None or cell.interval is None:
            continue
        beside = "" if table_mean is None else f", Table 2's mean {pct(table_mean)}"
        parts.append(f"{pct(cell.accuracy)} within {threat.name}{beside}")
        evidence.append(f"{threat.name}: {_evidence(cell)}")
    if parts:
        route = ", gradient of both routes" if is_shc(model) else ""
        yield Said(
            f"Worst case of {network_name(model)}{route}, on the selected images: {'; '.join(parts)}.",
            evidence="; ".join(evidence),
        )
    if is_shc(model):
        yield from _own_routes(run, model)


def _own_routes(run: Run, model: str) -> Iterator[Said]:
    """What an SHC network's own routes add to its worst case over both."""
    parts, evidence, masked = [], [], False
    for threat in THREATS:
        seen = compare(*(measured_worst(worst_cases(run, model, threat, own)) for own in (False, True)))
        cell, both = worst_case_cell(run, model, threat, own=True), worst_case_cell(run, model, threat)
        if seen is None or [score.attacks for score in cell.scores] == [score.attacks for score in both.scores]:
            continue
        words = "significantly below" if seen.verdict == "lower" else "not significantly different from"
        words = "in some of the seeds significantly below" if seen.verdict == "mixed" else words
        parts.append(f"{pct(seen.second)} within {threat.name}, {words} the {pct(seen.first)} through both routes")
        evidence.append(f"{threat.name}: {_evidence(cell)}")
        masked |= "lower" in seen.verdicts
    if parts:
        ending = " Where it is below, the accuracy through both routes was partly masked." if masked else ""
        yield Said(
            f"The worst case of {network_name(model)} through all its routes, which its twin does not have, is "
            f"{'; '.join(parts)}.{ending}",
            masked,
            "; ".join(evidence),
        )


def _evidence(cell: Cell) -> str:
    images = between([score.n for score in cell.scores])
    assert cell.interval is not None
    return f"{images} images, {attacks_text(cell)} attacks, 95 % {span(cell.interval)}"


def _against_twin(run: Run, vanilla: str, shc: str) -> Iterator[Said]:
    parts, gone, evidence, verdicts = [], [], [], set()
    for threat in THREATS:
        theirs, ours = over_same_attacks(run, vanilla, shc, threat)
        against = compare(measured_worst(theirs), measured_worst(ours))
        if against is None:
            continue
        words = {
            "higher": "above the twin's",
            "lower": "below the twin's",
            "none": "not significantly different from the twin's",
            "mixed": "the seeds disagree, the twin's",
        }
        parts.append(f"{threat.name}, {pct(against.second)}, {words[against.verdict]} {pct(against.first)}")
        attacks = between([len(worst.used) for worst in theirs.values()])
        evidence.append(f"{threat.name}: the same {attacks} attacks, {against.evidence}")
        verdicts.add(against.verdict)
        means = [mean(worst.table_mean for worst in each.values()) for each in (theirs, ours)]
        if (
            means[0] is not None
            and means[1] is not None
            and means[1] > means[0]
            and against.verdict in ("none", "lower")
        ):
            gone.append(f"{threat.name} ({pct(means[1])}, twin {pct(means[0])})")
    if parts:
        text = f"Worst case of {network_name(shc)} over the attacks that its twin had too, on the selected images,"
        text += f" within {'; within '.join(parts)}."
        if gone:
            text += f" The mean over these attacks is higher for SHC, but not the worst case: {'; '.join(gone)}."
        if "higher" in verdicts:
            text += " It is above the twin's under these attacks only: a worst case is an upper bound."
        yield Said(text, bool(gone) or "lower" in verdicts, "; ".join(evidence))
