"""The filtered convolution in every formulation, against torch's own convolution of the same shapes.
A formulation whose output or gradients are not the definition's gets no speed."""

import importlib.util
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from shconv.bench.check import Convolution, Results, defined, deviation, results
from shconv.bench.device import Work
from shconv.bench.measurement import Measurement
from shconv.bench.timing import compared, parts
from shconv.errors import InputError
from shconv.ops import FORMULATIONS, filtered_conv2d
from shconv.ops.geometry import Geometry

PASSES = ("forward", "forward + backward", "forward + input gradient")
PEER = "timm CondConv2d"  # with one expert: a kernel of its own for every image, as CondConv does it
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


class Row(NamedTuple):
    """3x3 convolutions of N images of D channels and H x H pixels, padding 1; stride 2 doubles the channels."""

    N: int
    D: int
    H: int
    stride: int = 1

    def __str__(self) -> str:
        return f"{self.N}x{self.D}x{self.H}" + (f"/{self.stride}" if self.stride > 1 else "")

    @property
    def geometry(self) -> Geometry:
        return Geometry((self.stride, self.stride), (1, 1), (1, 1), 1)


ROWS = (
    *(Row(16, 64, 64), Row(16, 128, 32), Row(16, 256, 16), Row(16, 512, 8)),  # ResNet-18 at 256 px
    *(Row(128, 16, 32), Row(128, 32, 16), Row(128, 64, 8), Row(128, 128, 4)),  # slim Plain-10 at 32 px
    *(Row(16, 64, 64, 2), Row(16, 128, 32, 2), Row(16, 256, 16, 2)),
    *(Row(128, 16, 32, 2), Row(128, 32, 16, 2), Row(128, 64, 8, 2)),
)


class Tensors(NamedTuple):
    x: Tensor
    weight: Tensor
    M: Tensor  # float32 whatever the dtype, as a layer's hypernetwork gives it
    gradient: Tensor  # dY


def select(names: Sequence[str]) -> list[Row]:
    """The rows whose names begin so, all where none is given; NxDxH or NxDxH/2 in full names any shape.

    Raises InputError for a name that is neither.
    """
    rows: list[Row] = [] if names else list(ROWS)
    for name in names:
        if full := re.fullmatch(r"([1-9]\d*)x([1-9]\d*)x([1-9]\d*)(?:/([12]))?", name):
            rows.append(Row(*(int(number) for number in full.groups(default="1"))))
        elif name and (found := [row for row in ROWS if str(row).startswith(name)]):
            rows += found
        else:
            raise InputError(f"no row {name!r}: wanted a shape such as 128x64x56 or 128x64x56/2, or the beginning of "
                             f"one of {', '.join(map(str, ROWS))}")  # fmt: skip
    return list(dict.fromkeys(rows))


def measure(
    rows: Sequence[Row],
    formulations: Sequence[str],
    dtype: str,
    layouts: Sequence[str],
    device: torch.device,
    rounds: int,
    tick: Callable[[], object] = lambda: None,
) -> Iterator[Measurement]:
    """Every formulation in every row, layout and pass; `tick` is called len(PASSES) * (rounds + 1) times a layout."""
    for row in rows:
        plain = _tensors(row, getattr(torch, dtype), device)
        wanted = defined(*plain, row.geometry)
        for layout in layouts:
            four = (plain.x, plain.weight, plain.gradient)  # of four dimensions
            x, weight, dY = (tensor.contiguous(memory_format=LAYOUTS[layout]) for tensor in four)
            tensors = Tensors(x, weight, plain.M, dY)
            contenders, refused = _admitted(formulations, tensors, row, wanted)
            for measure in PASSES:
                works = {name: _work(call, measure, tensors) for name, call in contenders.items()}
                if PEER not in refused:
                    works[PEER] = _peer(measure, tensors, row)
                works["conv2d"] = _work(_conv2d(row), measure, tensors, maps=False)
                seconds = compared(works, rounds, device, tick)
                for part, told in parts(device).items():
                    for name in (*formulations, PEER):
                        reason, wrong = refused.get(name, ("", False))
                        yield Measurement(
                            subject=str(row),
                            dtype=dtype,
                            layout=layout,
                            measure=measure + told,
                            contender=name,
                            baseline="conv2d",
                            unit="ms",
                            value=None if reason else getattr(seconds[name], part) * 1e3,
                            baseline_value=getattr(seconds["conv2d"], part) * 1e3,
                            reason=reason,
                            wrong=wrong,
                        )


