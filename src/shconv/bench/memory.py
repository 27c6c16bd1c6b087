"""Peak memory of a training step, in a process of its own where nothing else is alive.
On CUDA what torch allocates; on the CPU what the process comes to hold, scratch outside torch's allocator included."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from shconv.bench.device import Work
from shconv.bench.setting import Setting

_SLACK = 2**23
_STEPS = 3  # the optimiser's state is there from the second on
# glibc's heap keeps holes whose size depends on the order of past calls; blocks of their own are given back at once.
_EXACT = {"MALLOC_MMAP_THRESHOLD_": "131072"}


def peak_memory(setting: Setting) -> int | str:
    """Bytes for weights, gradients, momentum, images, activations and scratch together, or why they are not known."""
    if setting.compiled and torch.device(setting.device).type == "cpu":
        return "torch.compile's own memory would be counted with the step's"
    lines = lines_of("shconv.bench.memory", {"setting": asdict(setting)}, setting.device)
    return lines if isinstance(lines, str) else enough(int(lines[-1]), setting.device)


def lines_of(module: str, about: Mapping[str, Any], device: str) -> list[str] | str:
    """What `python -m module` prints, told `about` and the number of threads as JSON; or why it does not."""
    on_cpu = torch.device(device).type == "cpu"
    if on_cpu and not Path("/proc/self/clear_refs").exists():
        return "peak memory on the CPU is measured on Linux only"
    if not on_cpu:
        torch.cuda.empty_cache()  # room for the process
    told = json.dumps({**about, "threads": torch.get_num_threads()})
    command = [sys.executable, "-m", module, told]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **_EXACT})
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        return f"the training step failed in a process of its own: {last}"
    return done.stdout.splitlines()


def enough(held: int, device: str) -> int | str:
    """The bytes, or why they say nothing."""
    few = torch.device(device).type == "cpu" and held < _SLACK
    return "too little to tell from the slack of the heap (under 8 MiB)" if few else held


def growth(make: Callable[[], Work], make_small: Callable[[], Work], device: torch.device) -> int:
    """Bytes at the peak of a few calls of the work that `make` makes, its own making included; in a fresh process.

    make_small: the same on little data, which loads the code that is needed.
    """
    if device.type == "cuda":
        step = _taken(make)
        torch.cuda.reset_peak_memory_stats()  # the first steps compiled, tuned, and tried formulations
        step()
        return torch.cuda.max_memory_allocated()
    _taken(make_small)
    _peak_reset()
    before = _most_resident()
    _taken(make)
    return _most_resident() - before


def _measured(setting: Setting) -> int:
    small = replace(setting, batch=2, image_size=32 if setting.small else 65)
    return growth(partial(_step, setting), partial(_step, small), torch.device(setting.device))


def _step(setting: Setting) -> Work:
    network = setting.build()
    setting.prepare(network)
    return setting.training_step(network)


def _taken(make: Callable[[], Work]) -> Work:
    """The training step, taken a few times."""
    step = make()
    for _ in range(_STEPS):
        step()
    return step


def _peak_reset() -> None:
    """Let the process's peak be what it holds now."""
    Path("/proc/self/clear_refs").write_text("5")


def _most_resident() -> int:
    """Bytes at this process's peak since then. getrusage's peak would include the process that started this one."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


if __name__ == "__main__":
    told = json.loads(sys.argv[1])
    torch.set_num_threads(told["threads"])
    print(_measured(Setting(**told["setting"])))
