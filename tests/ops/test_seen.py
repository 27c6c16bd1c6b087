"""Kinds of calls that were seen: one is not taken for another, also where torch has no checks of its own."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.profiler import profile
from torch.utils._python_dispatch import TorchDispatchMode

from shconv import SHConv2d
from shconv.ops.cpu import layer as cpu
from shconv.ops.cpu import library
from shconv.ops.geometry import Geometry
from shconv.ops.seen import Seen

# Each is another kind than a float32 tensor (2, 3, 4, 5) that is contiguous and wants no gradient.
OTHERS: dict[str, Callable[[Tensor], Tensor]] = {
    "shape": lambda x: x[:1],
    "layout": lambda x: x.contiguous(memory_format=torch.channels_last),
    "dtype": lambda x: x.double(),
    "device": lambda x: x.to("meta"),
    "gradient": lambda x: x.clone().requires_grad_(),
    "class": nn.Parameter,
    "a view that changes signs": torch._neg_view,
    "a zero without memory": lambda x: torch._efficientzerotensor(x.shape),
    "sparse": lambda x: x.to_sparse(),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_another_kind_is_not_found_and_can_be_added_beside_the_first(kind: str) -> None:
    seen: Seen[str] = Seen()
    x, weight = torch.randn(2, 3, 4, 5), torch.randn(3)
    seen.add("near", (x, weight), "first")
    other = OTHERS[kind](torch.randn(2, 3, 4, 5))
    assert seen.find("near", (torch.randn(2, 3, 4, 5), torch.zeros(3))) == "first"
    assert seen.find("near", (other, weight)) is None
    assert seen.find("far", (x, weight)) is None
    if kind == "sparse":
        return  # has no strides
    seen.add("near", (other, weight), "second")
    assert (seen.find("near", (other, weight)), seen.find("near", (x, weight))) == ("second", "first")


class Looks(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.fixture(params=[True, False], ids=["torch's checks", "no checks of torch's"])
def checks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    if isinstance(reason := library.kernels(), str):
        pytest.skip(reason)
    monkeypatch.setattr(cpu, "_seen", Seen())
    if not request.param:
        monkeypatch.delattr(torch._C._dynamo.guards, "TensorGuards")
    return bool(request.param)


def warm() -> tuple[SHConv2d, Tensor]:
    """A layer, and images of a kind that it has had, with gradients and without."""
    torch.manual_seed(0)
    layer, x = SHConv2d(4, 5, 3, padding=1), torch.randn(2, 4, 6, 6)
    layer(x)
    layer(x.requires_grad_()).sum().backward()
    return layer, x.detach()


def test_a_layer_finds_its_kind_again(checks: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x = warm()
    monkeypatch.setattr(cpu, "_plans", {})
    layer(x)
    layer(x.requires_grad_()).sum().backward()
    assert bool(cpu._plans) != checks, "a key was made for it"


def test_whoever_has_to_see_a_call_sees_one_of_a_kind_that_was_seen(checks: bool) -> None:
    layer, x = warm()
    wanted = layer(x)
    with Looks() as mode:
        assert torch.equal(layer(x), wanted)
    assert any("shconv.layer_forward" in each for each in mode.seen)
    with profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiled:
        layer(x)
    assert any(each.key == "shconv::layer" for each in profiled.key_averages())
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
    tangent = torch.randn_like(x)
    found = torch.func.jvp(layer, (x,), (tangent,))[1]
    close = torch.autograd.functional.jvp(layer, x, tangent)[1]
    torch.testing.assert_close(found, close, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(torch.func.vmap(layer)(x.expand(3, *x.shape))[1], wanted, rtol=1e-4, atol=1e-5)


KEPT: dict[str, Callable[[Tensor], Tensor]] = {
    "channels last": lambda t: t.contiguous(memory_format=torch.channels_last) if t.dim() == 4 else t,
    "a view that changes signs": lambda t: torch._neg_view(-t),
    "every other element": lambda t: torch.stack([t, t], -1)[..., 0],
    "every other element of what the layer adds": lambda t: torch.stack([t, t], -1)[..., 0] if len(t) > 9 else t,
}


@pytest.mark.parametrize("way", KEPT)
def test_what_is_kept_in_another_way_gives_the_same_gradients(checks: bool, way: str) -> None:
    layer, x = warm()
    leaves = [x.requires_grad_(), *layer.parameters()]

    def gradients(around: AbstractContextManager[object]) -> tuple[Tensor, ...]:
        with around:
            Y = layer(x)
        return torch.autograd.grad(Y.square().sum(), leaves)

    found = gradients(saved_tensors_hooks(lambda t: KEPT[way](t.detach()), lambda t: t))
    for got, wanted in zip(found, gradients(nullcontext()), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)


def test_another_number_of_threads_and_another_stride_are_other_kinds(checks: bool) -> None:
    layer, x = warm()
    geometry, threads = Geometry((1, 1), (1, 1), (1, 1), 1), torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 1)
        layer(x)
        inputs = (x, layer.weight, *layer.hyper.theta(), layer.bias)
        assert cpu._seen.find((x.shape, geometry, (0, 1), 1e-5, threads + 1), inputs) or not checks
    finally:
        torch.set_num_threads(threads)
    layer.stride = (2, 2)
    assert layer(x).shape == (2, 5, 3, 3)


def test_calls_of_other_numbers_of_tensors_do_not_disturb_each_other() -> None:
    seen, weight, bias = Seen[str](), torch.rand(2, 3), torch.rand(4)
    seen.add("near", [weight, bias], "with bias")
    assert seen.find("near", [weight]) is None
    seen.add("near", [weight], "without")
    if seen:  # this torch has such checks
        assert seen.find("near", [weight]) == "without"
        assert seen.find("near", [weight, bias]) == "with bias"
