"""The learning rate as a pure function of the recipe, the moment and the losses so far.

No scheduler object, so no state of one to be stored: a resumed run cannot disagree with an uninterrupted one."""

import math
from collections.abc import Sequence

from shconv.training.recipe import Recipe

# Plateau: a loss below this share of the best one before is better. Ours: He et al. 2016 only say "plateaus".
BETTER = 0.99


def learning_rate(recipe: Recipe, moment: float, losses: Sequence[float] = ()) -> float:
    """Learning rate at `moment`, in epochs since the start (a fraction inside an epoch).

    - step: times gamma at every milestone.
    - plateau: times gamma when the mean training loss of an epoch (`losses`, one per finished epoch) has not become
      better for `patience` epochs. He et al. 2016 watch the error; the training loss keeps test images out of it.
    - cosine: half a cosine from the end of the warm-up down to 0.

    Before, in all three, a linear warm-up from 0 over `warmup_epochs`.
    """
    if moment < recipe.warmup_epochs:
        return recipe.learning_rate * moment / recipe.warmup_epochs
    if recipe.schedule == "cosine":
        share = (moment - recipe.warmup_epochs) / (recipe.epochs - recipe.warmup_epochs)
        return recipe.learning_rate * (1 + math.cos(math.pi * share)) / 2
    if recipe.schedule == "plateau":
        return recipe.learning_rate * recipe.gamma ** plateaus(losses, recipe.patience)
    return recipe.learning_rate * recipe.gamma ** sum(moment >= milestone for milestone in recipe.milestones)


def plateaus(losses: Sequence[float], patience: int) -> int:
    """How often `losses` stayed for `patience` epochs in a row without one below 0.99 of the best before."""
    count, best, waited = 0, math.inf, 0
    for loss in losses:
        better = loss < BETTER * best
        best, waited = (loss, 0) if better else (best, waited + 1)
        if waited == patience:
            count, waited = count + 1, 0
    return count
