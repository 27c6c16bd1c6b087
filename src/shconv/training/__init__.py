"""Training: recipes by name, one loop, checkpoints that can be continued."""

from shconv.training.checkpoint import ModelConfig, load_checkpoint, save_checkpoint
from shconv.training.defences import DEFENCES, Defence, create_defence
from shconv.training.engine import Engine
from shconv.training.epoch import TrainingDiverged
from shconv.training.evaluate import correct_in
from shconv.training.loop import train
from shconv.training.recipe import RECIPES, Recipe, with_epochs
from shconv.training.signals import Preempted
from shconv.training.stored import TrainingResult, holds_another

__all__ = [
    "DEFENCES",
    "RECIPES",
    "Defence",
    "Engine",
    "ModelConfig",
    "Preempted",
    "Recipe",
    "TrainingDiverged",
    "TrainingResult",
    "correct_in",
    "create_defence",
    "holds_another",
    "load_checkpoint",
    "save_checkpoint",
    "train",
    "with_epochs",
]
