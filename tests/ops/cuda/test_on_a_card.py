"""A whole layer on a CUDA device, called as often as a training calls it: by its Python, recorded, replayed, compiled
and captured, every time against its definition in float64."""

import copy
import importlib.util
from typing import Any

import pytest
import torch
from torch import Tensor
from triton_toys import NO_DEVICE

from shconv import SHConv2d
from shconv.ops.cuda import launcher, replay
from shconv.ops.cuda.hopper import passes

pytestmark = [
    pytest.mark.gpu,
    NO_DEVICE,
    pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed"),
]
DEVICE = torch.device("cuda")
LAST, CONTIGUOUS = torch.channels_last, torch.contiguous_format
BF16, FP16 = torch.bfloat16, torch.float16
# N, D, C, H, stride, dtype, layout, bias. The first five are Hopper's there, of small, middle and large images
LAYERS = [
    (5, 64, 96, 7, 1, BF16, LAST, False),
    (5, 96, 64, 13, 1, BF16, LAST, True),
    (3, 64, 64, 28, 1, BF16, LAST, False),
    (4, 40, 72, 12, 2, BF16, LAST, False),
    (4, 72, 40, 14, 1, FP16, LAST, True),
    (3, 5, 7, 9, 2, torch.float32, CONTIGUOUS, True),
    (3, 16, 24, 8, 1, torch.float32, LAST, False),
]


def layer_of(case: Any) -> tuple[SHConv2d, SHConv2d]:
    """A layer on the device, and the same in float64 on the CPU."""
    _, D, C, _, stride, dtype, layout, bias = case
    layer = SHConv2d(D, C, 3, stride=stride, padding=1, bias=bias, dtype=dtype)
    torch.nn.init.normal_(layer.hyper.output.weight, std=0.3)
    return copy.deepcopy(layer).to(DEVICE, memory_format=layout), layer.double()


def step(layer: Any, x: Tensor, dY: Tensor) -> list[Tensor]:
    """Y and all gradients."""
    leaf = x.detach().requires_grad_()
    Y = layer(leaf)
    return [Y.detach(), *torch.autograd.grad(Y, [leaf, *layer.parameters()], dY)]


def assert_right(case: Any, layer: Any, exact: SHConv2d, seed: int) -> None:
    N, D, C, H, stride, dtype, layout, _ = case
    make, side = torch.Generator().manual_seed(seed), (H - 1) // stride + 1
    x, dY = (
        torch.randn(size, generator=make).to(dtype).contiguous(memory_format=layout)
        for size in ((N, D, H, H), (N, C, side, side))
    )
    found, wanted = step(layer, x.to(DEVICE), dY.to(DEVICE)), step(exact, x.double(), dY.double())
    for got, right in zip(found, wanted, strict=True):
        assert got.dtype == dtype
        error, largest = (got.cpu().double() - right).abs().max(), right.abs().max()
        assert error <= (2.0**-7 if dtype == torch.float32 else 2.0**-5) * largest, (tuple(right.shape), seed)
    assert all(images.is_contiguous(memory_format=layout) for images in found[:2])


@pytest.mark.parametrize("case", LAYERS, ids=str)
def test_every_call_is_the_definition_also_when_its_launches_are_replayed(case: Any) -> None:
    replay._known.clear()
    replay._near.clear()
    layer, exact = layer_of(case)
    for seed in range(8):
        assert_right(case, layer, exact, seed)
    assert not passes._failed
    if reason := launcher.reason_against():
        pytest.skip(reason)
    assert sum(isinstance(each, replay.Player) for each in replay._known.values()) == 2, "one for each direction"


@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def test_compiled_and_captured_it_is_the_definition(mode: str) -> None:
    torch._dynamo.reset()
    layer, exact = layer_of(LAYERS[0])
    layer.compile(mode=mode, fullgraph=True)
    for seed in range(5):
        assert_right(LAYERS[0], layer, exact, seed)
