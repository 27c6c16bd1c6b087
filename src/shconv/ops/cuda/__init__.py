"""Formulations in Triton for NVIDIA's GPUs: kernels for Hopper in hopper/, others for every card.
Importing this room imports no triton."""

import torch
from torch import Tensor

from shconv.ops.cuda import launches, runtime
from shconv.ops.geometry import Geometry

FORMULATIONS = {"triton": launches}


def choose(x: Tensor, weight: Tensor, geometry: Geometry) -> str | None:
    """The name of the one that is expected to be the fastest; None where none can serve the call.

    On tensor cores, which take float32 only where torch lets them round it, it was faster than all that torch itself
    can do; and it reads x once where unfold writes it T times.
    """
    quick = x.dtype.itemsize == 2 or (x.dtype == torch.float32 and runtime.tf32())
    serves = x.is_cuda and quick and not launches.reasons_against(x, weight, geometry)
    return "triton" if serves else None