def _admitted(
    formulations: Sequence[str], tensors: Tensors, row: Row, wanted: Results
) -> tuple[dict[str, Convolution], dict[str, tuple[str, bool]]]:
    """Those that may be timed; and of the others the reason, and whether it is a wrong result."""
    contenders: dict[str, Convolution] = {}
    refused: dict[str, tuple[str, bool]] = {}
    for name in formulations:
        convolution = _formulation(name, row)
        if reasons := _reasons_against(name, tensors, row):
            refused[name] = reasons, False
        elif reason := deviation(results(convolution, *tensors), wanted, tensors.weight):
            refused[name] = reason, True
        else:
            contenders[name] = convolution
    if importlib.util.find_spec("timm") is None:
        refused[PEER] = "timm is not installed", False
    return contenders, refused


def _tensors(row: Row, dtype: torch.dtype, device: torch.device) -> Tensors:
    N, D, H, stride = row
    generator, C, out = torch.Generator().manual_seed(0), D * stride, (H - 1) // stride + 1
    draw = partial(torch.randn, generator=generator)
    M = torch.rand(N, 3, 3, generator=generator)
    x, weight, dY = (t.to(device, dtype) for t in (draw(N, D, H, H), draw(C, D, 3, 3), draw(N, C, out, out)))
    return Tensors(x, weight, M.to(device), dY)


def _reasons_against(name: str, tensors: Tensors, row: Row) -> str:
    if name == "auto":
        return ""
    return "; ".join(FORMULATIONS[name].reasons_against(tensors.x, tensors.weight, row.geometry))


def _formulation(name: str, row: Row) -> Convolution:
    return lambda x, weight, M: filtered_conv2d(x, weight, M, None, *row.geometry, formulation=name)


def _conv2d(row: Row) -> Convolution:
    return lambda x, weight, M: F.conv2d(x, weight, None, row.stride, 1)


def _work(convolution: Convolution, measure: str, tensors: Tensors, maps: bool = True) -> Work:
    """One pass: gradients of x and the weight, or of x alone; of the map too, which x's gradient needs in a network."""
    x, weight, M, dY = tensors
    if measure == PASSES[0]:
        return torch.no_grad()(lambda: convolution(x, weight, M))
    x = x.detach().requires_grad_()
    weight = weight.detach().requires_grad_(measure == PASSES[1])
    M = M.detach().requires_grad_(maps)
    leaves = [leaf for leaf in (x, weight, M) if leaf.requires_grad]
    return lambda: torch.autograd.grad(convolution(x, weight, M), leaves, dY)


def _peer(measure: str, tensors: Tensors, row: Row) -> Work:
    """CondConv2d with the weight as its only expert; its routing weights (N, 1) take the place of M."""
    x, weight = tensors.x, tensors.weight
    kind = importlib.import_module("timm.layers").CondConv2d
    layer = kind(row.D, len(weight), 3, row.stride, padding=1, num_experts=1, device=x.device, dtype=x.dtype)

    def convolution(x: Tensor, weight: Tensor, routing: Tensor) -> Tensor:
        Y: Tensor = torch.func.functional_call(layer, {"weight": weight}, (x, routing))
        return Y

    return _work(convolution, measure, Tensors(x, weight.reshape(1, -1), x.new_ones(row.N, 1), tensors.gradient))
