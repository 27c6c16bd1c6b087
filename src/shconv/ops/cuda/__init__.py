"""Formulations in Triton for NVIDIA's GPUs, and the measurement by which "auto" chooses there among all there are.
Importing this room imports no triton."""

from torch import Tensor

from shconv.ops.cuda import launches
from shconv.ops.geometry import Geometry

FORMULATIONS = {"triton": launches}


def choose(x: Tensor, weight: Tensor, geometry: Geometry) -> str | None:
    """The name of the one that is expected to be the fastest; None where none can serve the call.

    It reads x once where unfold writes it T times, and is on tensor cores.
    """
    serves = x.is_cuda and x.dtype.itemsize == 2 and not launches.reasons_against(x, weight, geometry)
    return "triton" if serves else None
