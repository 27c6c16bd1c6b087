"""shconv train: one network on one data set, by a recipe."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from shconv.commands.options import DataOptions
from shconv.commands.reproduce import model_config
from shconv.errors import InputError
from shconv.training import RECIPES, train, with_epochs


@dataclass(frozen=True, kw_only=True)
class Train(DataOptions):
    """Train one network; the folder holds its checkpoint, and the same command goes on where it stopped."""

    model: str = "plain10_shc"
    """A name of `shconv info`."""
    out: Path = Path("runs/train")
    """Checkpoint folder."""
    width: int = 16
    """Channels of the first stage; 64 in the paper."""
    stem: Literal["auto", "small", "imagenet"] = "auto"
    """auto: small (3x3, no pool) for images up to 64 px."""
    normalize: Literal["none", "imagenet"] = "none"
    """Mean and std inside the network; the paper feeds [0, 1]."""
    seed: int = 0
    """Of the initial weights, the order of the images and their augmentation."""
    recipe: str = "short"
    """short, cifar, paper or he2016."""
    epochs: int | None = None
    """Stretch or shorten the recipe."""
    batch_size: int | None = None
    """In place of the recipe's."""
    learning_rate: float | None = None
    """In place of the recipe's."""
    weight_decay: float | None = None
    """In place of the recipe's."""
    hyper_weight_decay: float | None = None
    """L2 factor of the hypernetworks' parameters alone; by default weight_decay."""
    precision: Literal["auto", "float32", "bf16", "fp16"] | None = None
    """In place of the recipe's."""
    channels_last: bool = False
    """Train in the channels-last layout."""

    def run(self) -> None:
        if self.recipe not in RECIPES:
            raise InputError(f"unknown recipe {self.recipe!r}; choose from {', '.join(RECIPES)}")
        recipe = RECIPES[self.recipe] if self.epochs is None else with_epochs(RECIPES[self.recipe], self.epochs)
        names = ("batch_size", "learning_rate", "weight_decay", "hyper_weight_decay", "precision")
        changes = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        recipe = replace(recipe, channels_last=self.channels_last or recipe.channels_last, **changes)
        data = self.load(want_train=True)
        config = model_config(self.model, data, self.width, self.stem, self.normalize)
        result = train(config, data, recipe, self.out, seed=self.seed, workers=self.workers)
        print(f"{self.model} on {data.name}: {result.test_accuracy:.2%} of {len(data.test):,} test images; {self.out}")
        if data.note:
            print(data.note)
