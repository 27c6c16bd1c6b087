"""Attacks of the paper: frozen dataclasses of hyper-parameters, called as attack(model, images, labels)."""

from shconv.attacks.base import Attack, AttackResult, BatchAttack
from shconv.attacks.gradient import FGSM, IFGSM, RandFGSM
from shconv.attacks.locsearch import LocSearchAdv
from shconv.attacks.locsearch_trace import LocSearchResult, LocSearchTrace
from shconv.attacks.noise import GaussianNoise
from shconv.attacks.presets import PAPER, VARIANTS, create_attack, list_attacks, locsearch_columns, locsearch_for

__all__ = [
    "FGSM",
    "IFGSM",
    "PAPER",
    "VARIANTS",
    "Attack",
    "AttackResult",
    "BatchAttack",
    "GaussianNoise",
    "LocSearchAdv",
    "LocSearchResult",
    "LocSearchTrace",
    "RandFGSM",
    "create_attack",
    "list_attacks",
    "locsearch_columns",
    "locsearch_for",
]
