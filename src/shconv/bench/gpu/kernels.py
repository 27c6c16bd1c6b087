"""The parts about kernels: each is checked on random data, then timed beside cuDNN's pass, with every tile it has."""

import itertools
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F

from shconv.bench.device import replayed
from shconv.bench.gpu.checking import checked, for_every_card
from shconv.bench.gpu.jobs import Compiler, Job, jobs
from shconv.bench.gpu.problems import LAYERS, ODD, Layer, Problem, problem, truth
from shconv.bench.gpu.report import KERNELS, Part, Row, until
from shconv.bench.gpu.variants import variant
from shconv.errors import one_line

_BASELINE = {"forward": "forward", "dW": "dW", "dW + dM": "dW"}  # cuDNN's pass; dX for the others


def parts(rehearse: bool) -> list[Part]:
    """Processes that compile ahead for both are forked here."""
    device = torch.device("cpu" if rehearse else "cuda")
    if rehearse:
        odd = jobs((Layer(2, 32, 40, 6, 1),), torch.bfloat16, tiles=1)
        timed = jobs((Layer(2, 32, 32, 6, 2),), torch.bfloat16, tiles=1)
        compiler = Compiler([])
    else:
        odd = jobs(ODD, torch.bfloat16, tiles=9)
        odd += jobs(ODD[:2], torch.float16, tiles=1) + jobs(ODD[:2], torch.float32, tiles=1)
        timed = jobs(LAYERS, torch.bfloat16, tiles=9)
        compiler = Compiler(odd + timed)

    def ratios(left: Callable[[], float]) -> Iterator[Row]:
        try:
            yield from chosen(table(timed, device, compiler, left))
        finally:
            compiler.close()  # what still compiles would take the host's time from what follows

    return [
        Part(KERNELS[0], 70, lambda left: until(left, check(odd, device, compiler, left))),
        Part(KERNELS[1], 155, ratios),
    ]


def check(of: list[Job], device: torch.device, compiler: Compiler, left: Callable[[], float]) -> Iterator[Row]:
    """Every job on random data, a row each, and the kernels for every card on the first layer in every dtype."""
    seen = set()
    if out := left_out(device):
        yield {"left out": out}
    for (layer, dtype), group in itertools.groupby(of, key=lambda job: job[:2]):
        own = problem(layer, dtype, device)
        wanted, rounding = truth(own), max(torch.finfo(dtype).eps, 2.0**-10)
        about = {"layer": str(layer), "dtype": str(dtype)}
        for job in () if out else group:
            found = checked(compiler.reason(job, left()), variant(own, *job[2:]).run, wanted, rounding)
            yield about | {"pass": job[2], "tile": str(job[3])} | found
        if layer == of[0][0] and dtype not in seen:
            seen.add(dtype)
            found = checked("", lambda own=own: for_every_card(own), wanted, rounding)  # type: ignore[misc]
            yield about | {"pass": "all", "tile": "for every card"} | found


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
            run = variant(own, *job[2:]).run
            found = checked(compiler.reason(job, left()), run, wanted, 2.0**-7)
            if "error" not in found:
                try:
                    seconds = replayed(run, device)
                    found |= {"us": seconds * 1e6, "ratio": seconds / baseline}
                except Exception as error:
                    found = {"error": one_line(error, slice(-300, None))}
            yield row | found


def chosen(rows: Iterator[Row]) -> Iterator[Row]:
    """Those rows, and after each layer and pass what the rule takes and the fastest of all, over cuDNN's."""
    best: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if "layer" in row:
            best.setdefault((row["layer"], row["pass"]), []).append(row)
        yield row
    for (layer, name), found in best.items():
        timed = [row for row in found if "ratio" in row]
        if timed:
            fastest = min(timed, key=lambda row: row["ratio"])
            rule = found[0].get("ratio", "no number")
            yield {"layer": layer, "pass": name, "cudnn_us": fastest["cudnn_us"], "rule": rule,
                   "best": fastest["ratio"], "tile": fastest["tile"]}  # fmt: skip


def left_out(device: torch.device) -> str:
    """Why the jobs do not run on a device; "" where they do. Asking starts CUDA: not before processes are forked."""
    if device.type != "cuda" or torch.cuda.get_device_capability(device)[0] == 9:
        return ""
    return f"these kernels are for Hopper cards, and this is a {torch.cuda.get_device_name(device)}"


def _cudnn(of: Problem) -> dict[str, Callable[[], object]]:
    def back(*mask: bool) -> Callable[[], object]:
        sides = [of.layer.stride] * 2, [1, 1], [1, 1], False, [0, 0], 1
        return lambda: torch.ops.aten.convolution_backward(of.dY, of.x, of.weight, None, *sides, list(mask))

    forward = lambda: F.conv2d(of.x, of.weight, None, of.layer.stride, 1)  # noqa: E731
    return {"forward": forward, "dX": back(True, False, False), "dW": back(False, True, False)}
