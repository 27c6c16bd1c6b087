"""What LocSearchAdv shows: a pair against each other, and the default search against a better one and against chance.
Sentences for ``reading``."""

from collections.abc import Iterator

from shconv.report.computed.compare import better, compare
from shconv.report.folder.run import Run
from shconv.report.numbers import between, mean
from shconv.report.paper.extra_steps import measured_extra_steps
from shconv.report.paper.results import searched
from shconv.report.paper.statement import Statement
from shconv.report.published import network_name

# two searches in words, and what it means where the second leaves an accuracy that is lower, higher, ...
CONTROLS = (
    (
        ("locsearch", "the default search"),
        ("locsearch_cyclic", "the cyclic probe"),
        {
            "lower": "the default search understates how strong the attack can be",
            "higher": "the default search is the stronger one here",
            "none": "the two are not significantly different",
            "mixed": "the seeds disagree on which is stronger",
        },
        ("lower",),  # which of them raise an alarm
    ),
    (
        ("locsearch_random", "random pixels"),
        ("locsearch", "the default search"),
        {
            "lower": "the search finds better pixels than chance",
            "higher": "the search is weaker than chance, and its accuracy says nothing about robustness",
            "none": "the search is not significantly different from chance, and says little about robustness",
            "mixed": "the seeds disagree on whether the search is better than chance",
        },
        ("higher", "none"),
    ),
)


def read_search(run: Run) -> Iterator[Statement]:
    """For each pair: who is right more often at the end, and how many more steps the SHC network needs."""
    for vanilla, shc in run.pairs:
        against = compare(searched(run, vanilla)[5], searched(run, shc)[5])
        if against is not None:
            yield Statement(
                f"After the last step of LocSearchAdv the accuracy of {network_name(vanilla)} is {against.shares[0]}, "
                f"that of {network_name(shc)} {against.shares[1]}: {better(against)}.",
                against.verdict == "lower",
                against.evidence,
            )
        yield from _extra_steps(run, vanilla, shc)


def _extra_steps(run: Run, vanilla: str, shc: str) -> Iterator[Statement]:
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
    images = between([score.n for model in (vanilla, shc) for score in searched(run, model)[5].scores] or [0])
    yield Statement(
        f"{text} The paper says about 60 more of 150, 40 %.", evidence=f"from the mean RCD of {images} images"
    )


def read_controls(run: Run) -> Iterator[Statement]:
    """For each network: the default search beside the cyclic probe, and beside random pixels."""
    for model in run.models:
        for (first, words), (second, others), endings, alarms in CONTROLS:
            against = compare(searched(run, model, first)[5], searched(run, model, second)[5])
            if against is not None:
                yield Statement(
                    f"The accuracy of {network_name(model)} is {against.shares[0]} under {words} and "
                    f"{against.shares[1]} under {others}: {endings[against.verdict]}.",
                    against.verdict in alarms,
                    against.evidence,
                )
