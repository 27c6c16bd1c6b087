"""How a network is trained: one frozen dataclass, and the recipes by name.

Vanilla and SHC networks of a pair are trained with the same recipe, so only the layer differs between them."""

import math
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal, get_args

from shconv.arguments import checked_fields
from shconv.errors import InputError

Schedule = Literal["step", "plateau", "cosine"]
Augmentation = Literal[
    "none", "crop_flip", "resized_crop", "he2016", "randaugment", "trivialaugment", "autoaugment", "augmix"
]
Precision = Literal["auto", "float32", "bf16", "fp16"]
Optimizer = Literal["sgd", "adamw"]


@checked_fields
@dataclass(frozen=True)
class Recipe:
    """SGD with momentum, or AdamW, over W and theta together; every parameter is decayed, as in He et al. 2016.

    Epochs may be fractions where they mark a moment (`milestones`, `warmup_epochs`).
    Raises InputError for values out of range.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 1e-4
    hyper_weight_decay: float | None = None  # of theta, the hypernetworks' parameters; None: weight_decay (section 2.2)
    schedule: Schedule = "step"
    milestones: tuple[float, ...] = ()  # step: the epochs at which the learning rate is multiplied by gamma
    gamma: float = 0.1  # step and plateau
    patience: int = 5  # plateau: epochs without a better training loss before the learning rate falls
    warmup_epochs: float = 0.0  # linear, from 0
    augmentation: Augmentation = "crop_flip"
    precision: Precision = "auto"  # auto: bf16 where it is fast (CUDA, CPUs with matrix tiles), else float32
    channels_last: bool = True  # the layout in which convolutions are fastest nearly everywhere
    label_smoothing: float = 0.0
    mixup: float = 0.0  # alpha of MixUp's Beta distribution; 0: none
    cutmix: float = 0.0  # the same of CutMix; with both each batch takes either
    optimizer: Optimizer = "sgd"
    ema: float | None = None  # decay of the weights' exponential mean, which is then what is tested and stored

    def __post_init__(self) -> None:
        kinds = {"schedule": Schedule, "augmentation": Augmentation, "precision": Precision, "optimizer": Optimizer}
        for name, choices in kinds.items():
            _check(self, name, getattr(self, name) in get_args(choices), f"one of {', '.join(get_args(choices))}")
        for name in ("epochs", "batch_size", "patience"):
            _check(self, name, isinstance(getattr(self, name), int) and getattr(self, name) >= 1, "an integer >= 1")
        theta = self.hyper_weight_decay
        _check(self, "learning_rate", 0 < self.learning_rate < math.inf, "a finite number above 0")
        _check(self, "momentum", 0 <= self.momentum < 1, "a number in [0, 1)")
        _check(self, "nesterov", not (self.nesterov and self.momentum == 0), "False where momentum is 0")
        _check(self, "weight_decay", 0 <= self.weight_decay < math.inf, "a finite number >= 0")
        _check(self, "hyper_weight_decay", theta is None or 0 <= theta < math.inf, "None or a finite number >= 0")
        for name in ("mixup", "cutmix"):
            _check(self, name, 0 <= getattr(self, name) < math.inf, "a finite number >= 0")
        _check(self, "ema", self.ema is None or 0 <= self.ema < 1, "None or a number in [0, 1)")
        _check(self, "gamma", 0 < self.gamma <= 1, "a number in (0, 1]")
        _check(self, "label_smoothing", 0 <= self.label_smoothing < 1, "a number in [0, 1)")
        _check(self, "warmup_epochs", 0 <= self.warmup_epochs < self.epochs, f"in [0, {self.epochs} epochs)")
        if self.schedule == "step":
            rising = all(a < b for a, b in pairwise((0, *self.milestones, self.epochs)))
            _check(self, "milestones", rising, f"rising, between 0 and {self.epochs} epochs (with_epochs scales them)")


def _check(recipe: Recipe, name: str, holds: bool, wanted: str) -> None:
    if not holds:
        raise InputError(f"{name} is {getattr(recipe, name)!r}; wanted: {wanted}")


def with_epochs(recipe: Recipe, epochs: int) -> Recipe:
    """The recipe stretched or shortened to `epochs`: milestones, warm-up and patience keep their share of the whole.

    Raises InputError if `epochs` is no integer of at least 1.
    """
    if not isinstance(epochs, int) or epochs < 1:
        raise InputError(f"epochs is {epochs!r}; wanted: an integer >= 1")
    return replace(
        recipe,
        epochs=epochs,
        milestones=tuple(milestone * epochs / recipe.epochs for milestone in recipe.milestones),
        warmup_epochs=recipe.warmup_epochs * epochs / recipe.epochs,
        patience=max(1, round(recipe.patience * epochs / recipe.epochs)),
    )


RECIPES: dict[str, Recipe] = {
    # "the same learning scheme" as He et al. 2016 (section 3.2), as PyTorch's users run it: / 10 at 30 and 60 of 90
    "paper": Recipe(90, 256, 0.1, milestones=(30, 60), augmentation="resized_crop"),
    # He et al. 2016, section 3.4: 60e4 iterations of 256 images, / 10 when the error plateaus, colour augmentation
    "he2016": Recipe(120, 256, 0.1, schedule="plateau", augmentation="he2016"),
    # He et al. 2016, section 4.2 (CIFAR-10): 64k iterations of 128, / 10 at 32k and 48k, in epochs of 50,000 images
    "cifar": Recipe(164, 128, 0.1, milestones=(82, 123), augmentation="crop_flip"),
    # ours: a few thousand small images in a few minutes
    "short": Recipe(7, 64, 0.05, weight_decay=5e-4, schedule="cosine", warmup_epochs=1, augmentation="crop_flip"),
}
