"""Defences by name: each is the loss of a training step. The network, the loop and the recipe stay what they are."""

from dataclasses import fields
from typing import Any

from shconv.arguments import checked
from shconv.errors import InputError
from shconv.training.defences.base import Defence, Plain, Step, Trained
from shconv.training.defences.detector import Detector
from shconv.training.defences.distillation import Distillation
from shconv.training.defences.ensemble import Ensemble
from shconv.training.defences.fgsm_rs import FGSMRS
from shconv.training.defences.goodfellow import Goodfellow
from shconv.training.defences.noise_model import NoiseModel
from shconv.training.defences.pgd import PGD
from shconv.training.defences.source import Source
from shconv.training.defences.stability import Stability
from shconv.training.defences.trades import TRADES

__all__ = [
    "DEFENCES",
    "FGSMRS",
    "PGD",
    "TRADES",
    "Defence",
    "Detector",
    "Distillation",
    "Ensemble",
    "Goodfellow",
    "NoiseModel",
    "Plain",
    "Source",
    "Stability",
    "Step",
    "Trained",
    "create_defence",
]

KINDS: tuple[Any, ...] = (
    Plain,
    Goodfellow,
    FGSMRS,
    PGD,
    Ensemble,
    Stability,
    TRADES,
    Distillation,
    Detector,
    NoiseModel,
)
DEFENCES: dict[str, Any] = {kind.name: kind for kind in KINDS}


@checked
def create_defence(name: str, **settings: Any) -> Defence:
    """The defence of that name, its published settings changed: create_defence("pgd", eps=4 / 255, steps=10).

    `sources` are checkpoint folders. Raises InputError for an unknown name, a setting that the defence
    has not got or refuses, and a source that cannot be loaded.
    """
    if name not in DEFENCES:
        raise InputError(f"unknown defence {name!r}; choose from {', '.join(DEFENCES)}")
    known = [field.name for field in fields(DEFENCES[name])]
    for setting in settings:
        if setting not in known:
            raise InputError(f"defence {name} has no {setting}" + (f"; it has {', '.join(known)}" if known else ""))
    if "sources" in known:
        settings = {**settings, "sources": tuple(map(Source.load, settings.get("sources", ())))}
    defence: Defence = DEFENCES[name](**settings)
    return defence
