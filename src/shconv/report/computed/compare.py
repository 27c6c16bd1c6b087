"""Is the second of two results lower or higher than the first, as far as the images can tell?
Image by image where both have outcomes (McNemar's exact test), by their intervals where not; seed by seed."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from shconv.report.computed.intervals import Paired, mean_interval
from shconv.report.computed.worst_case import WorstCase
from shconv.report.folder.rows import Outcomes, Row, on_shared_images, paired
from shconv.report.folder.run import Run
from shconv.report.output.cells import between, mean, percent, signed, span


class Said(NamedTuple):
    """Something to say: ``alarm`` where it speaks against a defence or the run, ``evidence`` the numbers behind it."""

    text: str
    alarm: bool = False
    evidence: str = ""


@dataclass(frozen=True)
class Measured:
    """One seed's accuracy in 0..1, its interval and image count, and its outcomes where there are some."""

    accuracy: float
    interval: tuple[float, float]
    n: int
    outcomes: Outcomes | None

    @classmethod
    def of(cls, outcomes: Outcomes) -> "Measured":
        return cls(outcomes.accuracy, outcomes.interval, len(outcomes.index), outcomes)


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
    def points(self) -> float:
        return 100 * (self.second - self.first)

    @property
    def shown_together(self) -> tuple[float, float] | None:
        """The interval of several seeds that leaves out zero, where not every seed shows a difference by itself."""
        if len(self.verdicts) == 1 or self.verdict in ("lower", "higher") or self.interval is None:
            return None
        return self.interval if self.interval[0] * self.interval[1] > 0 else None


def measured(run: Run, rows: Mapping[int, Row]) -> dict[int, Measured]:
    """By seed; rows without an image are left out."""
    return {
        seed: Measured(row.accuracy, row.interval, row.n, run.outcomes.get(row.id))
        for seed, row in rows.items()
        if row.accuracy is not None and row.interval is not None
    }


def measured_worst(worst: Mapping[int, WorstCase]) -> dict[int, Measured]:
    """Of `worst_cases`, by seed."""
    return {seed: Measured.of(case.outcomes) for seed, case in worst.items()}


def compare(first: Mapping[int, Measured], second: Mapping[int, Measured]) -> Comparison | None:
    """None where no seed has both."""
    seeds = [seed for seed in first if seed in second]
    if not seeds:
        return None
    pairs = [_pair(first[seed], second[seed]) for seed in seeds]
    verdicts = tuple(_verdict(a, b, by_image) for a, b, by_image in pairs)
    a, b = mean(a.accuracy for a, _, _ in pairs), mean(b.accuracy for _, b, _ in pairs)
    assert a is not None
    assert b is not None
    each = _ends([a.interval for a, _, _ in pairs]), _ends([b.interval for _, b, _ in pairs])
    if len(pairs) == 1:
        by_image = pairs[0][2]
        ends = None if by_image is None else (100 * by_image.interval[0], 100 * by_image.interval[1])
        return Comparison(a, b, verdicts, _evidence(*pairs[0]), ends, each)
    low, high = mean_interval([100 * (b.accuracy - a.accuracy) for a, b, _ in pairs])
    ends = max(-100.0, low), min(100.0, high)
    difference = f"difference {signed(100 * (b - a), 1)} points, {seeds_text(ends)}"
    evidence = f"means of {len(pairs)} seeds; {_images(pairs)}; {_tally(verdicts)}; {difference}"
    return Comparison(a, b, verdicts, evidence, ends, each)


_Pair = tuple[Measured, Measured, Paired | None]


def _pair(a: Measured, b: Measured) -> _Pair:
    """Where outcomes are there, both on the images that they share: accuracies, verdict and evidence are of these."""
    if a.outcomes is None or b.outcomes is None:
        return a, b, None
    by_image = paired(a.outcomes, b.outcomes)
    if by_image is None:
        return a, b, None
    index, correct = on_shared_images([a.outcomes, b.outcomes])
    first, second = (Measured.of(Outcomes(index, each)) for each in correct)
    return first, second, by_image


def _ends(intervals: list[tuple[float, float]]) -> tuple[float, float]:
    return min(low for low, _ in intervals), max(high for _, high in intervals)


def _verdict(a: Measured, b: Measured, by_image: Paired | None) -> str:
    if by_image is not None:
        return by_image.verdict
    if a.interval[0] > b.interval[1]:
        return "lower"
    return "higher" if b.interval[0] > a.interval[1] else "none"


def _images(pairs: list[_Pair]) -> str:
    return f"{between([n for a, b, _ in pairs for n in (a.n, b.n)])} images"


def _tally(verdicts: tuple[str, ...]) -> str:
    """How the seeds divide, as in: lower in 2, not significantly different in 1 of 3 seeds."""
    words = {"lower": "lower", "higher": "higher", "none": "not significantly different"}
    counts = Counter(verdicts)
    parts = [f"{words[verdict]} in {counts[verdict]}" for verdict in words if counts[verdict]]
    return f"{', '.join(parts)} of {len(verdicts)} seeds"


def _evidence(a: Measured, b: Measured, by_image: Paired | None) -> str:
    text = f"{_images([(a, b, by_image)])}, 95 % intervals {span(a.interval)} and {span(b.interval)}"
    if by_image is None:
        return f"{text}, unpaired"
    low, high = by_image.interval
    difference = f"{signed(100 * by_image.difference, 1)} points, {signed(100 * low, 1)} to {signed(100 * high, 1)}"
    return f"{text}; paired difference {difference}; {p_text(by_image.p)}"


def better(against: Comparison) -> str:
    """A comparison of a twin with its SHC network, in words."""
    return {
        "higher": "the SHC network is the better one",
        "lower": "the SHC network is the worse one",
        "none": "the two are not significantly different",
        "mixed": "the seeds disagree",
    }[against.verdict]


VERDICTS = {
    "higher": "SHC is higher",
    "lower": "SHC is lower",
    "none": "no significant difference",
    "mixed": "the seeds disagree",
}


def seeds_text(interval: tuple[float, float]) -> str:
    return f"95 % over seeds {signed(interval[0], 1)} to {signed(interval[1], 1)}"


def p_text(p: float) -> str:
    """To three decimals, with spaces that do not break."""
    return ("p < 0.001" if p < 0.001 else f"p = {p:.3f}").replace(" ", "\N{NO-BREAK SPACE}")


def pct(share: float) -> str:
    """With a space that does not break."""
    return f"{percent(share, 1)}\N{NO-BREAK SPACE}%"
