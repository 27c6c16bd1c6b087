"""Times every formulation of the filtered convolution against torch.nn.functional.conv2d on the same shapes.

    OMP_NUM_THREADS=2 python benchmarks/formulations.py [--rows 128x16 16x64] [--rounds 9] [--formulations auto]

Prints medians of interleaved runs as multiples of F.conv2d's: forward; forward + backward (dX, dW, dM; F.conv2d: dX,
dW); forward + input gradient (dX, dM; F.conv2d: dX). A formulation whose result is wrong gets no speed, only its error.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from shconv.ops import FORMULATIONS, filtered_conv2d, reference
from shconv.ops.geometry import Geometry

# images, channels in, channels out, side of the input, stride
ROWS = [
    *[(128, 16, 16, 32, 1), (128, 32, 32, 16, 1), (128, 64, 64, 8, 1), (128, 128, 128, 4, 1)],
    *[(128, 16, 32, 32, 2), (128, 32, 64, 16, 2), (128, 64, 128, 8, 2)],
    *[(16, 64, 64, 64, 1), (16, 128, 128, 32, 1), (16, 256, 256, 16, 1), (16, 512, 512, 8, 1)],
    *[(16, 64, 128, 64, 2), (16, 128, 256, 32, 2), (16, 256, 512, 16, 2)],
]
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
TASKS = ("forward", "forward + backward", "forward + input gradient")
Convolution = Callable[[Tensor, Tensor, Tensor], Tensor]


def main() -> None:
    options = _options()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, times over F.conv2d's")
    print(
        f"{'shape':26} {'layout':14} {'task':26} {'conv2d ms':>9}  " + " ".join(f"{f:>9}" for f in options.formulations)
    )
    for row in ROWS:
        name = "{}x{}->{}@{} stride {}".format(*row)
        if not any(name.startswith(prefix) for prefix in options.rows):
            continue
        x, weight, M, dY, stride = _tensors(*row)
        wanted = _results(_definition(stride), x, weight, M, dY, torch.float64)
        for layout, memory_format in LAYOUTS.items():
            tensors = [t.to(memory_format=memory_format) if t.dim() == 4 else t for t in (x, weight, M, dY)]
            _compare(name, layout, tensors, stride, wanted, options)


def _compare(
    name: str, layout: str, tensors: list[Tensor], stride: int, wanted: list[Tensor], options: argparse.Namespace
) -> None:
    x, weight, M, dY = tensors
    geometry = Geometry((stride, stride), (1, 1), (1, 1), 1)
    competitors: dict[str, Convolution] = {}
    refused: dict[str, str] = {}
    for formulation in options.formulations:
        if formulation != "auto" and FORMULATIONS[formulation].reasons_against(x, weight, geometry):
            refused[formulation] = "-"
            continue
        competitors[formulation] = _formulation(formulation, stride)
        got = _results(competitors[formulation], x, weight, M, dY, torch.float32)
        longest = max(dY[:, 0].numel(), weight[:, :, 0, 0].numel() * dY[0, 0].numel())  # sum: dW's or dM's
        if (error := _error(got, wanted)) > 2**-23 * longest**0.5:
            refused[formulation] = f"!{error:.0e}"
            del competitors[formulation]
    competitors["conv2d"] = lambda x, w, M: F.conv2d(x, w, None, stride, 1)
    for task in TASKS:
        times = _interleaved(competitors, task, x, weight, M, dY, options.rounds)
        cells = [refused.get(f) or f"{times[f] / times['conv2d']:.2f}" for f in options.formulations]
        print(
            f"{name:26} {layout:14} {task:26} {times['conv2d'] * 1e3:9.2f}  " + " ".join(f"{c:>9}" for c in cells),
            flush=True,
        )


def _interleaved(
    competitors: dict[str, Convolution], task: str, x: Tensor, weight: Tensor, M: Tensor, dY: Tensor, rounds: int
) -> dict[str, float]:
    """Median seconds of each; every round runs each once, so that a busy machine is busy for all."""
    times: dict[str, list[float]] = {name: [] for name in competitors}
    for turn in range(rounds + 1):
        for name, convolution in competitors.items():
            leaves = [x, weight] if name == "conv2d" else [x, weight, M]
            wanted = [leaf.detach().requires_grad_() for leaf in leaves] + [M] * (name == "conv2d")
            if task == TASKS[2]:
                wanted[1] = weight
            start = time.perf_counter()
            if task == TASKS[0]:
                with torch.no_grad():
                    convolution(x, weight, M)
            else:
                Y = convolution(*wanted)
                torch.autograd.grad(Y, [leaf for leaf in wanted if leaf.requires_grad], dY)
            if turn:  # the first is a warm-up
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(seconds) for name, seconds in times.items()}


def _results(
    convolution: Convolution, x: Tensor, weight: Tensor, M: Tensor, dY: Tensor, dtype: torch.dtype
) -> list[Tensor]:
    """Y, dX, dW, dM."""
    leaves = [t.detach().to(dtype).requires_grad_() for t in (x, weight, M)]
    Y = convolution(*leaves)
    return [Y.detach(), *torch.autograd.grad(Y, leaves, dY.to(dtype))]


def _error(got: Sequence[Tensor], wanted: Sequence[Tensor]) -> float:
    """Largest deviation of a result, relative to its largest element."""
    return max(float((g - w).abs().max() / w.abs().max()) for g, w in zip(got, wanted, strict=True))


def _definition(stride: int) -> Convolution:
    return lambda x, weight, M: reference.filtered_conv2d(x, weight, M, None, stride, 1)


def _formulation(name: str, stride: int) -> Convolution:
    return lambda x, weight, M: filtered_conv2d(x, weight, M, None, stride, 1, formulation=name)


def _tensors(N: int, D: int, C: int, side: int, stride: int) -> tuple[Tensor, Tensor, Tensor, Tensor, int]:
    torch.manual_seed(0)
    x, weight, M = torch.randn(N, D, side, side), torch.randn(C, D, 3, 3), torch.rand(N, 3, 3)
    out = (side - 1) // stride + 1
    return x, weight, M, torch.randn(N, C, out, out), stride


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", default=[""], help="only shapes whose name starts so")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--formulations", nargs="+", default=[*FORMULATIONS, "auto"])
    return parser.parse_args()


if __name__ == "__main__":
    main()
