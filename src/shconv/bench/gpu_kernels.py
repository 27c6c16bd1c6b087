"""Every kernel for Hopper on a card: checked against the definition in float64 on random data, with outputs that were
not a number before, and timed beside cuDNN's pass, with every tile it may have."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from shconv.bench.device import replayed
from shconv.forked import Forked, processors
from shconv.ops import FORMULATIONS
from shconv.ops.cuda import ahead
from shconv.ops.cuda.hopper import launches, passes
from shconv.ops.cuda.hopper.tiles import Shape, Tile, candidates
from shconv.ops.geometry import Geometry

PASSES = ("forward", "dX", "dX + dM", "dX + statistics", "dW", "dW + dM")
_BASELINE = {"forward": "forward", "dW": "dW", "dW + dM": "dW"}  # cuDNN's pass; dX for the others
_PROCESSES = 15
Row = dict[str, Any]


class Layer(NamedTuple):
    """A 3x3 convolution of N images of D channels and H x H pixels to C channels, padding 1."""

    N: int
    D: int
    C: int
    H: int
    stride: int

    def __str__(self) -> str:
        return f"{self.D}->{self.C} {self.H}/{self.stride}"


LAYERS = tuple(
    Layer(128, *each)
    for each in [(64, 64, 56, 1), (128, 128, 28, 1), (256, 256, 14, 1), (512, 512, 7, 1),
                 (64, 128, 56, 2), (128, 256, 28, 2), (256, 512, 14, 2)]
)  # fmt: skip
ODD = (Layer(5, 160, 96, 13, 1), Layer(9, 160, 192, 10, 2), Layer(7, 72, 40, 7, 1), Layer(3, 128, 32, 28, 2),
       Layer(4, 200, 136, 9, 1))  # fmt: skip


class Problem(NamedTuple):
    layer: Layer
    x: Tensor
    weight: Tensor
    M: Tensor
    dY: Tensor  # noqa: N815
    seen: Tensor
    dseen: Tensor


def problem(layer: Layer, dtype: torch.dtype, device: torch.device) -> Problem:
    make = torch.Generator(device).manual_seed(layer.H * layer.C)

    def normal(*size: int, scale: float = 1.0) -> Tensor:
        value = torch.randn(size, generator=make, device=device) * scale
        return value.to(dtype).contiguous(memory_format=torch.channels_last)

    N, D, C, H, stride = layer
    x, weight, dY = (
        normal(N, D, H, H),
        normal(C, D, 3, 3, scale=(9 * D) ** -0.5),
        normal(N, C, H // stride, H // stride),
    )
    M = torch.rand((N, 3, 3), generator=make, device=device) + 0.1
    seen, dseen = torch.randn((2, N, 2, D), generator=make, device=device)
    return Problem(layer, x, weight, M, dY, seen, dseen * H * H)


def truth(of: Problem) -> dict[str, Tensor]:
    """Y, dX (also with the gradient through the statistics), dW and dM in float64, tap by tap: images at a time, since
    float64 by one convolution an image takes a card minutes."""
    stride, H = of.layer.stride, of.layer.H
    x, dY = (each.double().permute(0, 2, 3, 1) for each in (of.x, of.dY))  # (N, H, W, channels)
    weight, scales = of.weight.double(), of.M.double()
    padded = F.pad(x, (0, 0, 1, 1, 1, 1))
    Y, dX = torch.zeros_like(dY), torch.zeros_like(padded)
    dW, dM = torch.zeros_like(weight), torch.zeros_like(scales)
    for i, j in itertools.product(range(3), range(3)):
        reached = (slice(None), slice(i, i + H, stride), slice(j, j + H, stride))
        scale = scales[:, i, j].view(-1, 1, 1, 1)
        P = padded[reached] @ weight[:, :, i, j].T
        Y += scale * P
        dM[:, i, j] = (P * dY).sum((1, 2, 3))
        dX[reached] += scale * (dY @ weight[:, :, i, j])
        dW[:, :, i, j] = (scale * dY).flatten(0, 2).T @ padded[reached].flatten(0, 2)
    dX = dX[:, 1:-1, 1:-1]
    mu, dmu, dvariance = (each[:, None, None].double() for each in (of.seen[:, 0], of.dseen[:, 0], of.dseen[:, 1]))
    joined = dX + (dmu + 2 * dvariance * (x - mu)) / H**2
    Y, dX, joined = (each.permute(0, 3, 1, 2) for each in (Y, dX, joined))
    return {"Y": Y, "dX": dX, "dX + statistics": joined, "dW": dW, "dM": dM.flatten(1)}


class Variant(NamedTuple):
    """A pass with one tile: `plan` makes its results, by names of `truth`, and its launches."""

    name: str
    tile: Tile
    plan: Callable[[], tuple[dict[str, Tensor], list[launches.Launch]]]

    def run(self) -> dict[str, Tensor]:
        results, launched = self.plan()
        for each in launched:
            each.run()
        return results

    def compile(self) -> None:
        for each in self.plan()[1]:
            each.compile()


def variants(of: Problem) -> Iterator[Variant]:
    """Every pass with every tile, the rule's first."""
    (_, _, _, H, stride), x, weight, M, dY, seen, dseen = of
    geometry = Geometry((stride, stride), (1, 1), (1, 1), 1)
    precision = "tf32" if x.dtype == torch.float32 else "ieee"

    def plans(name: str) -> tuple[Shape, Callable[[Tile], tuple[dict[str, Tensor], list[launches.Launch]]]]:
        map = "dM" in name
        flatly = not map and passes.flat(x, geometry)

        def named(key: str, first: Tensor, dM: Tensor | None) -> dict[str, Tensor]:
            return {key: first} if dM is None else {key: first, "dM": dM}

        def forward(tile: Tile) -> Any:
            Y, launched = launches.forward(x, weight, M, stride, tile, precision)
            return {"Y": Y}, launched

        def back(tile: Tile) -> Any:
            dX, dM, launched = launches.input_gradient(dY, x, weight, M, stride, tile, precision, map)
            return named("dX", dX, dM), launched

        def joined(tile: Tile) -> Any:
            own = (seen, dseen)
            dX, _, launched = launches.input_gradient(dY, x, weight, M, stride, tile, precision, statistics=own)
            return {name: dX}, launched

        def sums(tile: Tile) -> Any:
            given = dY, x, weight, M, stride, tile, precision, map
            dW, dM, launched = launches.weight_gradient(*given, flatly=flatly)
            return named("dW", dW, dM), launched

        if name == "forward":
            return launches.forward_shape(x, weight, stride), forward
        if name.startswith("dX"):
            return launches.input_shape(x, weight, stride, map), joined if "statistics" in name else back
        return launches.weight_shape(x, weight, stride, map, flatly), sums

    for name in PASSES if x.element_size() == 2 else PASSES[:3]:
        shape, plan = plans(name)
        for tile in candidates(shape):
            if "statistics" in name and (H // stride) ** 2 < tile.rows:
                continue
            yield Variant(name, tile, lambda tile=tile, plan=plan: plan(tile))  # type: ignore[misc]


Job = tuple[Layer, torch.dtype, str, Tile]


def jobs(layers: tuple[Layer, ...], dtype: torch.dtype, tiles: int) -> list[Job]:
    """Every pass of the layers, each with so many tiles, the rule's first."""
    found: list[Job] = []
    for layer in layers:
        with torch.device("meta"):
            blank = _blank(layer, dtype)
        for _, group in itertools.groupby(variants(blank), key=lambda each: each.name):
            found += [(layer, dtype, each.name, each.tile) for each in itertools.islice(group, tiles)]
    return found


class Compiler:
    """Compiles jobs ahead, in processes that never touch the card, into Triton's cache on disk; others compile when
    they are first run."""

    def __init__(self, of: list[Job]) -> None:
        jobs = list(dict.fromkeys(of))
        self._places = {job: place for place, job in enumerate(jobs)}
        count = max(1, min(_PROCESSES, processors() - 1))
        self._forked = Forked(lambda place: compile_job(jobs[place]), len(jobs), count)

    def reason(self, job: Job, seconds: float) -> str:
        """Why the job does not compile, "" where it does or was not heard of in so many seconds."""
        wanted = [self._places[job]] if job in self._places else []
        return "".join(self._forked.results(wanted, seconds, end=False).values())

    def close(self) -> None:
        """What is not compiled by now compiles when it is first run."""
        self._forked.results(self._places.values(), 0.0)


def compile_job(job: Job) -> str:
    """Why it does not compile for sm_90, or "". In a process of its own."""
    layer, dtype, name, tile = job
    try:
        ahead.stand_in(90)
        _variant(_blank(layer._replace(N=2), dtype), name, tile).compile()
    except Exception as error:
        return _said(error)
    return ""


def _blank(layer: Layer, dtype: torch.dtype) -> Problem:
    """Of the right shapes and layouts, with nothing in them."""
    N, D, C, H, stride = layer
    images = ((N, D, H, H), (C, D, 3, 3), (N, C, H // stride, H // stride))
    x, weight, dY = (torch.empty(size, dtype=dtype).to(memory_format=torch.channels_last) for size in images)
    return Problem(layer, x, weight, torch.empty(N, 3, 3), dY, *torch.empty(2, N, 2, D))


def _variant(of: Problem, name: str, tile: Tile) -> Variant:
    return next(each for each in variants(of) if (each.name, each.tile) == (name, tile))


def deviation(got: dict[str, Tensor], wanted: dict[str, Tensor], rounding: float) -> float:
    """The largest difference, of a tensor's largest element, over what rounding explains; inf where one is missing."""

    def off(name: str, value: Tensor) -> float:
        right = wanted[name]
        allowed = 2 * rounding if value.dtype != torch.float32 else max(2**-9 if rounding else 0, 1e-4)
        error = float((value.double().reshape(right.shape) - right).abs().max() / right.abs().max())
        return error / allowed if error == error else float("inf")

    return max(off(name, value) for name, value in got.items())


def check(of: list[Job], device: torch.device, compiler: Compiler, left: Callable[[], float]) -> Iterator[Row]:
    """Every job on random data, a row each, and the kernels for every card on the first layer in every dtype."""
    seen = set()
    if out := left_out(device):
        yield {"left out": out}
    for (layer, dtype), group in itertools.groupby(of, key=lambda job: job[:2]):
        own = problem(layer, dtype, device)
        wanted, rounding = truth(own), max(torch.finfo(dtype).eps, 2.0**-10)
        for job in () if out else group:
            reason = compiler.reason(job, left())
            row = {"layer": str(layer), "dtype": str(dtype), "pass": job[2], "tile": str(job[3])}
            yield row | _checked(reason, _variant(own, *job[2:]).run, wanted, rounding)
        if layer == of[0][0] and dtype not in seen:
            seen.add(dtype)
            row = {"layer": str(layer), "dtype": str(dtype), "pass": "all", "tile": "for every card"}
            yield row | _checked("", lambda own=own: _pointers(own), wanted, rounding)  # type: ignore[misc]


def left_out(device: torch.device) -> str:
    """Why the jobs do not run on a device; "" where they do. Asking starts CUDA: not before processes are forked."""
    if device.type != "cuda" or torch.cuda.get_device_capability(device)[0] == 9:
        return ""
    return f"these kernels are for Hopper cards, and this is a {torch.cuda.get_device_name(device)}"


def _checked(
    reason: str, run: Callable[[], dict[str, Tensor]], wanted: dict[str, Tensor], rounding: float
) -> dict[str, Any]:
    if reason:
        return {"error": reason}
    try:
        with poisoned():
            run()  # a second call takes another way to the kernel
            off = deviation(run(), wanted, rounding)
    except Exception as error:
        return {"error": _said(error)}
    return {"off": off} | ({} if off <= 1 else {"error": f"wrong: off by {off:.3g} times what rounding explains"})


def _pointers(of: Problem) -> dict[str, Tensor]:
    """What the kernels for every card give, where those for Hopper would serve."""
    from shconv.ops.cuda.hopper import passes

    served, passes.serves = passes.serves, lambda x, weight, geometry: False
    try:
        geometry = Geometry((of.layer.stride,) * 2, (1, 1), (1, 1), 1)
        kernels = FORMULATIONS["triton"]
        Y = kernels.forward(of.x, of.weight, of.M, geometry)
        dX, dW, dM = kernels.backward(of.dY, of.x, of.weight, of.M, geometry, (True, True, True))
    finally:
        passes.serves = served
    assert dX is not None
    assert dW is not None
    assert dM is not None
    return {"Y": Y, "dX": dX, "dW": dW, "dM": dM.flatten(1)}


class poisoned:  # noqa: N801 (used like a function)
    """Uninitialised memory is not a number in here, so that an element that nobody writes shows."""

    def __enter__(self) -> None:
        self.before = torch.are_deterministic_algorithms_enabled()
        torch.use_deterministic_algorithms(True, warn_only=True)  # fills what torch.empty returns

    def __exit__(self, *_: object) -> None:
        torch.use_deterministic_algorithms(self.before)


def table(of: list[Job], device: torch.device, compiler: Compiler, left: Callable[[], float]) -> Iterator[Row]:
    """Microseconds of every job and its ratio to cuDNN's pass, a row each; none is timed that is wrong, and none once
    no time is left."""
    if out := left_out(device):
        yield {"left out": out}
        return
    for (layer, dtype), group in itertools.groupby(of, key=lambda job: job[:2]):
        own = problem(layer, dtype, device)
        cudnn = {name: replayed(run, device) for name, run in _cudnn(own).items()}
        wanted = truth(own)
        for job in group:
            baseline = cudnn[_BASELINE.get(job[2], "dX")]
            row: Row = {"layer": str(layer), "pass": job[2], "tile": str(job[3]), "cudnn_us": baseline * 1e6}
            if left() <= 0:
                yield row | {"error": "not timed: no time left"}
                continue
            run = _variant(own, *job[2:]).run
            found = _checked(compiler.reason(job, left()), run, wanted, 2.0**-7)
            if "error" not in found:
                try:
                    seconds = replayed(run, device)
                    found |= {"us": seconds * 1e6, "ratio": seconds / baseline}
                except Exception as error:
                    found = {"error": _said(error)}
            yield row | found


def _cudnn(of: Problem) -> dict[str, Callable[[], object]]:
    def back(*mask: bool) -> Callable[[], object]:
        sides = [of.layer.stride] * 2, [1, 1], [1, 1], False, [0, 0], 1
        return lambda: torch.ops.aten.convolution_backward(of.dY, of.x, of.weight, None, *sides, list(mask))

    forward = lambda: F.conv2d(of.x, of.weight, None, of.layer.stride, 1)  # noqa: E731
    return {"forward": forward, "dX": back(True, False, False), "dW": back(False, True, False)}


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[-300:]}"
