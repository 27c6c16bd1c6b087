"""What the tests of the C++ kernels share: whether there are any here, and tensors of a call."""

import pytest
import torch
from torch import Tensor

from shconv.ops.cpu import library
from shconv.ops.geometry import Geometry

KERNELS = library.kernels()
needs_kernels = pytest.mark.skipif(isinstance(KERNELS, str), reason=str(KERNELS))


def case(N, D, C, size, kernel, stride, padding, dilation, layout=torch.contiguous_format):
    """x, weight, M, dY and the geometry of a shape."""
    generator = torch.Generator().manual_seed(N + 7 * D + 31 * C)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    x, weight = normal(N, D, *size), normal(C, D, *kernel)
    M = torch.rand(N, *kernel, generator=generator)
    pairs = ((a, a) if isinstance(a, int) else a for a in (stride, padding, dilation))
    geometry = Geometry(*pairs, groups=1)
    dY = normal(N, C, *geometry.output_size(x, weight))
    return x.to(memory_format=layout), weight, M, dY.to(memory_format=layout), geometry
