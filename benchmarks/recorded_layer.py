"""What an SHC layer's call on a GPU costs the host, on a machine without one: the way of CUDA tensors is taken with
tensors of the CPU, its launches are recorded and never made. So memory, bookkeeping and autograd are what is timed, not
the driver, and not what the card computes:

    python benchmarks/recorded_layer.py [--rounds 200]

The best of the rounds: bfloat16 mixed precision, channels_last, one thread.
"""

import ctypes
import functools
import importlib.metadata
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import tyro
from torch import Tensor

from shconv import SHConv2d
from shconv.ops import choice, hypernetwork, layer
from shconv.ops.cuda import launcher, plans, replay
from shconv.ops.cuda.hopper import passes

_CALLS = 5  # a round
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # glibc's names for them


@dataclass
class Options:
    channels: int = 64
    size: int = 8
    batch: int = 2
    rounds: int = 200
    row: int = 16  # layers; a backward pass takes some time whatever is in it


class Recorded:
    """Takes the place of the compiled library's plan for a whole layer."""

    def __init__(self, *numbers: Any) -> None:
        self.numbers = numbers

    def forward(self, inputs: Sequence[Tensor], keep: bool) -> Any:
        return replay.call(layer._forward, inputs, *self.numbers, keep)

    def backward(self, dY: Tensor, inputs: Sequence[Tensor], kept: Tensor, mask: Any) -> Any:
        return replay.call(layer._backward, (dY, *inputs, kept), *self.numbers, mask)


def without_a_card() -> None:
    """CPU tensors go where CUDA tensors go from now on, to a launcher that looks addresses up and launches nothing."""

    def player(launches: Sequence[Any], device: int) -> launcher.Play:
        return lambda addresses, stream: launcher._packed(len(addresses))(*addresses) and None

    recorded = functools.cache(Recorded)
    changed: list[tuple[Any, str, Any]] = [
        (hypernetwork, "_FUSED_ON", ("cuda", "cpu")),
        (choice, "choose", lambda *_: "triton"),
        (passes, "serves", lambda *_: True),
        (plans, "_launch", lambda *_: None),
        (launcher, "player", player),
        (launcher, "stream", lambda device: 0),
        (torch._C, "_cuda_getDevice", lambda: -1),
        (torch.cuda, "is_current_stream_capturing", lambda: False),
        (layer, "_rounds", lambda x, weight: x.dtype != weight.dtype),
        (layer.cpu, "plan", lambda inputs, *numbers: recorded(*numbers)),
    ]
    for place, name, value in changed:
        setattr(place, name, value)


def best(call: Callable[[], object], rounds: int) -> float:
    """Microseconds."""
    found = []
    for _ in range(rounds):
        begun = time.perf_counter()
        for _ in range(_CALLS):
            call()
        found.append((time.perf_counter() - begun) / _CALLS * 1e6)
    return min(found)


def main(options: Options) -> None:
    torch.set_num_threads(1)
    for option in (_MMAP_THRESHOLD, _TRIM_THRESHOLD):  # the system is not asked each time, as on a GPU
        ctypes.CDLL(None).mallopt(option, 2**30)
    without_a_card()
    versions = f"torch {torch.__version__}, triton {importlib.metadata.version('triton')}"
    print(f"{platform.processor() or platform.machine()}, {versions}: microseconds a layer")
    for count in (1, options.row):
        layers = [SHConv2d(options.channels, options.channels, 3, padding=1, bias=False) for _ in range(count)]
        alone, forward, step = measured(torch.nn.Sequential(*layers), options)
        print(f"{count} in a row: forward without gradients {alone / count:.0f}, forward {forward / count:.0f}, "
              f"forward and backward {step / count:.0f}")  # fmt: skip


def measured(network: torch.nn.Module, options: Options) -> tuple[float, float, float]:
    """Forward without gradients, forward, and a step without the optimiser's."""
    network = network.to(memory_format=torch.channels_last)
    sides = options.batch, options.channels, options.size, options.size
    x, dY = (torch.randn(sides).bfloat16().contiguous(memory_format=torch.channels_last) for _ in range(2))
    x.requires_grad_()

    def both() -> None:
        network.zero_grad()
        x.grad = None
        torch.autograd.backward(network(x), dY)

    with torch.autocast("cpu", torch.bfloat16):
        for _ in range(4):  # as it is, recorded, played
            both()
        forward, step = best(lambda: network(x), options.rounds), best(both, options.rounds)
        with torch.no_grad():
            for _ in range(4):
                network(x)
            return best(lambda: network(x), options.rounds), forward, step


if __name__ == "__main__":
    os.environ |= {"TRITON_INTERPRET": "1", "SHCONV_TUNE": "0"}
    main(tyro.cli(Options))
