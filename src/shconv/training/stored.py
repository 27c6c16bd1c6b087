"""What a folder holds of a training: a finished one, a part of one, or another than is asked for."""

import json
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from shconv.data import ImageData
from shconv.errors import InputError
from shconv.training.checkpoint import ModelConfig, check_same_run, load_checkpoint, load_info, run_record
from shconv.training.defences import Defence, Plain
from shconv.training.job import LOG, Row
from shconv.training.recipe import Recipe
from shconv.training.state import load_state


@dataclass(frozen=True)
class TrainingResult:
    """A finished training. `history` holds the rows of log.jsonl, one per epoch."""

    model: nn.Module  # in eval mode on the CPU, as load_checkpoint(folder) gives it
    config: ModelConfig
    folder: Path
    history: tuple[Row, ...]
    test_accuracy: float


def is_finished(folder: Path) -> bool:
    return load_info(folder) is not None


def stored_result(folder: Path) -> TrainingResult:
    model, config, info = load_checkpoint(folder)
    try:
        history = tuple(json.loads(line) for line in (folder / LOG).read_text().splitlines())
        return TrainingResult(model, config, folder, history, float(info["test_accuracy"]))
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{folder} holds a finished training, but its log or result is damaged ({error})") from error


def holds_another(
    folder: Path, config: ModelConfig, data: ImageData, recipe: Recipe, seed: int, defence: Defence | None = None
) -> bool:
    """Does the folder hold a training, finished or interrupted, with which `train` would refuse to go on?"""
    defence = Plain() if defence is None else defence
    for name, (its, own_seed) in defence.first(seed).items():
        if holds_another(folder / name, config, data, recipe, own_seed, its):
            return True
    record = run_record(defence.around(config), data, recipe, seed, defence.record())
    try:
        stored = load_info(folder) or (load_state(folder)[0] or {}).get("run")
        if stored is not None:
            check_same_run(folder, stored, record)
    except InputError:
        return True
    return False
