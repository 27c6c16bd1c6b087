"""What torch is set to around a call changes nothing in it: its default dtype and its default device."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from shconv import SHConv2d
from shconv.ops import FORMULATIONS, filtered_conv2d
from shconv.ops.geometry import Geometry
from shconv.ops.statistics import channel_mean_variance

Results = tuple[Tensor, ...]


def of_layer(layout: torch.memory_format) -> Results:
    torch.manual_seed(0)
    layer = SHConv2d(8, 6, 3, padding=1, dtype=torch.float32, device="cpu").to(memory_format=layout)
    x = torch.randn(3, 8, 5, 4, dtype=torch.float32, device="cpu").contiguous(memory_format=layout).requires_grad_()
    Y = layer(x)
    return Y, *torch.autograd.grad(Y.square().sum(), [x, *layer.parameters()])


def of_convolution(name: str, dtype: torch.dtype) -> Results:
    torch.manual_seed(0)
    shapes = (3, 8, 5, 4), (6, 8, 3, 3), (3, 3, 3)
    x, weight, M = (torch.randn(shape, dtype=torch.float32, device="cpu") for shape in shapes)
    leaves = [each.requires_grad_() for each in (x.to(dtype), weight.to(dtype), M)]
    Y = filtered_conv2d(*leaves, padding=1, formulation=name)
    return Y, *torch.autograd.grad(Y.square().sum(), leaves)


def of_statistics(dtype: torch.dtype) -> Results:
    torch.manual_seed(0)
    x = torch.randn(3, 8, 5, 4, dtype=torch.float32, device="cpu").to(dtype).requires_grad_()
    mean, variance = channel_mean_variance(x)
    return mean, variance, *torch.autograd.grad((mean * variance).sum(), x)


def serving(dtype: torch.dtype) -> list[str]:
    x, weight = torch.zeros(3, 8, 5, 4, dtype=dtype), torch.zeros(6, 8, 3, 3, dtype=dtype)
    geometry = Geometry((1, 1), (1, 1), (1, 1), 1)
    return [name for name, each in FORMULATIONS.items() if not each.reasons_against(x, weight, geometry)]


CALLS: dict[str, Callable[[], Results]] = {
    "layer": lambda: of_layer(torch.contiguous_format),
    "layer, channels last": lambda: of_layer(torch.channels_last),
    **{
        f"{name}, {dtype}": lambda name=name, dtype=dtype: of_convolution(name, dtype)
        for dtype in (torch.float32, torch.bfloat16)
        for name in serving(dtype)
    },
    **{f"statistics, {dtype}": lambda dtype=dtype: of_statistics(dtype) for dtype in (torch.float32, torch.bfloat16)},
}


@pytest.fixture(params=["float64", "bfloat16", "meta"])
def around(request: pytest.FixtureRequest) -> Iterator[Callable[[], None]]:
    """Sets it, once what is compared is computed."""

    def change() -> None:
        if request.param == "meta":
            torch.set_default_device("meta")
        else:
            torch.set_default_dtype(getattr(torch, request.param))

    yield change
    torch.set_default_device(None)
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("name", CALLS)
def test_the_default_dtype_and_device_change_nothing(name: str, around: Callable[[], None]) -> None:
    wanted = CALLS[name]()
    around()
    for found, of in zip(CALLS[name](), wanted, strict=True):
        assert (found.dtype, found.device) == (of.dtype, of.device)
        assert torch.equal(found, of)
