"""Formulations in C++ for the CPU: built on first use, or brought along by the wheel."""

from torch import Tensor

from shconv.ops.cpu import amx, compiled
from shconv.ops.geometry import Geometry

FORMULATIONS = {"compiled": compiled, "amx": amx}
_FIRST = ("amx", "compiled")  # chosen wherever they serve, the first first


def choose(x: Tensor, weight: Tensor, geometry: Geometry) -> str | None:
    """The name of the first that can serve the call; None where none can."""
    return next((name for name in _FIRST if not FORMULATIONS[name].reasons_against(x, weight, geometry)), None)
