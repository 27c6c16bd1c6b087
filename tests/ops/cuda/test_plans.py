"""Launch plans, with a driver that launches nothing: what reaches a kernel the second time is what did the first."""

import importlib.util
from typing import Any

import pytest
import torch

from toys import processes

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")


def planned() -> None:
    """In a process of its own: it puts a driver in the place of Triton's."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import CompiledKernel
    from triton.runtime import driver

    from shconv.ops.cuda import plans, statistics

    class Driver:
        def get_current_target(self) -> Any:
            return GPUTarget("cuda", 90, 32)

        def get_current_device(self) -> int:
            return 0

        def get_current_stream(self, device: Any = None) -> int:
            return 7

        def get_active_torch_device(self) -> torch.device:
            return torch.device("cpu")

    launched: list[Any] = []
    full: list[Any] = []
    jit = type(statistics.moments).run

    def counting(self: Any, *given: Any, **named: Any) -> Any:
        full.append(self)
        return jit(self, *given, **named)

    driver.set_active(Driver())
    CompiledKernel._init_handles = lambda self: None
    CompiledKernel.run = property(lambda self: lambda *rest: launched.append((id(self), rest[:4], rest[9:])))
    torch.cuda.current_device = lambda: 0
    type(statistics.moments).run = counting
    found = torch.empty(2048)

    def call(x: torch.Tensor, D: int = 16, CHANNELS: int = 16) -> None:
        numbers = {"D": D, "P": 64, "share": 64, "shares": 1, "LAST": True, "CHANNELS": CHANNELS, "PIXELS": 16}
        plans.run(
            statistics.moments,
            lambda every: (every["D"] // every["CHANNELS"],),
            {"x": x, "partials": found, **numbers, "num_warps": 4},
        )

    x = torch.empty(4096)
    call(x)
    call(x)
    call(torch.empty(4096))
    assert len(full) == 1
    assert len(launched) == 3
    assert {each[0] for each in launched} == {launched[0][0]}
    assert [each[1] for each in launched] == [(1, 1, 1, 7)] * 3
    assert launched[0][2][0] is x
    assert launched[1][2] == launched[0][2]
    assert launched[2][2][0] is not x
    assert launched[2][2][1:] == launched[0][2][1:]
    assert len(launched[0][2]) == len(statistics.moments.arg_names)
    others = [
        lambda: call(x[1:]),  # not at a multiple of 16 bytes
        lambda: call(x.half()),  # another dtype
        lambda: call(x, D=32),  # another number, and grid
        lambda: call(x, CHANNELS=8),  # another constant
    ]
    for number, other in enumerate(others, 2):
        other()
        other()
        assert len(full) == number
    assert [each[1] for each in launched[7:9]] == [(2, 1, 1, 7)] * 2


def test_a_second_call_of_a_kind_goes_to_the_compiled_kernel_with_the_same_arguments():
    with processes().Pool(1) as pool:
        pool.apply(planned)
