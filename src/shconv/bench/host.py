"""What a call costs before anything is computed: the layer and its relatives against torch's convolution on an image so
small that the time is Python's and torch's own. On a GPU it is the time in which the device waits. And what each has in
parameters and in multiply-adds for an image. Compiled, layers in a row: a graph is entered once for all of them."""

import copy
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from shconv.bench.check import layers_deviation
from shconv.bench.device import Work
from shconv.bench.measurement import Measurement
from shconv.bench.op import LAYOUTS
from shconv.bench.timing import interleaved
from shconv.flops import macs
from shconv.layers import SHConv2d
from shconv.ops.flops import convolution
from shconv.relatives import RELATIVES

SHAPE = (2, 16, 4, 4)  # 16 output channels
PASSES = ("forward", "forward + backward")
_CALLS = 100
_ROW = 20  # layers, as ResNet-18 has


def measure(
    dtype: str, layouts: tuple[str, ...], device: torch.device, rounds: int, tick: Callable[[], object] = lambda: None
) -> Iterator[Measurement]:
    """Microseconds a call, forward alone and both ways, parameters and multiply-adds; `tick` is called
    2 * (rounds + 1) times a layout."""
    for layout in layouts:
        place = {"device": device, "dtype": getattr(torch, dtype)}
        x = _images(place, LAYOUTS[layout])
        layers = _layers(place, LAYOUTS[layout])
        conv = layers.pop("conv2d")
        wrong = {name: _wrong(layer, x) for name, layer in layers.items()}
        found = partial(Measurement, subject="x".join(map(str, SHAPE)), dtype=dtype, layout=layout, baseline="conv2d")
        for name, work in zip(PASSES, (_forward, _both), strict=True):
            timed = {each: layer for each, layer in {"conv2d": conv, **layers}.items() if not wrong.get(each)}
            works = {each: work(layer, x) for each, layer in timed.items()}
            seconds = interleaved(works, rounds, device, tick)
            for each in layers:
                value = None if wrong[each] else seconds[each] / _CALLS * 1e6
                yield found(
                    measure=name, contender=each, unit="us a call", value=value, reason=wrong[each],
                    baseline_value=seconds["conv2d"] / _CALLS * 1e6, wrong=bool(wrong[each]),
                )  # fmt: skip
        counts: dict[str, Callable[[nn.Module], int]] = {
            "parameters": lambda each: sum(p.numel() for p in each.parameters()),
            "multiply-adds": partial(_multiply_adds, x=x[:1]),
        }
        for name, count in counts.items():
            for each, layer in layers.items():
                yield found(measure=name, contender=each, unit="", value=count(layer), baseline_value=count(conv))


def compiled(
    dtype: str, layouts: tuple[str, ...], device: torch.device, rounds: int, tick: Callable[[], object] = lambda: None
) -> Iterator[Measurement]:
    """Microseconds a layer of a row of them, eager and through torch.compile, over torch's eager convolution."""
    for layout in layouts:
        place = {"device": device, "dtype": getattr(torch, dtype)}
        x = _images(place, LAYOUTS[layout])
        rows = {
            name: nn.Sequential(*(_layers(place, LAYOUTS[layout])[name] for _ in range(_ROW)))
            for name in ("conv2d", "SHConv2d")
        }
        wrong = layers_deviation(rows["SHConv2d"], x)
        for name, work in zip(PASSES, (_forward, _both), strict=True):
            torch.compiler.reset()  # else each call looks through the graphs of the other pass
            graphs = {f"{each}, compiled": torch.compile(row, fullgraph=True) for each, row in rows.items()}
            every: dict[str, Any] = {**rows, **graphs}
            works = {each: work(row, x) for each, row in every.items()}
            seconds = interleaved(works, rounds, device, tick)
            us = {each: value / _CALLS / _ROW * 1e6 for each, value in seconds.items()}
            for each in ("SHConv2d", *graphs):
                reason = wrong if each.startswith("SHConv2d") else ""
                yield Measurement(
                    subject=f"{_ROW} layers, {'x'.join(map(str, SHAPE))}", dtype=dtype, layout=layout, measure=name,
                    contender=each, baseline="conv2d", unit="us a layer", value=None if reason else us[each],
                    reason=reason, baseline_value=us["conv2d"], wrong=bool(reason),
                )  # fmt: skip


def _images(place: dict[str, Any], layout: torch.memory_format) -> Tensor:
    x = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0)).to(**place)
    return x.contiguous(memory_format=layout)


def _layers(place: dict[str, Any], layout: torch.memory_format) -> dict[str, nn.Module]:
    kinds: dict[str, type[nn.Conv2d]] = {"conv2d": nn.Conv2d, "SHConv2d": SHConv2d}
    kinds |= {kind.__name__: kind for kind in RELATIVES.values()}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = {name: kind(SHAPE[1], SHAPE[1], 3, padding=1, **place) for name, kind in kinds.items()}
    return {name: layer.to(memory_format=layout) for name, layer in made.items()}


def _wrong(layer: nn.Module, x: Tensor) -> str:
    """What is wrong with a layer's result, "": nothing. A relative's is compared with its own in float64."""
    if isinstance(layer, SHConv2d):
        return layers_deviation(nn.Sequential(layer), x)
    with torch.no_grad():
        Y, wanted = layer(x), copy.deepcopy(layer).double()(x.double())
    error, largest = float((Y.double() - wanted).abs().max()), float(wanted.abs().max())
    allowed = 1e-3 + 8 * torch.finfo(x.dtype).eps
    return "" if error <= allowed * largest else f"off by {error / largest:.1e} of its largest element"


def _multiply_adds(layer: Any, x: Tensor) -> int:
    """Of one image; products only, a multiplication and an addition counted as one."""
    with torch.no_grad():
        Y = layer(x)
    return convolution(x.shape, layer.weight.shape, Y.shape) // 2 if type(layer) is nn.Conv2d else macs(layer, x, Y)


def _forward(layer: nn.Module, x: Tensor) -> Work:
    @torch.no_grad()
    def calls() -> None:
        for _ in range(_CALLS):
            layer(x)

    return calls


def _both(layer: nn.Module, x: Tensor) -> Work:
    leaf = x.detach().requires_grad_()
    leaves, dY = [leaf, *layer.parameters()], torch.ones_like(layer(x))

    def calls() -> None:
        for _ in range(_CALLS):
            torch.autograd.grad(layer(leaf), leaves, dY)

    return calls
