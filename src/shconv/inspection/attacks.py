"""Does one route of the gradient break more than another? The same attacks at one budget through each, on the same
images, compared image by image: which are still right, and how high the loss was driven, which has no floor."""

from collections.abc import Iterator, Mapping, Sequence
from math import sqrt
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from shconv.attacks import FGSM, PGD, Attack, RandFGSM
from shconv.attacks.checks import check_logits_shape
from shconv.attacks.objective import log_odds
from shconv.experiments.network import Finite, finite, routed
from shconv.intervals import Z, wilson
from shconv.metrics import is_right
from shconv.paired import Paired

Record = dict[str, Any]


def attacks_within(eps: float, steps: int) -> dict[str, Attack]:
    """By name, all within eps (L-infinity) of the clean image and against its label."""
    one = FGSM(epsilon=eps, objective="untargeted")
    two = RandFGSM(epsilon=eps / 2, alpha=eps / 2, objective="untargeted")
    return {"FGSM": one, "RAND+FGSM": two, f"PGD-{steps}": PGD(eps, steps=steps)}


def examples(
    model: nn.Module, attack: Attack, x: Tensor, y: Tensor, index: Sequence[int], seed: int, route: str
) -> Tensor:
    """What the attack makes of images x (N, C, H, W) through a route."""
    with routed(Finite(model), route) as seen:
        return attack.run(seen, x, y, index=index, seed=seed).images


@torch.no_grad()
def judged(model: nn.Module, x: Tensor, y: Tensor) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Of each image by the whole network: is it right, and the log-odds against its label (`loss_against`)."""
    logits = check_logits_shape(model(x), len(x))
    return is_right(logits, y).cpu().numpy(), (-log_odds(finite(logits), y)).double().cpu().numpy()


def compared(
    outcomes: Mapping[str, tuple[NDArray[np.bool_], NDArray[np.float64]]], clean: NDArray[np.bool_]
) -> Iterator[Record]:
    """A record for each route that was taken, over the images that are correct without an attack.

    Differences are route less "both": below 0 in accuracy, and above 0 in loss, where the route is the stronger attack,
    so that the whole gradient is masked.
    """
    kept, loss = outcomes["both"][0][clean], outcomes["both"][1][clean]
    n = int(clean.sum())
    for route in outcomes:
        right, reached = outcomes[route][0][clean], outcomes[route][1][clean]
        pair = Paired.of(right, kept)
        yield {
            "route": route,
            "n": n,
            "correct": int(right.sum()),
            "accuracy": float(right.mean()) if n else None,
            "interval": list(wilson(int(right.sum()), n)) if n else None,
            "difference": pair.difference if n else None,
            "difference_interval": list(pair.interval) if n else None,
            "loss": float(reached.mean()) if n else None,
            "loss_difference": float((reached - loss).mean()) if n else None,
            "loss_difference_interval": list(mean_interval(reached - loss)) if n > 1 else None,
        }


def mean_interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """95 % interval of the mean of independent values by the normal law, for a few dozen of them or more."""
    half = Z * float(values.std(ddof=1)) / sqrt(len(values))
    return float(values.mean()) - half, float(values.mean()) + half
