"""Pixels that are no numbers at an image's edge, in every formulation that runs on a CPU: they stay in their image. On
GPUs test_hopper and test_launches see to that."""

import pytest
import torch
from torch import Tensor

from shconv.ops import FORMULATIONS, filtered_conv2d, reference
from shconv.ops.geometry import Geometry

ON_CPU = [name for name in FORMULATIONS if name != "triton"]


def results(x: Tensor, weight: Tensor, M: Tensor, dY: Tensor, stride: int, name: str) -> list[Tensor]:
    """Y, dX and dM: what has a part for each image."""
    leaves = [each.detach().requires_grad_() for each in (x, M)]
    Y = filtered_conv2d(leaves[0], weight, leaves[1], None, stride, 1, formulation=name)
    return [Y.detach(), *torch.autograd.grad(Y, leaves, dY)]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", ON_CPU)
def test_they_stay_in_their_image_whichever_edge_they_lie_at(name, stride, layout):
    dtype = torch.bfloat16 if name == "amx" else torch.float32
    x, weight, M = torch.randn(3, 16, 7, 9).to(dtype), torch.randn(32, 16, 3, 3).to(dtype), torch.rand(3, 3, 3)
    dY = torch.randn(3, 32, (7 - 1) // stride + 1, (9 - 1) // stride + 1).to(dtype)
    x, weight, dY = (each.to(memory_format=layout) for each in (x, weight, dY))
    geometry = Geometry((stride, stride), (1, 1), (1, 1), 1)
    if reasons := FORMULATIONS[name].reasons_against(x, weight, geometry):
        pytest.skip("; ".join(reasons))
    clean = results(x, weight, M, dY, stride, name)
    broken = x.clone(), dY.clone()
    for images, value in zip(broken, (float("inf"), float("nan")), strict=True):
        images[1, :, 0], images[1, :, -1], images[1, :, :, 0], images[1, :, :, -1] = (value,) * 4
    found = results(broken[0], weight, M, broken[1], stride, name)
    for got, wanted in zip(found, clean, strict=True):
        assert torch.equal(got[[0, 2]], wanted[[0, 2]])
        assert not got[1].isfinite().all()


@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ON_CPU)
def test_one_reaches_the_gradients_of_taps_that_use_it_and_no_others(name, value, dilation):
    dtype = torch.bfloat16 if name == "amx" else torch.float32
    x, weight, M = torch.randn(2, 8, 5, 4).to(dtype), torch.randn(6, 8, 3, 3).to(dtype), torch.rand(2, 3, 3)
    geometry = Geometry((1, 1), (dilation, dilation), (dilation, dilation), 1)
    if reasons := FORMULATIONS[name].reasons_against(x, weight, geometry):
        pytest.skip("; ".join(reasons))
    dY = torch.randn(2, 6, 5, 4).to(dtype)
    for place in ((0, 0), (4, 0), (0, 3), (4, 3), (2, 1)):
        broken = x.clone()
        broken[1, 3, place[0], place[1]] = value
        leaves = [each.detach().requires_grad_() for each in (weight, M)]
        found, wanted = (
            torch.autograd.grad(f(broken, *leaves, None, 1, dilation, dilation), leaves, dY)
            for f in (lambda *given: filtered_conv2d(*given, formulation=name), reference.filtered_conv2d)
        )
        for got, right in zip(found, wanted, strict=True):
            assert torch.equal(got.isfinite(), right.isfinite()), place
