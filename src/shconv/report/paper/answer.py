"""The answer of a run in three lines and one chart: each SHC network beside its twin on clean images, under the
paper's attacks and in the worst case; then what that means and what it does not. Every word hangs on a comparison."""

from collections.abc import Sequence

from shconv.report.computed.compare import VERDICTS
from shconv.report.computed.worst_case import OBJECTIVES
from shconv.report.folder.run import Run
from shconv.report.numbers import between, joined
from shconv.report.paper.beside import CLEAN, WORST, Pair
from shconv.report.paper.results import blocked
from shconv.report.paper.selections import CONFIDENT
from shconv.report.published import network_name

PAPERS = "least_likely"  # the objective that the paper's numbers are of
TOPICS = {CLEAN: "Clean images", PAPERS: "The paper's attacks", WORST: "Worst case"}


def answer(found: Sequence[Pair]) -> list[tuple[str, list[str]]]:
    """Three lines at most: a topic, and a sentence for each pair."""
    said = [(topic, [_said(pair, group) for pair in found if pair.of(group)]) for group, topic in TOPICS.items()]
    return [(topic, sentences) for topic, sentences in said if sentences]


def _said(pair: Pair, group: str) -> str:
    lines = pair.of(group)
    if group == CLEAN:
        seen = lines[0].seen
        return f"{pair.shc} {seen.shares[1]}, {pair.twin} {seen.shares[0]}: {VERDICTS[seen.verdict]}."
    named: dict[str, list[str]] = {}
    for line in lines:
        levels = f" ({line.seen.shares[1]}, twin {line.seen.shares[0]})" if group == WORST else ""
        named.setdefault(line.seen.verdict, []).append(f"{line.words}{levels}")
    parts = [
        f"{words} {'within' if group == WORST else 'under'} {', '.join(named[verdict])}"
        for verdict, words in VERDICTS.items()
        if verdict in named
    ]
    return f"{pair.shc}: {'; '.join(parts)}."


def meaning(run: Run, found: Sequence[Pair]) -> list[str]:
    """What the answer means, in at most three sentences or so."""
    worst = {line.seen.verdict for pair in found for line in pair.of(WORST)}
    single = {line.seen.verdict for pair in found for line in pair.of(PAPERS)}
    said = []
    if "higher" in worst:
        above = [f"{where}, over the same attacks." for where in _worst(found, "higher", "more")]
        said += [*above, "A worst case is an upper bound: a stronger attack can only lower it."]
    elif worst and "higher" in single:
        said.append("The SHC network is more accurate under single attacks, but not in the worst case.")
    elif worst or single:
        said.append("These images show no advantage of SHC under attack.")
    said += [f"{where}." for where in _worst(found, "lower", "less")]
    if masked := [network_name(shc) for _, shc in run.pairs if _is_masked(run, shc)]:
        said.append(
            f"{joined(masked)}: the attack gets stronger when it ignores the hypernetwork route. That part of the "
            "accuracy is gradient masking, not robustness."
        )
    return said


def _worst(found: Sequence[Pair], verdict: str, word: str) -> list[str]:
    """For each pair with that verdict in a worst case: within which budgets, and that it is not within the others."""
    said = []
    for pair in found:
        lines = pair.of(WORST)
        there = [line.words for line in lines if line.seen.verdict == verdict]
        rest = [line.words for line in lines if line.seen.verdict != verdict]
        but = f", but not within {joined(rest)}" if rest else ""
        if there:
            said.append(f"{pair.shc}: {word} accurate than the twin in the worst case within {joined(there)}{but}")
    return said


def _is_masked(run: Run, shc: str) -> bool:
    """Does blocking the hypernetwork route lower the accuracy under RAND+FGSM, for either objective, in some seed?"""
    seen = [blocked(run, shc, objective) for objective in OBJECTIVES]
    return any(each is not None and "lower" in each.verdicts for each in seen)


def limits(run: Run, found: Sequence[Pair]) -> list[str]:
    """What the answer does not mean."""
    said = ["Nothing here shows that a network is robust, because attacks that fail prove nothing."]
    counts = [row.n for row in run.rows if row.experiment == "table2" and row.n]
    if counts:
        least = min((each.min_confidence for each in run.selections), default=CONFIDENT)
        said.append(
            f"The attacks are on {between(counts)} selected images, which all networks of a pair classify correctly "
            f"with confidence above {least:g}. They are not a sample of the data set."
        )
    if not run.data.is_imagenet and found:
        said.append(f"The data are {run.data.title}, not the paper's ImageNet.")
    return said
