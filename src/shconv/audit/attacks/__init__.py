"""The audit's attacks: white-box, from scores, from decisions, by chance, and AutoAttack's standard set."""

from shconv.audit.attacks.base import SearchAttack
from shconv.audit.attacks.hard_label import HardLabel
from shconv.audit.attacks.pgd import PGD
from shconv.audit.attacks.signs import RandomSigns
from shconv.audit.attacks.square import Square
from shconv.audit.attacks.standard import Standard

__all__ = ["PGD", "HardLabel", "RandomSigns", "SearchAttack", "Square", "Standard"]
