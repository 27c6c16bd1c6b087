"""What the tests of the layer share: small layers, and images whose channels differ."""

from typing import Any

import torch
from torch import Tensor

from shconv import SHConv2d


def make(dtype: torch.dtype = torch.float64, **arguments: Any) -> SHConv2d:
    return SHConv2d(**{"in_channels": 4, "out_channels": 8, "kernel_size": 3, "dtype": dtype, **arguments})


def images(N: int = 3, D: int = 4, dtype: torch.dtype = torch.float64) -> Tensor:
    """Every channel with a mean and a deviation of its own."""
    return torch.randn(N, D, 7, 6, dtype=dtype) * torch.rand(N, D, 1, 1, dtype=dtype) + torch.randn(N, D, 1, 1).to(
        dtype
    )
