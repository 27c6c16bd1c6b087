"""Kernels that a pass would launch are collected and compiled side by side, and nothing is launched."""

import importlib.util
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from shconv.ops.cuda import ahead, tape


def compiled(run: Any, device: torch.device, processes: int | None = None) -> int:
    ahead.wait(kinds := ahead.begin([run], device, processes))
    return len(kinds)


needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")


def kernel(*free: str) -> Any:
    """Stands for a Triton kernel with arguments x, N, H and WIDE; those that are free it is not compiled anew for."""
    names = ("x", "N", "H", "WIDE")
    params = [
        SimpleNamespace(name=n, is_constexpr=n.isupper() and len(n) > 1, do_not_specialize=n in free) for n in names
    ]
    return SimpleNamespace(params=params)


@needs_triton
def test_what_is_launched_while_launches_are_collected_is_written_down_and_not_run() -> None:
    from shconv.ops.cuda import plans

    class Kernel:
        def __getitem__(self, grid: object) -> Any:
            raise AssertionError("launched")

    own, x = Kernel(), torch.zeros(4)
    with tape.collecting() as found:
        plans.run(own, (1,), {"x": x, "N": 3})
    assert [(each, list(arguments.items())) for each, arguments in found] == [(own, [("x", x), ("N", 3)])]
    assert tape.collected() is None


@needs_triton
def test_other_threads_compute_while_one_collects_and_backward_passes_stay_in_it() -> None:
    from shconv.ops.cuda import plans

    launched: list[object] = []
    own = {(1,): lambda **arguments: launched.append(arguments)}
    with tape.collecting() as found, ThreadPoolExecutor(1) as others, pytest.MonkeyPatch.context() as patch:
        assert not torch.autograd.is_multithreading_enabled()
        patch.setattr(plans.triton.knobs.runtime, "interpret", True)
        others.submit(plans.run, own, (1,), {"N": 3}).result()
    assert (found, launched) == ([], [{"N": 3}])
    assert torch.autograd.is_multithreading_enabled()


def test_launches_count_as_one_where_triton_compiles_them_as_one() -> None:
    one, x = kernel("N"), torch.zeros(64)

    def kinds(*changes: dict[str, Any]) -> int:
        return len({ahead._kind(one, {"x": x, "N": 6, "H": 7, "WIDE": 8, "num_warps": 4} | each) for each in changes})

    assert kinds({}, {"N": 1}, {"N": 32}, {"H": 9}, {"x": torch.ones(64)}) == 1
    for change in ({"N": 2**31}, {"H": 1}, {"H": 16}, {"WIDE": 9}, {"x": x.half()}, {"x": x[1:]}, {"num_warps": 8}):
        assert kinds({}, change) == 2, change
    assert ahead._kind(one, {"x": x}) != ahead._kind(kernel("N"), {"x": x})


def test_nothing_is_done_on_other_devices_and_with_one_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead.runtime, "reason_against", lambda index: "")
    refuse = lambda: pytest.fail("run")  # noqa: E731
    assert compiled(refuse, torch.device("cpu")) == 0
    assert compiled(refuse, torch.device("cuda", 0), processes=1) == 0


@needs_triton
def test_kernels_are_in_tritons_cache_afterwards_and_one_that_does_not_compile_harms_no_other(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import triton

    if triton.knobs.runtime.interpret:
        pytest.skip("interpreted kernels cannot be compiled")
    from shconv.ops.cuda import plans
    from shconv.ops.cuda.hopper.images import fold

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(ahead.runtime, "reason_against", lambda index: "")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    numbers = {"LENGTH": 3, "REPEATS": 1, "image": 5, "place": 7, "further": 9, "T": 9}

    def run() -> None:
        for block in (3, 64):  # not a power of two, and one
            tensors = {"parts": torch.zeros(8), "sums": torch.zeros(8)}
            plans.run(fold, (1,), {**tensors, **numbers, "BLOCK": block})
        raise RuntimeError("a pass may break off")

    monkeypatch.setattr(ahead, "_begun", {})
    assert compiled(run, torch.device("cuda", 0), processes=2) == 2
    assert len(list(tmp_path.glob("*/fold.cubin"))) == 1
    monkeypatch.setattr(ahead, "Forked", lambda *_: pytest.fail("compiled again"))
    assert compiled(run, torch.device("cuda", 0), processes=2) == 2


def test_what_was_begun_for_several_networks_each_of_them_waits_for(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[int] = []
    waited: list[list[int]] = []

    class Pending:
        def __init__(self, work: object, jobs: int, processes: int) -> None:
            begun.append(jobs)

        def results(self, wanted: list[int], seconds: float) -> dict[int, Any]:
            waited.append(wanted)
            return {}

    def launching(*kernels: Any) -> Any:
        def run() -> None:
            collected = tape.collected()
            assert collected is not None
            collected.extend((each, {"x": torch.zeros(4)}) for each in kernels)

        return run

    monkeypatch.setattr(ahead.runtime, "reason_against", lambda index: "")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(ahead, "Forked", Pending)
    monkeypatch.setattr(ahead, "_begun", {})
    one, both, other, card = kernel(), kernel(), kernel(), torch.device("cuda", 0)
    assert len(ahead.begin([launching(one, both), launching(both, other)], card, processes=2)) == 3
    assert (begun, waited) == ([3], [])
    assert compiled(launching(both, other), card, processes=2) == 2
    assert (begun, waited) == ([3], [[1, 2]])
    assert compiled(launching(one, kernel()), card, processes=2) == 2
    assert (begun, waited) == ([3, 1], [[1, 2], [0], [0]])
