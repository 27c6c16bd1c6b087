"""Kernels are compiled before they are wanted, side by side: a network's first step would compile them one after the
other. What a pass launches is collected, and nothing launched; forked processes, which never touch the card, compile it
into Triton's cache on disk. Importing this imports no triton."""

import multiprocessing
import os
import time
import warnings
from collections.abc import Callable, Hashable
from contextlib import suppress
from typing import Any

import torch

from shconv.ops.cuda import runtime, tape

_SECONDS = 120.0  # after that the kernels that are still wanted compile when they are launched


def compile_ahead(run: Callable[[], object], device: torch.device, processes: int | None = None) -> int:
    """Compiles what run() launches on a CUDA device; how many kernels that is. In run, results of the kernels are not
    computed, nor may anything change by it. Where it fails, kernels compile at their first launch, as they would."""
    count = len(os.sched_getaffinity(0)) if processes is None else processes
    if device.type != "cuda" or count < 2 or runtime.reason_against(device.index or 0):
        return 0
    with tape.collecting() as launches, suppress(Exception):
        run()
    jobs = list({_kind(kernel, arguments): (kernel, arguments) for kernel, arguments in launches}.values())
    if jobs:
        capability = torch.cuda.get_device_capability(device)
        _side_by_side(jobs, 10 * capability[0] + capability[1], min(count, len(jobs)))
    return len(jobs)


Job = tuple[Any, dict[str, Any]]  # a kernel, its arguments and Triton's options by name


def _side_by_side(jobs: list[Job], capability: int, count: int) -> None:
    context = multiprocessing.get_context("fork")
    parts = [jobs[k::count] for k in range(count)]
    working = [context.Process(target=_compile, args=(part, capability), daemon=True) for part in parts]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads: nothing here waits for theirs
        for each in working:
            each.start()
    end = time.monotonic() + _SECONDS
    for each in working:
        each.join(max(0.0, end - time.monotonic()))
        if each.is_alive():
            each.kill()


def _compile(jobs: list[Job], capability: int) -> None:
    from triton.runtime import driver

    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what does not compile says so when it is launched
    torch.set_num_threads(1)
    driver.set_active(StandIn(capability))
    for kernel, arguments in jobs:
        with suppress(Exception):
            compiled = kernel.warmup(grid=(1,), **arguments)
            _launcher(compiled)


def _launcher(compiled: Any) -> None:
    """Some versions of Triton compile a launcher in C for every kind of kernel, too."""
    from triton.backends.nvidia.driver import CudaLauncher

    CudaLauncher(compiled.src, compiled.metadata)


class StandIn:
    """In place of the CUDA driver: kernels compile for a capability, and nothing can be launched."""

    def __init__(self, capability: int = 90) -> None:
        self.capability = capability

    def get_current_target(self) -> Any:
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", self.capability, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int | None = None) -> int:
        return 0

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cpu")


def _kind(kernel: Any, arguments: dict[str, Any]) -> Hashable:
    """What Triton compiles a kernel anew for."""
    named = {each.name: each for each in kernel.params}
    return id(kernel), *(_specialised(named.get(name), each) for name, each in sorted(arguments.items()))


def _specialised(parameter: Any, value: Any) -> Hashable:
    """Of numbers that are no constants less is told than their value."""
    if parameter is None or parameter.is_constexpr or not isinstance(value, int | float):
        return tape.kind(value)
    if isinstance(value, float):
        return float
    return value >= 2**31 if parameter.do_not_specialize else (value == 1, value % 16 == 0, value >= 2**31)
