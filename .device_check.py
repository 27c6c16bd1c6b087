"""On a card: SHConv2d by replay against the direct way, bit for bit, and host microseconds a call both ways.

python .device_check.py      (kernels are compiled in processes first: some 15 s with a cold cache)
"""

import contextlib
import itertools
import logging
import multiprocessing
import os
import sys
import time

os.environ.setdefault("SHCONV_TUNE", "0")
START = time.perf_counter()

import torch  # noqa: E402
from torch import nn  # noqa: E402

from shconv import SHConv2d  # noqa: E402
from shconv.bench.gpu_kernels import LAYERS, Layer, StandIn  # noqa: E402
from shconv.ops import layer as op  # noqa: E402
from shconv.ops.cuda import launcher, replay  # noqa: E402
from shconv.ops.geometry import Geometry  # noqa: E402

SMALL = (Layer(8, 32, 32, 16, 1), Layer(64, 48, 96, 8, 2))
CASES = [(each, torch.bfloat16) for each in (*LAYERS, *SMALL)]
CASES += [(each, torch.float32) for each in (LAYERS[0], LAYERS[3], LAYERS[5], SMALL[0])]
LAST = torch.channels_last


def compile_ahead(job):
    """One direction of one case, by a stand-in for the driver, into Triton's cache on disk."""
    (N, D, C, H, stride), dtype, direction = job
    from triton.runtime import driver

    from shconv.ops import choice, hypernetwork
    from shconv.ops.cuda import plans, runtime
    from shconv.ops.cuda.hopper import passes

    torch.set_num_threads(1)
    driver.set_active(StandIn())
    hypernetwork._FUSED_ON = ("cuda", "cpu")
    choice.choose = lambda *_: "triton"
    passes.serves = passes.describable
    plans._launch = lambda kernel, places, arguments: kernel.warmup(grid=places, **arguments)
    x, weight, dY = (
        torch.empty(size, dtype=dtype).to(memory_format=LAST)
        for size in ((N, D, H, H), (C, D, 3, 3), (N, C, H // stride, H // stride))
    )
    K = D // 2
    theta = [torch.empty(size) for size in ((K, 2 * D), (K,), (9, K), (9,))]
    numbers = Geometry((stride, stride), (1, 1), (1, 1), 1), (0, 1)
    try:
        if direction == "forward":
            op._forward(x, weight, None, *theta, *numbers, 1e-5, True)
        else:
            kept = torch.empty(N, 9), torch.empty(N, 2, D), torch.empty(N, K)
            op._backward(dY, x, weight, None, *theta, *kept, *numbers, (True, True, False, True))
    except Exception as error:
        return f"{job}: {type(error).__name__}: {error}"
    return ""


class Case:
    def __init__(self, shape, dtype):
        N, D, C, H, stride = shape
        torch.manual_seed(N + D + C + H)
        self.dtype = dtype
        self.layer = SHConv2d(D, C, 3, stride=stride, padding=1, bias=False).cuda().to(memory_format=LAST)
        self.conv = nn.Conv2d(D, C, 3, stride=stride, padding=1, bias=False).cuda().to(memory_format=LAST)
        x = torch.randn(N, D, H, H, device="cuda") + 0.3
        self.x = x.to(dtype).contiguous(memory_format=LAST).requires_grad_()
        self.dY = torch.randn(N, C, H // stride, H // stride, device="cuda").to(dtype).contiguous(memory_format=LAST)

    def autocast(self):
        return torch.autocast("cuda", torch.bfloat16) if self.dtype == torch.bfloat16 else contextlib.nullcontext()

    def forward(self, module=None):
        with self.autocast():
            return (module or self.layer)(self.x)

    def both(self, module=None):
        module = module or self.layer
        leaves = [self.x, *module.parameters()]
        Y = self.forward(module)
        return [Y, *torch.autograd.grad(Y, leaves, self.dY)]

    def infer(self, module=None):
        with torch.no_grad():
            return [self.forward(module)]


@contextlib.contextmanager
def direct():
    played, replay.call = replay.call, lambda function, inputs, *numbers: function(*inputs, *numbers)
    try:
        yield
    finally:
        replay.call = played


def host(work, calls=30):
    """Microseconds of host a call, the least of a few rounds; the card works meanwhile."""
    best = float("inf")
    for _ in range(4):
        torch.cuda.synchronize()
        before = time.perf_counter()
        for _ in range(calls):
            work()
        best = min(best, time.perf_counter() - before)
        torch.cuda.synchronize()
    return best / calls * 1e6


def peak(work):
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    work()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def check(shape, dtype):
    case, faults = Case(shape, dtype), []
    with direct():
        right, seen = case.both(), case.infer()
        old = peak(case.both), host(case.infer), host(case.both)
    for _ in range(4):
        got, shown = case.both(), case.infer()
    torch.use_deterministic_algorithms(True, warn_only=True)  # poisons what torch.empty gives, and is a kind of its own
    for _ in range(3):
        poisoned = case.both()
    torch.use_deterministic_algorithms(False)
    names = ["Y", "dX", "dW", "dW1", "db1", "dW2", "db2"]
    for name, a, b, c in zip(names, got, right, poisoned, strict=True):
        if not torch.equal(a, b) or a.stride() != b.stride():
            faults.append(f"{name} off by {(a.float() - b.float()).abs().max():.3g}")
        if not torch.equal(c, b):
            faults.append(f"{name} poisoned: off by {(c.float() - b.float()).abs().max():.3g}")
    if not torch.equal(shown[0], seen[0]):
        faults.append("inference")
    new = peak(case.both), host(case.infer), host(case.both)
    plain = host(lambda: case.infer(case.conv)), host(lambda: case.both(case.conv))
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream()
    with torch.cuda.stream(stream):
        aside = case.both()
    torch.cuda.current_stream().wait_stream(stream)
    with torch.cuda.graph(graph):
        held = case.both()
    graph.replay()
    torch.cuda.synchronize()
    for name, a, b, c in zip(names, held, right, aside, strict=True):
        if not torch.equal(a, b):
            faults.append(f"{name} in a graph")
        if not torch.equal(c, b):
            faults.append(f"{name} on a stream")
    print(
        f"{shape!s:16} {str(dtype)[6:]:9}"
        f" infer: direct {old[1]:5.0f} replay {new[1]:4.0f} conv {plain[0]:4.0f} us |"
        f" both: direct {old[2]:5.0f} replay {new[2]:4.0f} conv {plain[1]:4.0f} us |"
        f" MiB {old[0]:.0f} {new[0]:.0f} | {'; '.join(faults) or 'equal'}",
        flush=True,
    )
    return faults


def parts():
    """Where the host's time of a call goes, at the smallest shape."""
    case = Case(SMALL[0], torch.bfloat16)
    for _ in range(4):
        case.both()
    players = [each for each in replay._known.values() if isinstance(each, replay.Player)]
    print("kinds:", len(replay._known), "replayed:", len(players), "not:", sum(each is None for each in replay._known.values()))
    print("steps of torch's in replays:", sorted({(each.inputs, len(each.steps)) for each in players}))
    import cProfile
    import pstats

    with cProfile.Profile() as profile, torch.autograd.set_multithreading_enabled(False):
        for _ in range(200):
            case.both()
    pstats.Stats(profile, stream=sys.stdout).sort_stats("tottime").print_stats(22)


def main():
    logging.basicConfig(level=logging.INFO)
    jobs = [(*case, direction) for case in CASES for direction in ("backward", "forward")]
    context = multiprocessing.get_context("fork")
    with context.Pool(min(len(jobs), max(1, (os.cpu_count() or 2) - 1))) as pool:
        for said in filter(None, pool.map(compile_ahead, jobs, 1)):
            print("not compiled ahead:", said)
    print(f"compiled after {time.perf_counter() - START:.1f} s", flush=True)
    if reason := launcher.reason_against():
        print("NO LAUNCHER:", reason)
    faults = list(itertools.chain.from_iterable(check(*case) for case in CASES))
    print(f"checked after {time.perf_counter() - START:.1f} s", flush=True)
    parts()
    print(f"{torch.cuda.get_device_name()}, {time.perf_counter() - START:.1f} s: {'FAULTS' if faults else 'all equal'}")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
