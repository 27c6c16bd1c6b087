"""Kernels are compiled before they are wanted, side by side: a network's first step would compile them one after the
other. What a pass launches is collected, and nothing launched; forked processes, which never touch the card, compile it
into Triton's cache on disk. Importing this imports no triton."""

import os
from collections.abc import Callable, Collection, Hashable, Iterable
from contextlib import suppress
from typing import Any

import torch

from shconv.forked import Forked, processors
from shconv.ops.cuda import runtime, tape

_SECONDS = 120.0  # after that the kernels that are still wanted compile when they are launched
_begun: dict[Hashable, tuple[Forked, int]] = {}  # by kind of kernel: who compiles it, as which job


def begin(
    runs: Iterable[Callable[[], object]], device: torch.device, processes: int | None = None
) -> Collection[Hashable]:
    """Begins to compile what each run() launches on a CUDA device, the first one's kernels first; their kinds. In run,
    results of the kernels are not computed, nor may anything change by it."""
    count = processors() if processes is None else processes
    if device.type != "cuda" or count < 2 or runtime.reason_against(device.index or 0):
        return ()
    major, minor = torch.cuda.get_device_capability(device)
    capability = 10 * major + minor
    jobs: dict[Hashable, Job] = {}
    for run in runs:
        with tape.collecting() as launches, suppress(Exception):
            run()
        for kernel, arguments in launches:
            jobs.setdefault((capability, _kind(kernel, arguments)), (kernel, arguments))
    new = [kind for kind in jobs if kind not in _begun]
    if new:
        forked = Forked(lambda place: _compile(jobs[new[place]], capability), len(new), count)
        _begun.update({kind: (forked, place) for place, kind in enumerate(new)})
    return jobs.keys()


def wait(kinds: Iterable[Hashable]) -> None:
    """Until kernels that `begin` named are compiled. Where that fails they compile at their first launch, as they would
    have."""
    wanted: dict[Forked, list[int]] = {}
    for forked, place in map(_begun.__getitem__, kinds):
        wanted.setdefault(forked, []).append(place)
    for forked, places in wanted.items():
        forked.results(places, _SECONDS)


Job = tuple[Any, dict[str, Any]]  # a kernel, its arguments and Triton's options by name


def _compile(job: Job, capability: int) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what does not compile says so when it is launched
    stand_in(capability)
    kernel, arguments = job
    _launcher(kernel.warmup(grid=(1,), **arguments))


def stand_in(capability: int) -> None:
    """Makes this process one that compiles for a capability and launches nothing."""
    from triton.runtime import driver

    torch.set_num_threads(1)
    driver.set_active(StandIn(capability))


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
