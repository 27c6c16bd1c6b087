"""An SHC network beside its twin: every result that both have, compared. Tables, chart and sentences take from it."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from shconv.report.computed.compare import Comparison, compare
from shconv.report.computed.worst_case import OBJECTIVES, THREATS, over_same_attacks, worst_case_cell
from shconv.report.folder.run import Run
from shconv.report.output.cells import Cell
from shconv.report.paper.results import ATTACKS, OBJECTIVE_NAMES, attacked, clean, noisy, sigmas
from shconv.report.published import network_name

CLEAN, NOISE, WORST = "clean", "noise", "worst case"


@dataclass(frozen=True)
class Beside:
    """One result: of clean images, of noise, of Table 2 (its group is the objective) or of a worst case."""

    group: str
    words: str  # within the group, as in FGSM
    twin: Cell
    shc: Cell
    seen: Comparison  # of the SHC network with its twin
    own: float | None = None  # the SHC network's worst case where its own gradient routes are attacked too

    @property
    def title(self) -> str:
        if self.group in OBJECTIVE_NAMES:
            return f"{self.words}, {OBJECTIVE_NAMES[self.group]}"
        return self.words if self.group == CLEAN else f"{self.group}, {self.words}"


@dataclass(frozen=True)
class Pair:
    """A vanilla network and its SHC counterpart."""

    models: tuple[str, str]  # as rows name them
    results: tuple[Beside, ...]

    @property
    def twin(self) -> str:
        return network_name(self.models[0])

    @property
    def shc(self) -> str:
        return network_name(self.models[1])

    def of(self, group: str) -> list[Beside]:
        return [each for each in self.results if each.group == group]


@lru_cache(maxsize=1)
def pairs(run: Run) -> tuple[Pair, ...]:
    """Of the run; kept, for page, tables and sentences ask for them in turn."""
    return tuple(Pair(both, tuple(_results(run, *both))) for both in run.pairs)


def _results(run: Run, vanilla: str, shc: str) -> Iterator[Beside]:
    def beside(group: str, words: str, twin: Cell, ours: Cell, own: float | None = None) -> Iterator[Beside]:
        if seen := compare(twin, ours):
            yield Beside(group, words, twin, ours, seen, own)

    both = vanilla, shc
    yield from beside(CLEAN, "clean", clean(run, vanilla), clean(run, shc))
    for sigma in sigmas(run):
        yield from beside(NOISE, f"σ {sigma:g}", noisy(run, vanilla, sigma), noisy(run, shc, sigma))
    for objective in OBJECTIVES:
        for attack, name in ATTACKS.items():
            theirs, ours = (attacked(run, model, attack, objective) for model in both)
            yield from beside(objective, name, theirs, ours)
    for threat in THREATS:
        own = worst_case_cell(run, shc, threat, own=True).accuracy
        yield from beside(WORST, threat.name, *over_same_attacks(run, vanilla, shc, threat), own)
