"""What a call costs before anything is computed: the layer against torch's convolution on an image so small that the
time is Python's and torch's own. On a GPU it is the time in which the device waits."""

from collections.abc import Callable, Iterator

import torch
from torch import nn

from shconv.bench.check import layers_deviation
from shconv.bench.device import Work
from shconv.bench.measurement import Measurement
from shconv.bench.op import LAYOUTS
from shconv.bench.timing import interleaved
from shconv.layers import SHConv2d

SHAPE = (2, 16, 4, 4)  # 16 output channels
PASSES = ("forward", "forward + backward")
_CALLS = 100


def measure(
    dtype: str, layouts: tuple[str, ...], device: torch.device, rounds: int, tick: Callable[[], object] = lambda: None
) -> Iterator[Measurement]:
    """Microseconds a call, forward alone and both ways; `tick` is called 2 * (rounds + 1) times a layout."""
    for layout in layouts:
        place = {"device": device, "dtype": getattr(torch, dtype)}
        x = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0)).to(**place)
        x = x.contiguous(memory_format=LAYOUTS[layout])
        layers: dict[str, nn.Module] = {
            "SHConv2d": SHConv2d(SHAPE[1], SHAPE[1], 3, padding=1, **place).to(memory_format=LAYOUTS[layout]),
            "conv2d": nn.Conv2d(SHAPE[1], SHAPE[1], 3, padding=1, **place).to(memory_format=LAYOUTS[layout]),
        }
        reason = layers_deviation(nn.Sequential(layers["SHConv2d"]), x)
        for name, work in zip(PASSES, (_forward, _both), strict=True):
            works = {each: work(layer, x) for each, layer in layers.items()}
            seconds = interleaved(works, rounds, device, tick)
            yield Measurement(
                subject="x".join(map(str, SHAPE)), dtype=dtype, layout=layout, measure=name, contender="SHConv2d",
                baseline="conv2d", unit="us a call", baseline_value=seconds["conv2d"] / _CALLS * 1e6,
                value=None if reason else seconds["SHConv2d"] / _CALLS * 1e6, reason=reason, wrong=bool(reason),
            )  # fmt: skip


def _forward(layer: nn.Module, x: torch.Tensor) -> Work:
    @torch.no_grad()
    def calls() -> None:
        for _ in range(_CALLS):
            layer(x)

    return calls


def _both(layer: nn.Module, x: torch.Tensor) -> Work:
    leaf = x.detach().requires_grad_()
    leaves, dY = [leaf, *layer.parameters()], torch.ones_like(layer(x))

    def calls() -> None:
        for _ in range(_CALLS):
            torch.autograd.grad(layer(leaf), leaves, dY)

    return calls
