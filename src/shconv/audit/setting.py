"""What an audit is asked for (radii, seed, time) and how much each check may spend: counts that a plan scales down
from those of an audit without a limit until the estimated time fits."""

import math
import re
from dataclasses import dataclass, field, fields, replace
from typing import Any

from shconv.attacks.checks import check_count
from shconv.errors import InputError
from shconv.experiments.study import CONFIDENT
from shconv.numbers import read_budgets

_UNITS = {"s": 1, "m": 60, "h": 3600}


@dataclass(frozen=True)
class Setting:
    """The question: is the network right on every image within eps (L-infinity) and within eps_l2 (L2) of a clean one?

    budget: "90s", "5m", "1h", or "full" for no limit. Raises InputError for anything out of range.
    """

    eps: float
    eps_l2: float
    seed: int = 0
    batch_size: int = 100
    budget: str = "5m"
    min_confidence: float = CONFIDENT  # of the images whose worst case is given apart

    def __post_init__(self) -> None:
        read_budgets(self, "eps", above=True)
        read_budgets(self, "eps_l2", norm="l2", above=True)
        if not 0 <= self.min_confidence < 1:
            raise InputError(f"min_confidence: got {self.min_confidence:g}; want a number from 0 to below 1")
        check_count("seed", self.seed, 0)
        check_count("batch_size", self.batch_size, 1)
        budget_seconds(self.budget)

    @property
    def seconds(self) -> float:
        """The time that the audit may take; infinite for "full"."""
        return budget_seconds(self.budget)

    def radius(self, threat: str) -> float:
        """eps or eps_l2; infinite for "pixels", which count changed pixels and not how far they go."""
        return {"linf": self.eps, "l2": self.eps_l2, "pixels": math.inf, "undetected": self.eps}[threat]


def _count(full: int, least: int, *, cheap: bool = False, blind: int | None = None) -> int:
    """A count as an audit without a limit has it, and the least with which a check says anything.

    cheap: a check that follows the square root of the share. blind: of a network without a gradient, where that is
    another count; of a cheap check the least.
    """
    blind = least if cheap and blind is None else blind
    return field(default=full, metadata={"least": least, "cheap": cheap, "blind": blind})


@dataclass(frozen=True)
class Effort:
    """How much each check may spend. The defaults are those of an audit without a limit.

    "images" are the most that a side check looks at; those of the worst case attack every image that is still correct.
    """

    restarts: int = _count(5, 1, blind=1)  # of PGD, each from a start of its own
    steps: tuple[int, ...] = (10, 50, 200)  # of PGD: few, the usual, and most
    targets: int = 9  # the likeliest wrong classes, each in turn
    mixtures: tuple[float, ...] = (0.1, 0.3, 0.5, 2.0, 5.0)  # weights of the hypernetwork route's gradient
    compared_images: int = _count(500, 50, blind=10)  # on which attacks run side by side, broken or not
    start_images: int = _count(200, 50, blind=10)  # random start against none
    curve_points: int = _count(11, 5, cheap=True)  # radii of the budget curve between 0 and 1
    curve_images: int = _count(200, 32, cheap=True, blind=16)
    curve_steps: int = _count(50, 10, cheap=True)
    square_queries: int = _count(5_000, 100)
    square_images: int = _count(1_000, 20)
    pixel_images: int = _count(100, 2)  # LocSearchAdv
    hard_label_images: int = _count(50, 8)
    hard_label_steps: int = _count(1_000, 20)  # queries grow with it
    sign_draws: int = _count(10_000, 100)
    sign_images: int = _count(100, 10)
    gradient_images: int = _count(100, 16, cheap=True)  # finite differences and the routes' agreement
    surface_images: int = _count(32, 16, cheap=True)
    surface_points: int = _count(21, 7, cheap=True)  # a side of the grid
    indicator_images: int = _count(200, 16, cheap=True)
    binarisation_images: int = _count(100, 4, cheap=True)
    binarisation_points: int = _count(499, 20, cheap=True)  # fewer than the features of Plain-10 and ResNet-18
    ablation_images: int = _count(500, 32, blind=20)
    standard_images: int = 1_000  # AutoAttack; 0 leaves it out
    patience: int = 0  # images in a row, the nearest to falling first, that a dear attack may miss; 0: all of them
    share: float = field(default=1.0, compare=False)  # of the counts above, for the plan's table

    def __post_init__(self) -> None:
        for each in fields(self):
            if each.type is int:
                check_count(each.name, getattr(self, each.name), 0)
        for steps in self.steps if isinstance(self.steps, tuple) and len(self.steps) > 1 else [None]:
            check_count("steps", steps, 1)

    @property
    def usual_steps(self) -> int:
        """Of the white box that routes and transfer are compared with."""
        return self.steps[1]

    def scaled(self, share: float) -> "Effort":
        """These counts times `share` in (0, 1], none below what a check needs to say anything."""
        counts: dict[str, Any] = {}
        for each in fields(self):
            if each.metadata:
                full, part = getattr(self, each.name), math.sqrt(share) if each.metadata["cheap"] else share
                counts[each.name] = min(full, max(each.metadata["least"], round(part * full)))
        usual = self.usual_steps
        fewer = 5 * round(min(usual, max(20.0, usual * math.sqrt(64 * share))) / 5)
        return replace(
            self,
            **counts,
            steps=self.steps if share >= 1 / 16 else (self.steps[0], fewer),
            mixtures=self.mixtures if share >= 1 / 4 else self.mixtures[2:3],
            targets=self.targets if share >= 1 / 64 else min(self.targets, FEW_TARGETS),
            patience=self.patience if share == 1 else PATIENCE,
            share=share,
        )

    def searching_as(self, other: "Effort") -> "Effort":
        """These counts, with the other's for searches that need no gradient."""
        return replace(self, **{name: getattr(other, name) for name in _SEARCHES})

    def without_gradient(self) -> "Effort":
        """For a network without one: just enough of the checks of gradients to say so, all the time for the others."""
        low = {each.name: each.metadata.get("blind") for each in fields(self)}
        few: dict[str, Any] = {name: min(getattr(self, name), least) for name, least in low.items() if least}
        return replace(self, **few, square_images=FULL.square_images)


FULL = Effort()
PATIENCE = 16
FEW_TARGETS = 3
_SEARCHES = ("square_queries", "hard_label_images", "hard_label_steps", "sign_draws", "sign_images")


def budget_seconds(budget: str) -> float:
    """ "90s" -> 90, "5m" -> 300, "1h" -> 3600, "full" -> infinity. Raises InputError for anything else."""
    if budget == "full":
        return math.inf
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", budget) if isinstance(budget, str) else None
    if match is None or not float(match[1]):
        raise InputError(f"budget: got {budget!r}; want a time such as 90s, 5m or 1h, or full")
    return float(match[1]) * _UNITS[match[2]]


def usual_eps_l2(eps: float, values: int) -> float:
    """The L2 radius that goes with eps where none is given, for images of so many values (C H W).

    RobustBench's 0.5 beside 8/255 on 3 x 32 x 32 (Croce et al. 2021), scaled with eps and the root of the values: ours.
    """
    return 0.5 * (eps * 255 / 8) * math.sqrt(values / 3072)
