"""What a run shows, in plain words: every sentence is made from its rows and hangs on their intervals.
A check that raises no alarm is never called robustness."""

from collections.abc import Iterator

from shconv.numbers import digits_apart, radius_text
from shconv.report.computed.compare import better, compare, seeds_text
from shconv.report.computed.worst_case import OBJECTIVES
from shconv.report.folder.rows import Row
from shconv.report.folder.run import Run
from shconv.report.numbers import between, count, mean, pct, pcts, points, span
from shconv.report.output.cells import Cell
from shconv.report.paper.beside import CLEAN, NOISE, Pair, pairs
from shconv.report.paper.masking import read_routes, read_worst_cases
from shconv.report.paper.results import ATTACK_NAMES, ATTACKS, OBJECTIVE_NAMES, SEARCHES, by_route, searched
from shconv.report.paper.searching import read_controls, read_search
from shconv.report.paper.selections import read_selections
from shconv.report.paper.statement import Statement
from shconv.report.paper.summaries import behind_twin
from shconv.report.published import NETWORKS, is_shc, network_name

AGREES = 0.95  # share of images above which the quasi decision boundary is said to stand for the true one


def read(run: Run, about: str | None = None) -> tuple[Statement, ...]:
    """All that the rows support, the most important first; an experiment that was not run has no sentence.

    about: the one topic to read.
    """
    topics = {
        "Gradient routes (Table 4)": read_routes,
        "Worst case per image": read_worst_cases,
        "Gradient attacks (Table 2)": _gradient,
        "LocSearchAdv (Table 3)": read_search,
        "How strong the search is": read_controls,
        "Clean images and noise (Table 1)": _noise,
        "RCD against accuracy": _rcd,
        "Distances reached": _distances,
        "Quasi decision boundary": _boundary,
        "Which images Tables 2 to 4 are about": read_selections,
        "How sure these numbers are": _images,
        "Training": _training,
    }
    return tuple(
        said._replace(topic=topic)
        for topic, sentences in topics.items()
        if about in (None, topic)
        for said in sentences(run)
    )


def _gradient(run: Run) -> Iterator[Statement]:
    for pair in pairs(run):
        for objective in OBJECTIVES:
            if pair.of(objective):
                yield _attacked(pair, objective)


def _attacked(pair: Pair, objective: str) -> Statement:
    """A pair under the attacks of one objective."""
    found = pair.of(objective)
    words = {
        "higher": "more accurate under",
        "lower": "less accurate under",
        "none": "not significantly different under",
        "mixed": "the seeds disagree under",
    }
    verdicts = [each.seen.verdict for each in found]
    parts = []
    for verdict in filter(verdicts.__contains__, words):
        same = [each for each in found if each.seen.verdict == verdict]
        levels = [f"{each.words} ({each.seen.shares[1]}, twin {each.seen.shares[0]})" for each in same]
        parts.append(f"{words[verdict]} {', '.join(levels)}")
    together = [
        f"{each.words} ({points(each.seen.points / 100)} points, {seeds_text(ends)})"
        for each in found
        if (ends := each.seen.shown_together)
    ]
    text = "; ".join(parts)
    if together:
        text += f". The seeds together show a difference under {', '.join(together)}"
    paper = ""
    if objective == "least_likely" and pair.models[1] in NETWORKS:
        agrees = set(verdicts) == {"higher"}
        paper = " The paper finds the same." if agrees else " In the paper it is more accurate under all four."
    images = between([score.n for each in found for cell in (each.twin, each.shc) for score in cell.scores])
    return Statement(
        f"{OBJECTIVE_NAMES[objective].capitalize()} objective, gradient of both routes, {pair.shc} against its twin: "
        f"{text}.{paper}",
        "lower" in verdicts,
        f"{images} images",
    )


def _noise(run: Run) -> Iterator[Statement]:
    """Clean images and the strongest noise."""
    for pair in pairs(run):
        for each in (*pair.of(CLEAN), *pair.of(NOISE)[-1:]):
            against = each.seen
            words = "clean images" if each.group == CLEAN else f"noise of {each.words}"
            paper = ", as in the paper" if against.verdict == "higher" else "; in the paper SHC is the better one"
            paper = paper if pair.models[1] in NETWORKS else ""
            yield Statement(
                f"On {words} the accuracy of {pair.twin} is {against.shares[0]}, that of {pair.shc} "
                f"{against.shares[1]}: {better(against)}{paper}.",
                against.verdict == "lower",
                against.evidence,
            )


def _rcd(run: Run) -> Iterator[Statement]:
    compared, found = 0, []
    for words, first, second in _rcd_pairs(run):
        against = compare(first, second)
        if against is None or first.rcd is None or second.rcd is None:
            continue
        compared += 1
        if against.verdict == "lower" and second.rcd < first.rcd:
            digits = digits_apart(2, first.rcd, second.rcd)
            rcd = f"RCD {first.rcd:.{digits}f} to {second.rcd:.{digits}f}"
            found.append(f"{words}: {rcd}, accuracy {' to '.join(against.shares)}")
    if found:
        more = f"; and {len(found) - 4} more" if len(found) > 4 else ""
        yield Statement(
            f"RCD improves while accuracy falls in {len(found)} of {compared} comparisons. "
            f"{'; '.join(found[:4])}{more}. RCD measures confidence and is never the only number.",
            True,
        )
    elif compared:
        yield Statement(f"In none of {compared} comparisons does RCD improve while accuracy falls.")


