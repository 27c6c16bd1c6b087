"""Every attack, the paper's and the stronger ones: frozen dataclasses, called as attack(model, images, labels)."""

from shconv.attacks.base import Attack, AttackResult, BatchAttack
from shconv.attacks.blur import GaussianBlur
from shconv.attacks.budget import ANY_CHANGE, Budget
from shconv.attacks.cost import Cost
from shconv.attacks.deepfool import DeepFool
from shconv.attacks.foreign import Foreign, as_attack
from shconv.attacks.gradient import FGSM, IFGSM, RandFGSM
from shconv.attacks.hard_label import HardLabel
from shconv.attacks.jsma import JSMA
from shconv.attacks.lbfgs import LBFGS
from shconv.attacks.locsearch import LocSearchAdv, LocSearchResult, LocSearchTrace
from shconv.attacks.minimal import MinimalAttack
from shconv.attacks.noise import GaussianNoise
from shconv.attacks.pgd import PGD
from shconv.attacks.presets import (
    PAPER,
    RIVALS,
    STRONG,
    VARIANTS,
    create_attack,
    list_attacks,
    locsearch_columns,
    locsearch_for,
)
from shconv.attacks.salt_and_pepper import SaltAndPepper
from shconv.attacks.search import SearchAttack
from shconv.attacks.semi_random import SemiRandom
from shconv.attacks.signs import RandomSigns
from shconv.attacks.square import Square
from shconv.attacks.standard import Standard
from shconv.attacks.substitute import SeedImages, Substitute
from shconv.attacks.undetected import Undetected, UndetectedPGD

__all__ = [
    "ANY_CHANGE",
    "FGSM",
    "IFGSM",
    "JSMA",
    "LBFGS",
    "PAPER",
    "PGD",
    "RIVALS",
    "STRONG",
    "VARIANTS",
    "Attack",
    "AttackResult",
    "BatchAttack",
    "Budget",
    "Cost",
    "DeepFool",
    "Foreign",
    "GaussianBlur",
    "GaussianNoise",
    "HardLabel",
    "LocSearchAdv",
    "LocSearchResult",
    "LocSearchTrace",
    "MinimalAttack",
    "RandFGSM",
    "RandomSigns",
    "SaltAndPepper",
    "SearchAttack",
    "SeedImages",
    "SemiRandom",
    "Square",
    "Standard",
    "Substitute",
    "Undetected",
    "UndetectedPGD",
    "as_attack",
    "create_attack",
    "list_attacks",
    "locsearch_columns",
    "locsearch_for",
]
