"""What a run shows, in plain words: every sentence is made from its rows and hangs on their intervals.
A check that raises no alarm is never called robustness."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from shconv.report.computed.compare import Said, better, compare, measured, pct, seeds_text
from shconv.report.computed.worst_case import OBJECTIVES
from shconv.report.folder.rows import Row
from shconv.report.folder.run import Run
from shconv.report.output.cells import between, count, mean, short, signed, span
from shconv.report.paper.masking import read_routes, read_worst_cases
from shconv.report.paper.searching import read_controls, read_search
from shconv.report.paper.selections import read_selections
from shconv.report.paper.summaries import ATTACK_NAMES, behind_twin
from shconv.report.paper.tables import ATTACKS, OBJECTIVE_NAMES, SEARCHES, route_rows, search_rows
from shconv.report.published import NETWORKS, SIGMAS, is_shc, network_name

AGREES = 0.95  # share of images above which the quasi decision boundary is said to stand for the true one


@dataclass(frozen=True)
class Statement:
    """A sentence or two on a topic; ``alarm`` where it speaks against a defence or against the run itself."""

    topic: str
    text: str
    alarm: bool
    evidence: str  # the numbers it hangs on, where the text does not hold them all

    def __str__(self) -> str:
        return f"{self.text} ({self.evidence})" if self.evidence else self.text


def read(run: Run) -> tuple[Statement, ...]:
    """All that the rows support, the most important first; an experiment that was not run has no sentence."""
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
    return tuple(Statement(topic, *said) for topic, sentences in topics.items() for said in sentences(run))


def _gradient(run: Run) -> Iterator[Said]:
    for vanilla, shc in run.pairs:
        for objective in OBJECTIVES:
            seen: dict[str, list[str]] = {}
            together: list[str] = []  # what only the seeds together tell
            numbers: list[int] = []
            for attack, name in ATTACKS.items():
                rows = [run.find("table2", model, attack, objective, "both") for model in (vanilla, shc)]
                against = compare(measured(run, rows[0]), measured(run, rows[1]))
                if against is not None:
                    course = f"{name} ({pct(against.second)}, twin {pct(against.first)})"
                    seen.setdefault(against.verdict, []).append(course)
                    if ends := against.shown_together:
                        together.append(f"{name} ({signed(against.points, 1)} points, {seeds_text(ends)})")
                    numbers += [row.n for each in rows for row in each.values()]
            if not seen:
                continue
            words = {
                "higher": "more accurate under",
                "lower": "less accurate under",
                "none": "not significantly different under",
                "mixed": "the seeds disagree under",
            }
            found = "; ".join(f"{words[verdict]} {', '.join(seen[verdict])}" for verdict in words if verdict in seen)
            if together:
                found += f". The seeds together show a difference under {', '.join(together)}"
            paper = ""
            if objective == "least_likely" and shc in NETWORKS:
                agrees = list(seen) == ["higher"]
                paper = " The paper finds the same." if agrees else " In the paper it is more accurate under all four."
            yield Said(
                f"{OBJECTIVE_NAMES[objective].capitalize()} objective, gradient of both routes, {network_name(shc)} "
                f"against its twin: {found}.{paper}",
                "lower" in seen,
                f"{between(numbers)} images",
            )


def _noise(run: Run) -> Iterator[Said]:
    sigmas = [sigma for row in run.rows if row.attack == "gaussian" and (sigma := row.parameter("sigma")) is not None]
    cells: list[tuple[str, str, float | None]] = [("clean images", "clean", None)]
    if sigmas:
        cells.append((f"noise of σ {max(sigmas):g}", "gaussian", max(sigmas)))
    for vanilla, shc in run.pairs:
        for words, attack, sigma in cells:
            rows = [run.find("table1", model, attack, sigma=sigma) for model in (vanilla, shc)]
            against = compare(measured(run, rows[0]), measured(run, rows[1]))
            if against is not None:
                paper = ", as in the paper" if against.verdict == "higher" else "; in the paper SHC is the better one"
                paper = paper if shc in NETWORKS else ""
                yield Said(
                    f"On {words} the accuracy of {network_name(vanilla)} is {pct(against.first)}, "
                    f"that of {network_name(shc)} {pct(against.second)}: {better(against)}{paper}.",
                    against.verdict == "lower",
                    against.evidence,
                )


def _rcd(run: Run) -> Iterator[Said]:
    compared, found = 0, []
    for words, first, second in _rcd_pairs(run):
        against = compare(measured(run, first), measured(run, second))
        before, after = (mean(row.rcd_mean for row in rows.values()) for rows in (first, second))
        if against is None or before is None or after is None:
            continue
        compared += 1
        if against.verdict == "lower" and after < before:
            accuracy = f"{pct(against.first)} to {pct(against.second)}"
            found.append(f"{words}: RCD {before:.2f} to {after:.2f}, accuracy {accuracy}")
    if found:
        more = f"; and {len(found) - 4} more" if len(found) > 4 else ""
        yield Said(
            f"RCD improves while accuracy falls in {len(found)} of {compared} comparisons. "
            f"{'; '.join(found[:4])}{more}. RCD measures confidence and is never the only number.",
            True,
        )
    elif compared:
        yield Said(f"In none of {compared} comparisons does RCD improve while accuracy falls.")


def _rcd_pairs(run: Run) -> Iterator[tuple[str, Mapping[int, Row], Mapping[int, Row]]]:
    """Twin and SHC network under the same attack; both routes and the convolution route of an SHC network."""
    for vanilla, shc in run.pairs:
        pair = f"{network_name(vanilla)} to {network_name(shc)}"
        for sigma in SIGMAS:
            theirs, ours = (run.find("table1", model, "gaussian", sigma=sigma) for model in (vanilla, shc))
            yield f"{pair}, noise of σ {sigma:g}", theirs, ours
        for attack, name in ATTACKS.items():
            for objective in OBJECTIVES:
                theirs, ours = (run.find("table2", model, attack, objective, "both") for model in (vanilla, shc))
                yield f"{pair}, {name}, {OBJECTIVE_NAMES[objective]}", theirs, ours
        for attack, name in SEARCHES.items():
            found = [search_rows(run, model, attack) for model in (vanilla, shc)]
            for fifth in sorted(found[0].keys() & found[1].keys()):
                yield f"{pair}, {name}, {20 * fifth} % of the rounds", found[0][fifth], found[1][fifth]
    for model in filter(is_shc, run.models):
        for attack, name in ATTACKS.items():
            for objective in OBJECTIVES:
                full, part = (route_rows(run, model, attack, objective, route) for route in ("both", "convolution"))
                words = f"{network_name(model)}, {name}, {OBJECTIVE_NAMES[objective]}"
                yield f"{words}, both routes to the convolution route", full, part


def _distances(run: Run) -> Iterator[Said]:
    rows = [row for row in run.rows if row.attack == "ifgsm" and row.linf_max is not None]
    for epsilon in sorted({epsilon for row in rows if (epsilon := row.parameter("epsilon")) is not None}):
        furthest = max(row.linf_max or 0.0 for row in rows if row.parameter("epsilon") == epsilon)
        if furthest < 0.999 * epsilon:
            yield Said(
                f"I-FGSM moved no pixel further than {short(furthest)} although its epsilon is {epsilon:g}: "
                "epsilon has no effect. FGSM moves by the whole epsilon, so I-FGSM has a smaller budget.",
                True,
            )
        else:
            beyond = "beyond" if furthest > 1.001 * epsilon else "the whole of"
            yield Said(f"I-FGSM moved pixels by {short(furthest)}, {beyond} its epsilon of {epsilon:g}.")


def _boundary(run: Run) -> Iterator[Said]:
    """By network: after which attacks, at their last step, the frozen network still predicts what the true one does."""
    rows = [row for row in run.rows if row.experiment == "quasi_boundary" and _agreement(row) is not None]
    for model in dict.fromkeys(row.model for row in rows):
        ends: dict[str, dict[int, list[Row]]] = {}
        for row in rows:
            if row.model == model:
                ends.setdefault(ATTACK_NAMES.get(row.attack, row.attack), {}).setdefault(row.step or 0, []).append(row)
        holds: dict[bool, list[str]] = {True: [], False: []}
        for name, steps in ends.items():
            agreement = mean(_agreement(row) for row in steps[max(steps)]) or 0.0
            holds[agreement >= AGREES].append(f"{name} ({pct(agreement)})")
        parts = [f"at least {pct(AGREES)} of the images after {', '.join(holds[True])}"] if holds[True] else []
        parts += [f"fewer than {pct(AGREES)} after {', '.join(holds[False])}"] if holds[False] else []
        yield Said(
            f"Quasi decision boundary of {network_name(model)}. With frozen kernels the network predicts the same on "
            f"{'; on '.join(parts)}."
        )


def _agreement(row: Row) -> float | None:
    value = row.extra.get("agreement")
    return float(value) if isinstance(value, int | float) else None


def _images(run: Run) -> Iterator[Said]:
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
            yield Said(
                f"Each number of Table {number} is over {images} images{paper}. The least certain accuracy is known "
                f"only to ±{50 * width:.1f} points.",
                evidence=f"95 % interval {span(widest)}",
            )


def _training(run: Run) -> Iterator[Said]:
    for model, seed in sorted({(row.model, row.seed) for row in run.rows}):
        behind = behind_twin(run, model, seed)
        if behind is not None:
            yield Said(
                f"{network_name(model)} (seed {seed}) is {100 * behind:.1f} points below its twin on clean images. The "
                "paper's SHC networks are above their twins. So this network is not trained as well as the paper's, "
                "and its accuracy under attack is not comparable with the paper's.",
                True,
            )