def _rcd_pairs(run: Run) -> Iterator[tuple[str, Cell, Cell]]:
    """Twin and SHC network under the same attack; both routes and the convolution route of an SHC network."""
    for pair in pairs(run):
        names = f"{pair.twin} to {pair.shc}"
        for each in pair.results:
            yield f"{names}, {each.title}", each.twin, each.shc
        for attack, name in SEARCHES.items():
            theirs, ours = (searched(run, model, attack) for model in pair.models)
            for fifth in theirs:
                yield f"{names}, {name}, {20 * fifth} % of the rounds", theirs[fifth], ours[fifth]
    for model in filter(is_shc, run.models):
        for attack, name in ATTACKS.items():
            for objective in OBJECTIVES:
                both, part = (by_route(run, model, objective, route, attack) for route in ("both", "convolution"))
                words = f"{network_name(model)}, {name}, {OBJECTIVE_NAMES[objective]}"
                yield f"{words}, both routes to the convolution route", both, part


def _distances(run: Run) -> Iterator[Statement]:
    rows = [row for row in run.rows if row.attack == "ifgsm" and row.linf_max is not None]
    for epsilon in sorted({epsilon for row in rows if (epsilon := row.parameter("epsilon")) is not None}):
        furthest = max(row.linf_max or 0.0 for row in rows if row.parameter("epsilon") == epsilon)
        moved, asked = radius_text(furthest), radius_text(epsilon)
        if furthest < 0.999 * epsilon:
            yield Statement(
                f"I-FGSM moved no pixel further than {moved} although its epsilon is {asked}: epsilon has no effect. "
                "FGSM moves by the whole epsilon, so I-FGSM has a smaller budget.",
                True,
            )
        else:
            beyond = "beyond" if furthest > 1.001 * epsilon else "the whole of"
            yield Statement(f"I-FGSM moved pixels by {moved}, {beyond} its epsilon of {asked}.")


def _boundary(run: Run) -> Iterator[Statement]:
    """By network: after which attacks, at their last step, the frozen network still predicts what the true one does."""
    rows = [row for row in run.rows if row.experiment == "quasi_boundary" and row.measured("agreement") is not None]
    for model in dict.fromkeys(row.model for row in rows):
        ends: dict[str, dict[int, list[Row]]] = {}
        for row in rows:
            if row.model == model:
                ends.setdefault(ATTACK_NAMES.get(row.attack, row.attack), {}).setdefault(row.step or 0, []).append(row)
        holds: dict[bool, list[str]] = {True: [], False: []}
        for name, steps in ends.items():
            agreement = mean(row.measured("agreement") for row in steps[max(steps)]) or 0.0
            holds[agreement >= AGREES].append(f"{name} ({pcts(agreement, AGREES)[0]})")
        parts = [f"at least {pct(AGREES)} of the images after {', '.join(holds[True])}"] if holds[True] else []
        parts += [f"fewer than {pct(AGREES)} after {', '.join(holds[False])}"] if holds[False] else []
        yield Statement(
            f"Quasi decision boundary of {network_name(model)}. With frozen kernels the network predicts the same on "
            f"{'; on '.join(parts)}."
        )


def _images(run: Run) -> Iterator[Statement]:
    for model in run.models:
        counts = [(nan, row.n) for row in run.rows if row.model == model and (nan := row.measured("nan"))]
        if counts:
            nan, n = max(counts)
            yield Statement(
                f"{network_name(model)} gave no answer (logits with NaN or infinity) on up to {count(nan)} of "
                f"{count(n)} images: they count as misclassified.",
                alarm=True,
            )
    for number in range(1, 5):
        known = [
            (row.interval[1] - row.interval[0], row.interval, row.n, row.wanted or 0)
            for row in run.rows
            if row.experiment == f"table{number}" and row.interval is not None
        ]
        if known:
            width, widest, _, _ = max(known)
            wanted = max(wanted for *_, wanted in known)
            paper = f", the paper's over {count(wanted)}" if wanted else ""
            images = between([n for _, _, n, _ in known])
            yield Statement(
                f"Each number of Table {number} is over {images} images{paper}. The least certain accuracy is known "
                f"only to ±{50 * width:.1f} points.",
                evidence=f"95 % interval {span(widest)}",
            )


def _training(run: Run) -> Iterator[Statement]:
    for model, seed in sorted({(row.model, row.seed) for row in run.rows}):
        behind = behind_twin(run, model, seed)
        if behind is not None:
            yield Statement(
                f"{network_name(model)} (seed {seed}) is {100 * behind:.1f} points below its twin on clean images. The "
                "paper's SHC networks are above their twins. So this network is not trained as well as the paper's, "
                "and its accuracy under attack is not comparable with the paper's.",
                True,
            )
