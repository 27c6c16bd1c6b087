"""What LocSearchAdv shows: a pair against each other, and the default search against a better one and against chance.
Sentences for ``reading``."""

from collections.abc import Iterator

from shconv.report.computed.compare import Measured, Said, better, compare, measured, pct
from shconv.report.folder.run import Run
from shconv.report.output.cells import between, mean
from shconv.report.paper.extra_steps import measured_extra_steps
from shconv.report.paper.tables import search_rows
from shconv.report.published import network_name


def read_search(run: Run) -> Iterator[Said]:
    """For each pair: who is right more often at the end, and how many more steps the SHC network needs."""
    for vanilla, shc in run.pairs:
        against = compare(_end(run, vanilla, "locsearch"), _end(run, shc, "locsearch"))
        if against is not None:
            yield Said(
                f"After the last step of LocSearchAdv the accuracy of {network_name(vanilla)} is {pct(against.first)}, "
                f"that of {network_name(shc)} {pct(against.second)}: {better(against)}.",
                against.verdict == "lower",
                against.evidence,
            )
        yield from _extra_steps(run, vanilla, shc)


def _extra_steps(run: Run, vanilla: str, shc: str) -> Iterator[Said]:
    steps = measured_extra_steps(run, vanilla, shc)
    if not steps:
        return
    reached = [(each.more, each.rounds) for each in steps if each.more is not None]
    more = mean(more for more, _ in reached)
    text = f"{network_name(shc)} never reaches its twin's RCD."
    if more is not None:
        share = abs(mean(more / rounds for more, rounds in reached) or 0.0)
        text = (
            f"{network_name(shc)} needs on average {abs(more):.1f} {'more' if more >= 0 else 'fewer'} steps of "
            f"{between([rounds for _, rounds in reached])} for its twin's RCD, {100 * share:.0f} % of the rounds."
        )
        if len(reached) < len(steps):
            text += f" At {len(steps) - len(reached)} of {len(steps)} columns it does not reach it by the last round."
    images = between([each.n for model in (vanilla, shc) for each in _end(run, model, "locsearch").values()] or [0])
    yield Said(f"{text} The paper says about 60 more of 150, 40 %.", evidence=f"from the mean RCD of {images} images")


def read_controls(run: Run) -> Iterator[Said]:
    """For each network: the default search beside the cyclic probe, and beside random pixels."""
    for model in run.models:
        yield from _cyclic(run, model)
        yield from _random(run, model)


def _cyclic(run: Run, model: str) -> Iterator[Said]:
    against = compare(_end(run, model, "locsearch"), _end(run, model, "locsearch_cyclic"))
    if against is not None:
        endings = {
            "lower": "the default search understates how strong the attack can be",
            "higher": "the default search is the stronger one here",
            "none": "the two are not significantly different",
            "mixed": "the seeds disagree on which is stronger",
        }
        yield Said(
            f"The accuracy of {network_name(model)} is {pct(against.first)} under the default search and "
            f"{pct(against.second)} under the cyclic probe: {endings[against.verdict]}.",
            against.verdict == "lower",
            against.evidence,
        )


def _random(run: Run, model: str) -> Iterator[Said]:
    against = compare(_end(run, model, "locsearch_random"), _end(run, model, "locsearch"))
    if against is not None:
        endings = {
            "lower": "the search finds better pixels than chance",
            "higher": "the search is weaker than chance, and its accuracy says nothing about robustness",
            "none": "the search is not significantly different from chance, and says little about robustness",
            "mixed": "the seeds disagree on whether the search is better than chance",
        }
        yield Said(
            f"The accuracy of {network_name(model)} is {pct(against.first)} under random pixels and "
            f"{pct(against.second)} under the default search: {endings[against.verdict]}.",
            against.verdict in ("higher", "none"),
            against.evidence,
        )


def _end(run: Run, model: str, attack: str) -> dict[int, Measured]:
    """Accuracy after the last fifth of the rounds."""
    return measured(run, search_rows(run, model, attack).get(5, {}))
