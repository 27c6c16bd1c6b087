"""What an audit is asked for (radii, seed, time) and how much each check may spend: counts that a plan scales down
from those of an audit without a limit until the estimated time fits."""

import math
import re
from dataclasses import dataclass, field, replace
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


@dataclass(frozen=True)
class Effort:
    """How much each check may spend. The defaults are those of an audit without a limit.

    "images" are the most that a side check looks at; the headline's attacks take every image still standing.
    """

    restarts: int = 5  # of PGD, each from a start of its own
    steps: tuple[int, ...] = (10, 50, 200)  # of PGD: few, the usual, and most
    targets: int = 9  # the likeliest wrong classes, each in turn
    mixtures: tuple[float, ...] = (0.1, 0.3, 0.5, 2.0, 5.0)  # weights of the hypernetwork route's gradient
    compared_images: int = 500  # on which attacks run side by side, broken or not
    start_images: int = 200  # random start against none
    curve_points: int = 11  # radii of the budget curve between 0 and 1
    curve_images: int = 200
    curve_steps: int = 50
    square_queries: int = 5_000
    square_images: int = 1_000
    pixel_images: int = 100  # LocSearchAdv
    hard_label_images: int = 50
    hard_label_steps: int = 1_000  # queries grow with it
    sign_draws: int = 10_000
    sign_images: int = 100
    gradient_images: int = 100  # finite differences and the routes' agreement
    surface_images: int = 32
    surface_points: int = 21  # a side of the grid
    indicator_images: int = 200
    binarisation_images: int = 100
    binarisation_points: int = 499  # inner points, fewer than the features of Plain-10 and ResNet-18
    ablation_images: int = 500
    standard_images: int = 1_000  # AutoAttack; 0 leaves it out
    patience: int = 0  # images in a row, the nearest to falling first, that a dear attack may miss; 0: all of them
    share: float = field(default=1.0, compare=False)  # of the counts above, for the plan's table

    def scaled(self, share: float) -> "Effort":
        """These counts times `share` in (0, 1], none below what a check needs to say anything.

        Those of cheap checks follow its square root.
        """
        low = _FLOOR
        counts = {
            name: min(full, max(low[name], round((math.sqrt(share) if name in _CHEAP else share) * full)))
            for name, full in vars(self).items()
            if isinstance(full, int) and name in low
        }
        least, usual = self.steps[:2]
        fewer = 5 * round(min(usual, max(20.0, usual * math.sqrt(64 * share))) / 5)
        steps = self.steps if share >= 1 / 16 else (least, fewer)
        mixtures = self.mixtures if share >= 1 / 4 else self.mixtures[2:3]
        few = replace(self, **counts, steps=steps, mixtures=mixtures, share=share)
        return replace(
            few,
            patience=self.patience if share == 1 else PATIENCE,
            targets=self.targets if share >= 1 / 64 else min(self.targets, FEW_TARGETS),
        )

    def searching_as(self, other: "Effort") -> "Effort":
        """These counts, with the other's for searches that need no gradient."""
        return replace(self, **{name: getattr(other, name) for name in _SEARCHES})

    def without_gradient(self) -> "Effort":
        """For a network without one: just enough of the checks of gradients to say so, all the time for the others."""
        few: dict[str, Any] = {name: min(getattr(self, name), low) for name, low in _BLIND.items()}
        return replace(self, **few, square_images=FULL.square_images)


FULL = Effort()
PATIENCE = 16
_SEARCHES = ("square_queries", "hard_label_images", "hard_label_steps", "sign_draws", "sign_images")
FEW_TARGETS = 3
_CHEAP = {
    "curve_points",
    "curve_images",
    "curve_steps",
    "gradient_images",
    "surface_images",
    "surface_points",
    "indicator_images",
    "binarisation_images",
    "binarisation_points",
}
_FLOOR = {
    "restarts": 1,
    "compared_images": 50,
    "start_images": 50,
    "curve_points": 5,
    "curve_images": 32,
    "curve_steps": 10,
    "square_queries": 100,
    "square_images": 20,
    "pixel_images": 2,
    "hard_label_images": 8,
    "hard_label_steps": 20,
    "sign_draws": 100,
    "sign_images": 10,
    "gradient_images": 16,
    "surface_images": 16,
    "surface_points": 7,
    "indicator_images": 16,
    "binarisation_images": 4,
    "binarisation_points": 20,
    "ablation_images": 32,
}
_BLIND = {
    **{name: _FLOOR[name] for name in _CHEAP},
    "restarts": 1,
    "compared_images": 10,
    "start_images": 10,
    "curve_images": 16,
    "ablation_images": 20,
}


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
