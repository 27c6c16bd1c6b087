"""Is the second of two results lower or higher than the first, as far as the images can tell?
Image by image where both have outcomes (McNemar's exact test), by their intervals where not; seed by seed."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import NamedTuple

import numpy as np

from shconv.paired import Paired, hull, mean_interval
from shconv.report.folder.rows import Outcomes, on_shared_images
from shconv.report.numbers import between, p_text, pcts, points, points_span, span
from shconv.report.output.cells import Cell, Score

VERDICTS = {
    "higher": "SHC is higher",
    "lower": "SHC is lower",
    "none": "no significant difference",
    "mixed": "the seeds disagree",
}


@dataclass(frozen=True)
class Comparison:
    """Second against first over the seeds that both have."""

    first: float
    second: float
    verdicts: tuple[str, ...]  # "lower", "higher" or "none", one a seed
    evidence: str  # the numbers behind it
    interval: tuple[float, float] | None  # 95 %, of `points`: from the seeds' scatter, of one seed from its images
    ends: tuple[tuple[float, float], tuple[float, float]]  # 95 % of each; of several seeds, from lowest to highest end

    @property
    def verdict(self) -> str:
        """What every seed says: "lower", "higher" or "none"; "mixed" where the seeds do not agree."""
        return self.verdicts[0] if len(set(self.verdicts)) == 1 else "mixed"

    @property
    def shares(self) -> list[str]:
        """First and second, as a sentence says them."""
        return pcts(self.first, self.second)

    @property
    def points(self) -> float:
        return 100 * (self.second - self.first)

    @property
    def shown_together(self) -> tuple[float, float] | None:
        """The interval of several seeds that leaves out zero, where not every seed shows a difference by itself."""
        if len(self.verdicts) == 1 or self.verdict in ("lower", "higher") or self.interval is None:
            return None
        return self.interval if self.interval[0] * self.interval[1] > 0 else None


class _Seed(NamedTuple):
    """One seed of both, on the images that they share where outcomes are there, which are then counted."""

    first: Score
    second: Score
    counts: Paired | None

    @property
    def verdict(self) -> str:
        if self.counts is not None:
            return self.counts.verdict
        if self.first.interval[0] > self.second.interval[1]:
            return "lower"
        return "higher" if self.second.interval[0] > self.first.interval[1] else "none"


def compare(first: Cell, second: Cell) -> Comparison | None:
    """None where no seed has both."""
    others = {score.seed: score for score in second.scores}
    seeds = [_seed(score, others[score.seed]) for score in first.scores if score.seed in others]
    if not seeds:
        return None
    before, after = [seed.first for seed in seeds], [seed.second for seed in seeds]
    images = f"{between([score.n for score in (*before, *after)])} images"
    interval, evidence = _of_seeds(seeds, images) if len(seeds) > 1 else _of_images(seeds[0], images)
    return Comparison(
        first=fmean(score.accuracy for score in before),
        second=fmean(score.accuracy for score in after),
        verdicts=tuple(seed.verdict for seed in seeds),
        evidence=evidence,
        interval=interval,
        ends=(hull([score.interval for score in before]), hull([score.interval for score in after])),
    )


def _seed(a: Score, b: Score) -> _Seed:
    if a.outcomes is None or b.outcomes is None or not len(np.intersect1d(a.outcomes.index, b.outcomes.index)):
        return _Seed(a, b, None)
    index, correct = on_shared_images([a.outcomes, b.outcomes])
    first, second = (Score.over(Outcomes(index, each)) for each in correct)
    return _Seed(first, second, Paired.of(correct[1], correct[0]))


def _of_images(seed: _Seed, images: str) -> tuple[tuple[float, float] | None, str]:
    """The interval in points and the evidence of one seed."""
    text = f"{images}, 95 % intervals {span(seed.first.interval)} and {span(seed.second.interval)}"
    if seed.counts is None:
        return None, f"{text}, unpaired"
    low, high = seed.counts.interval
    difference = f"{points(seed.counts.difference)} points, {points_span((low, high))}"
    return (100 * low, 100 * high), f"{text}; paired difference {difference}; {p_text(seed.counts.p)}"


def _of_seeds(seeds: Sequence[_Seed], images: str) -> tuple[tuple[float, float], str]:
    """The interval in points and the evidence of several seeds, as in: lower in 2, not significantly different in 1."""
    differences = [100 * (seed.second.accuracy - seed.first.accuracy) for seed in seeds]
    low, high = mean_interval(differences)
    interval = max(-100.0, low), min(100.0, high)
    words = {"lower": "lower", "higher": "higher", "none": "not significantly different"}
    found = Counter(seed.verdict for seed in seeds)
    tally = ", ".join(f"{words[verdict]} in {found[verdict]}" for verdict in words if found[verdict])
    difference = f"difference {points(fmean(differences) / 100)} points, {seeds_text(interval)}"
    return interval, f"means of {len(seeds)} seeds; {images}; {tally} of {len(seeds)} seeds; {difference}"


def better(against: Comparison) -> str:
    """A comparison of a twin with its SHC network, in words."""
    return {
        "higher": "the SHC network is the better one",
        "lower": "the SHC network is the worse one",
        "none": "the two are not significantly different",
        "mixed": "the seeds disagree",
    }[against.verdict]


def seeds_text(interval: tuple[float, float]) -> str:
    return f"95 % over seeds {' to '.join(points(end / 100) for end in interval)}"
