"""Training: recipes by name, one loop, checkpoints that can be continued."""

from shconv.training.checkpoint import ModelConfig, load_checkpoint, save_checkpoint
from shconv.training.evaluate import correct_in
from shconv.training.loop import TrainingDiverged, TrainingResult, train
from shconv.training.recipe import RECIPES, Recipe, with_epochs

__all__ = [
    "RECIPES",
    "ModelConfig",
    "Recipe",
    "TrainingDiverged",
    "TrainingResult",
    "correct_in",
    "load_checkpoint",
    "save_checkpoint",
    "train",
    "with_epochs",
]
