"""The op: the reference against the formula in numpy, every formulation against the reference, and the promises of
its docstring (layouts, memory, gradients asked for, dtypes). What it refuses is in test_refused_calls.py, what torch
does with it (autocast, torch.func, torch.compile) in test_registration*.py."""

import itertools
import types
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from shconv.ops import FORMULATIONS, filtered_conv2d, reference
from shconv.ops.geometry import Geometry

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")


def refusals(name: str, dtype: torch.dtype = torch.float64, stride: int = 1, groups: int = 1) -> list[str]:
    """Why a formulation cannot serve a small 3x3 call on the CPU."""
    x, weight = torch.zeros(1, 4, 5, 5, dtype=dtype), torch.zeros(4, 4 // groups, 3, 3, dtype=dtype)
    return FORMULATIONS[name].reasons_against(x, weight, Geometry((stride, stride), (1, 1), (1, 1), groups))


NAMES = [name for name in FORMULATIONS if not refusals(name)]
FLOAT32_NAMES = [name for name in FORMULATIONS if name not in NAMES]
WORK_LIMITS = {"grouped": "_KERNEL_BYTES", "unfold": "_COLUMN_BYTES", "shifted": "_BLOCK_BYTES"}
MASKS = [mask for mask in itertools.product((True, False), repeat=3) if any(mask)]


def test_the_formulations_in_plain_torch_are_tested_in_float64() -> None:
    assert {"grouped", "unfold", "shifted"} <= set(NAMES)


@dataclass
class Call:
    x: Tensor
    weight: Tensor
    M: Tensor
    bias: Tensor | None = None
    arguments: dict[str, Any] = field(default_factory=dict)

    def outputs(self, **more: Any) -> Tensor:
        return filtered_conv2d(self.x, self.weight, self.M, self.bias, **self.arguments, **more)

    def expected(self) -> Tensor:
        return reference.filtered_conv2d(self.x, self.weight, self.M, self.bias, **self.arguments)

    def leaves(self) -> list[Tensor]:
        return [tensor for tensor in (self.x, self.weight, self.M, self.bias) if tensor is not None]

    def requiring_grad(self) -> "Call":
        for tensor in self.leaves():
            tensor.requires_grad_()
        return self


def random_call(
    N: int = 3, D: int = 4, C: int = 6, size: Any = (7, 6), kernel: Any = (3, 3), dtype: torch.dtype = torch.float64,
    bias: bool = True, **arguments: Any,
) -> Call:  # fmt: skip
    groups = arguments.get("groups", 1)
    return Call(
        torch.randn(N, D, *size, dtype=dtype),
        torch.randn(C, D // groups, *kernel, dtype=dtype),
        torch.rand(N, *kernel, dtype=torch.promote_types(dtype, torch.float32)),
        torch.randn(C, dtype=dtype) if bias else None,
        arguments,
    )


@st.composite
def calls(draw: st.DrawFn, name: str, dtype: torch.dtype = torch.float64) -> Call:
    """Any call that the named formulation (or "auto") can serve."""
    small = st.integers(1, 3)
    strided, grouped = (name == "auto" or not refusals(name, dtype, **{key: 2}) for key in ("stride", "groups"))
    kernel = (draw(small), draw(st.integers(1, 4)))
    dilation = draw(st.one_of(small, st.tuples(small, small)))
    padding = draw(st.one_of(st.integers(0, 3), st.tuples(st.integers(0, 3), st.integers(0, 3)),
                             st.sampled_from(["same", "valid"])))  # fmt: skip
    stride = 1 if not strided or padding == "same" else draw(st.one_of(small, st.tuples(small, small)))
    groups = draw(small) if grouped else 1
    dilations = dilation if isinstance(dilation, tuple) else (dilation, dilation)
    paddings = padding if isinstance(padding, tuple) else (0, 0) if isinstance(padding, str) else (padding, padding)
    least = [1 if padding == "same" else max(1, dilations[a] * (kernel[a] - 1) + 1 - 2 * paddings[a]) for a in (0, 1)]
    size = [low + draw(st.integers(0, 5)) for low in least]
    torch.manual_seed(draw(st.integers(0, 2**16)))
    call = random_call(
        draw(st.integers(0, 4)), groups * draw(small), groups * draw(small), size, kernel, dtype, draw(st.booleans()),
        stride=stride, padding=padding, dilation=dilation, groups=groups,
    )  # fmt: skip
    layout = draw(st.sampled_from(["contiguous", "channels_last", "sliced"]))
    if layout == "channels_last":
        call.x = call.x.contiguous(memory_format=torch.channels_last)
        call.weight = call.weight.contiguous(memory_format=torch.channels_last)
    elif layout == "sliced":
        call.x = F.pad(call.x, (1, 2))[..., 1:-2]
        call.weight, call.M = call.weight.mT.contiguous().mT, call.M.repeat_interleave(2, dim=0)[::2]
    return call


def same(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)


# the definition


@pytest.mark.parametrize(
    ("stride", "padding", "dilation", "groups"),
    [
        ((1, 1), (0, 0), (1, 1), 1),
        ((2, 3), (2, 1), (1, 2), 1),
        ((1, 2), (0, 3), (2, 1), 2),
        ((1, 1), (1, 1), (1, 1), 4),
    ],
)
def test_reference_is_the_sum_over_taps_written_in_numpy(stride: Any, padding: Any, dilation: Any, groups: int) -> None:
    call = random_call(2, 4, 8, (9, 8), (3, 2), stride=stride, padding=padding, dilation=dilation, groups=groups)
    x, W, M, b = (tensor.numpy() for tensor in call.leaves())
    x = np.pad(x, [(0, 0), (0, 0), (padding[0],) * 2, (padding[1],) * 2])
    height, width = ((x.shape[2 + a] - dilation[a] * (W.shape[2 + a] - 1) - 1) // stride[a] + 1 for a in (0, 1))
    Y = np.zeros((2, 8, height, width))
    for n, c, d, u, v, i, j in np.ndindex(2, 8, W.shape[1], height, width, 3, 2):
        channel = (c // (8 // groups)) * W.shape[1] + d
        pixel = x[n, channel, u * stride[0] + i * dilation[0], v * stride[1] + j * dilation[1]]
        Y[n, c, u, v] += W[c, d, i, j] * M[n, i, j] * pixel
    same(call.expected(), torch.from_numpy(Y + b[:, None, None]))


def test_references_gradients_do_not_depend_on_the_layout() -> None:
    """torch's own weight gradient does, for a grouped float64 convolution of X[None] with X from a channels_last x."""
    call = random_call(2, 4, 2, (1, 2), (1, 2), bias=False, groups=2).requiring_grad()
    expected = torch.autograd.grad(call.expected().sum(), call.leaves())
    with torch.no_grad():
        call.x = call.x.contiguous(memory_format=torch.channels_last)
        call.weight = call.weight.contiguous(memory_format=torch.channels_last)
    call.requiring_grad()
    for actual, wanted in zip(torch.autograd.grad(call.expected().sum(), call.leaves()), expected, strict=True):
        same(actual, wanted)


# every formulation is the reference


@pytest.mark.parametrize("name", [*NAMES, "auto"])
@settings(max_examples=80)
@given(data=st.data())
def test_output_and_gradients_equal_the_references(name: str, data: st.DataObject) -> None:
    call = data.draw(calls(name)).requiring_grad()
    with pytest.MonkeyPatch.context() as patch:
        if name in WORK_LIMITS:  # one image, some or all of them at a time
            patch.setattr(FORMULATIONS[name], WORK_LIMITS[name], data.draw(st.sampled_from([1, 2000, 2**27])))
        Y = call.outputs(formulation=name)
        dY = torch.randn_like(Y)
        gradients = torch.autograd.grad(Y, call.leaves(), dY)
    expected = call.expected()
    same(Y, expected)
    wanted = torch.autograd.grad(expected, call.leaves(), dY, materialize_grads=True)  # an empty batch uses no map
    for gradient, other in zip(gradients, wanted, strict=True):
        same(gradient, other)


@pytest.mark.parametrize("name", FLOAT32_NAMES)
@settings(max_examples=80)
@given(data=st.data())
def test_output_and_gradients_in_float32_are_close_to_the_references_in_float64(name: str, data: st.DataObject) -> None:
    if reasons := refusals(name, torch.float32):
        pytest.skip(f"{name}: {'; '.join(reasons)}")
    call = data.draw(calls(name, torch.float32)).requiring_grad()
    exact = Call(*(leaf.detach().double() for leaf in call.leaves()), arguments=call.arguments).requiring_grad()
    Y, expected = call.outputs(formulation=name), exact.expected()
    dY = torch.randn_like(Y)
    pairs = [(Y, expected)]
    wanted = torch.autograd.grad(expected, exact.leaves(), dY.double(), materialize_grads=True)
    pairs += zip(torch.autograd.grad(Y, call.leaves(), dY), wanted, strict=True)
    for actual, other in pairs:
        torch.testing.assert_close(actual.double(), other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=40)
@given(data=st.data())
def test_output_is_channels_last_exactly_where_the_input_is(name: str, data: st.DataObject) -> None:
    call = data.draw(calls(name))
    Y = call.outputs(formulation=name)
    last = call.x.is_contiguous(memory_format=torch.channels_last) and not call.x.is_contiguous()
    assert Y.is_contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "arguments", [{"padding": "same", "dilation": (2, 1)}, {"groups": 2, "stride": (1, 2), "padding": 1}], ids=str
)
def test_gradcheck_passes_in_float64_backward_forward_batched_and_twice(name: str, arguments: dict[str, Any]) -> None:
    if name == "shifted" and {"stride", "groups"} & set(arguments):
        arguments = {"padding": (2, 0), "dilation": (1, 2)}
    call = random_call(2, 2, 2, (5, 3), (3, 2), **arguments).requiring_grad()

    def outputs(*leaves: Tensor) -> Tensor:
        return Call(*leaves, arguments).outputs(formulation=name)

    batched = {"check_batched_grad": True}
    assert torch.autograd.gradcheck(
        outputs, call.leaves(), check_forward_ad=True, check_batched_forward_grad=True, **batched
    )
    assert torch.autograd.gradgradcheck(outputs, call.leaves(), check_fwd_over_rev=True, fast_mode=True, **batched)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_of_an_expanded_output_gradient_equal_the_references(name: str) -> None:
    call = random_call(padding=1).requiring_grad()
    gradients = torch.autograd.grad(call.outputs(formulation=name).sum(), call.leaves())
    for actual, wanted in zip(gradients, torch.autograd.grad(call.expected().sum(), call.leaves()), strict=True):
        same(actual, wanted)


# which gradients


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("mask", MASKS)
def test_only_the_gradients_asked_for_are_computed(
    name: str, mask: tuple[bool, bool, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    call = random_call(padding=1, bias=False)
    for tensor, needed in zip(call.leaves(), mask, strict=True):
        tensor.requires_grad_(needed)
    asked, original = [], FORMULATIONS[name]

    def backward(*arguments: Any) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        gradients = original.backward(*arguments)
        asked.append((arguments[-1], tuple(gradient is not None for gradient in gradients)))
        return gradients

    spy = types.SimpleNamespace(reasons_against=original.reasons_against, forward=original.forward, backward=backward)
    monkeypatch.setitem(FORMULATIONS, name, spy)
    wanted_leaves = [tensor for tensor in call.leaves() if tensor.requires_grad]
    dY = torch.randn(3, 6, 7, 6, dtype=torch.float64)
    call.outputs(formulation=name).backward(dY)
    assert asked == [(mask, mask)]
    actual = [tensor.grad for tensor in call.leaves()]
    assert [gradient is not None for gradient in actual] == list(mask)
    expected = torch.autograd.grad(call.expected(), wanted_leaves, dY)
    for tensor, gradient in zip(wanted_leaves, expected, strict=True):
        same(tensor.grad, gradient)


@pytest.mark.parametrize("name", WORK_LIMITS)
def test_the_gradients_of_x_and_of_the_weight_share_no_work(name: str) -> None:
    call = random_call(4, 16, 16, (8, 8), bias=False)
    geometry = Geometry((1, 1), (1, 1), (1, 1), 1)

    def flops(*mask: bool) -> int:
        with FlopCounterMode(display=False) as counter:
            FORMULATIONS[name].backward(torch.randn_like(call.x), call.x, call.weight, call.M, geometry, mask)
        return int(counter.get_total_flops())

    for_x, for_weight = flops(True, False, False), flops(False, True, False)
    assert min(for_x, for_weight) > 0
    assert for_x + for_weight <= flops(True, True, True)


# one image does not see another


@pytest.mark.parametrize("name", NAMES)
def test_an_images_output_and_gradients_are_those_it_has_alone(name: str) -> None:
    call = random_call(5, padding=1).requiring_grad()
    Y = call.outputs(formulation=name)
    dX, dM = torch.autograd.grad(Y[2].square().sum(), (call.x, call.M))
    alone = Call(call.x[2:3].detach(), call.weight.detach(), call.M[2:3].detach(), call.bias, {"padding": 1})
    alone.x.requires_grad_(), alone.M.requires_grad_()
    Y_alone = alone.outputs(formulation=name)
    same(Y[2:3], Y_alone)
    for whole, part in zip((dX, dM), torch.autograd.grad(Y_alone.square().sum(), (alone.x, alone.M)), strict=True):
        same(whole[2:3], part)
        assert not torch.cat([whole[:2], whole[3:]]).any()


@pytest.mark.parametrize("name", NAMES)
def test_an_infinite_pixel_leaves_the_other_images_finite(name: str) -> None:
    call = random_call(3, padding=1).requiring_grad()
    with torch.no_grad():
        call.x[1, 0, 0, 0] = torch.inf
    Y = call.outputs(formulation=name)
    for values in (Y, *torch.autograd.grad(Y.sum(), (call.x, call.M))):
        assert values[[0, 2]].isfinite().all()


# memory


@pytest.mark.parametrize("name", NAMES)
def test_backward_keeps_x_weight_and_map_and_no_kernel_per_image(name: str) -> None:
    call = random_call(16, 8, 8, padding=1).requiring_grad()
    saved: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        saved.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        call.outputs(formulation=name)
    assert (
        sum(tensor.untyped_storage().nbytes() for tensor in saved) == call.x.nbytes + call.weight.nbytes + call.M.nbytes
    )


# lower precision


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_is_as_close_to_float64_as_its_rounding_allows(name: str, dtype: torch.dtype) -> None:
    call = random_call(4, 16, 8, dtype=dtype, padding=1).requiring_grad()
    Y = call.outputs(formulation=name)
    dY = torch.randn_like(Y)
    exact = Call(*(leaf.detach().double() for leaf in call.leaves()), call.arguments).requiring_grad()
    expected = exact.expected()
    assert Y.dtype == dtype
    pairs = [(Y, expected)]
    pairs += zip(
        torch.autograd.grad(Y, call.leaves(), dY),
        torch.autograd.grad(expected, exact.leaves(), dY.double()),
        strict=True,
    )
    for actual, wanted in pairs:
        error = (actual.double() - wanted).norm() / wanted.norm()
        assert error < 2 * torch.finfo(dtype).eps
