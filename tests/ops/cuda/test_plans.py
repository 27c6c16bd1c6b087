"""Launch plans, with a driver that launches nothing: what reaches a kernel the second time is what did the first."""

import importlib.util
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")

# In a process of its own: it puts a driver in the place of Triton's.
SCRIPT = """
import torch, triton
from triton.backends.compiler import GPUTarget
from triton.compiler import CompiledKernel
from triton.runtime import driver

launched = []

class Driver:
    def get_current_target(self): return GPUTarget("cuda", 90, 32)
    def get_current_device(self): return 0
    def get_current_stream(self, device=None): return 7
    def get_active_torch_device(self): return torch.device("cpu")

driver.set_active(Driver())
CompiledKernel._init_handles = lambda self: None
CompiledKernel.run = property(lambda self: lambda *rest: launched.append((id(self), rest[:4], rest[9:])))
torch.cuda.current_device = lambda: 0

from shconv.ops.cuda import plans, statistics

full = []
jit = type(statistics.moments).run
def counting(self, *a, **k):
    full.append(self)
    return jit(self, *a, **k)
type(statistics.moments).run = counting

def call(x, D=16, CHANNELS=16, found=torch.empty(2048)):
    numbers = {"D": D, "P": 64, "share": 64, "shares": 1, "LAST": True, "CHANNELS": CHANNELS, "PIXELS": 16}
    plans.run(statistics.moments, lambda every: (every["D"] // every["CHANNELS"],),
              {"x": x, "partials": found, **numbers, "num_warps": 4})

x = torch.empty(4096)
call(x); call(x); call(torch.empty(4096))
assert len(full) == 1, len(full)
assert len(launched) == 3
assert {each[0] for each in launched} == {launched[0][0]}
assert [each[1] for each in launched] == [(1, 1, 1, 7)] * 3
assert launched[0][2][0] is x and launched[1][2] == launched[0][2]
assert launched[2][2][0] is not x and launched[2][2][1:] == launched[0][2][1:]
assert len(launched[0][2]) == len(statistics.moments.arg_names)
for number, other in enumerate([
    lambda: call(x[1:]),                 # not at a multiple of 16 bytes
    lambda: call(x.half()),              # another dtype
    lambda: call(x, D=32),               # another number, and grid
    lambda: call(x, CHANNELS=8),         # another constant
], 2):
    other(); other()
    assert len(full) == number, (number, len(full))
assert launched[7][1] == (2, 1, 1, 7) and launched[8][1] == (2, 1, 1, 7), launched[7][1]
print("fine")
"""


def test_a_second_call_of_a_kind_goes_to_the_compiled_kernel_with_the_same_arguments():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=300)
    assert done.stdout.strip() == "fine", done.stderr[-2000:]
