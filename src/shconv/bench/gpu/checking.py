"""Whether a kernel's results are right: beside those of float64, in memory that is not a number until it is written."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from shconv.bench.gpu.problems import Problem
from shconv.bench.gpu.report import Row
from shconv.errors import one_line
from shconv.ops import FORMULATIONS
from shconv.ops.cuda.hopper import passes
from shconv.ops.geometry import Geometry


def checked(reason: str, run: Callable[[], dict[str, Tensor]], wanted: dict[str, Tensor], rounding: float) -> Row:
    """The cells of a row: how far off, and what is wrong if anything is. reason: why it cannot run, or ""."""
    if reason:
        return {"error": reason}
    try:
        with poisoned():
            run()  # a second call takes another way to the kernel
            off = deviation(run(), wanted, rounding)
    except Exception as error:
        return {"error": one_line(error, slice(-300, None))}
    return {"off": off} | ({} if off <= 1 else {"error": f"wrong: off by {off:.3g} times what rounding explains"})


def deviation(got: dict[str, Tensor], wanted: dict[str, Tensor], rounding: float) -> float:
    """The largest difference, of a tensor's largest element, over what rounding explains; inf where one is missing."""

    def off(name: str, value: Tensor) -> float:
        right = wanted[name]
        allowed = 2 * rounding if value.dtype != torch.float32 else max(2**-9 if rounding else 0, 1e-4)
        error = float((value.double().reshape(right.shape) - right).abs().max() / right.abs().max())
        return error / allowed if error == error else float("inf")

    return max(off(name, value) for name, value in got.items())


@contextmanager
def poisoned() -> Iterator[None]:
    """Uninitialised memory is not a number in here, so that an element that nobody writes shows."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)  # fills what torch.empty returns
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def for_every_card(of: Problem) -> dict[str, Tensor]:
    """What the kernels for every card give, where those for Hopper would serve."""
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
