"""What do the filter maps of a network do? `run` measures them layer by layer, and the gradient's two routes: which
maps matter, which are dead, and whether the gradient that passes through them misleads an attacker."""

from shconv.inspection.result import Inspection, load
from shconv.inspection.run import run

__all__ = ["Inspection", "load", "run"]
