"""The op in torch's eyes: opcheck, what autocast casts, the layouts that tracing is told, and torch's other modes.
Derivatives are in test_derivatives.py, torch.compile and torch.export in test_registration_compile.py."""

import itertools
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.checkpoint import checkpoint

from shconv.errors import InputError
from shconv.ops import FORMULATIONS, filtered_conv2d, registration
from shconv.ops.geometry import Geometry

PLAIN = Geometry((1, 1), (1, 1), (1, 1), 1)
DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def inputs(N: int = 3, D: int = 4, C: int = 6, size: int = 6, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """x, weight (3x3), a map and a bias, all requiring gradients."""
    tensors = [
        torch.randn(N, D, size, size, dtype=dtype),
        torch.randn(C, D, 3, 3, dtype=dtype),
        torch.rand(N, 3, 3, dtype=torch.promote_types(dtype, torch.float32)),
        torch.randn(C, dtype=dtype),
    ]
    return [tensor.requires_grad_() for tensor in tensors]


def serving(dtype: torch.dtype) -> list[str]:
    x, weight, *_ = inputs(dtype=dtype)
    return [name for name, each in FORMULATIONS.items() if not each.reasons_against(x, weight, PLAIN)]


def told(name: str, more: Any) -> str:
    """What the ops below autograd are told beside tensors."""
    return registration.tell((Geometry((1, 1), (1, 0), (1, 2), 1), name), more)


NAMES = serving(torch.float64)  # those made of torch's own operations, which take any dtype


@pytest.mark.parametrize(("name", "N"), [*((name, 3) for name in NAMES), (NAMES[0], 0)])
def test_opcheck_passes_on_the_op_and_on_what_it_becomes_below_autograd(name: str, N: int) -> None:
    x, weight, M, _ = inputs(N)
    torch.library.opcheck(torch.ops.shconv.filtered_conv2d.default, (x, weight, M, [1, 1], [1, 0], [1, 2], 1, name))
    arguments = (x.detach(), weight.detach(), M.detach(), told(name, False))
    torch.library.opcheck(torch.ops.shconv.filtered_conv2d_forward.default, arguments)


@pytest.mark.parametrize(
    ("name", "N", "mask"),
    [(name, 3, (True, True, True)) for name in NAMES]
    + [(NAMES[0], 0, (True, True, True))]  # what is registered is the same for all names
    + [(NAMES[0], 3, tuple(place == only for place in range(3))) for only in range(3)],
)
def test_opcheck_passes_on_the_backward_op(name: str, N: int, mask: tuple[bool, bool, bool]) -> None:
    x, weight, M, _ = inputs(N)
    dY = torch.randn(N, 6, 6, 2)
    arguments = (dY, x.detach(), weight.detach(), M.detach(), told(name, mask))
    torch.library.opcheck(torch.ops.shconv.filtered_conv2d_backward.default, arguments)


# autocast


def outcome(convolution: Any, *tensors: Tensor) -> Any:
    """The dtype a convolution answers with, "refused" where it raises."""
    try:
        return convolution(*tensors).dtype
    except (RuntimeError, InputError):
        return "refused"


@pytest.mark.parametrize("autocast", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("enabled", [True, False])
def test_autocast_treats_every_mixture_of_dtypes_as_it_does_for_torchs_convolution(
    autocast: torch.dtype, enabled: bool
) -> None:
    x, weight, M, bias = (tensor.detach() for tensor in inputs())
    with torch.autocast("cpu", autocast), torch.autocast("cpu", autocast, enabled=enabled):
        for of_x, of_weight, of_bias in itertools.product(DTYPES, repeat=3):
            X, W, b = x.to(of_x), weight.to(of_weight), bias.to(of_bias)
            map_ = M.to(torch.promote_types(of_x, torch.float32))
            wanted = outcome(F.conv2d, X, W, b)
            assert outcome(filtered_conv2d, X, W, map_, b) == wanted, (of_x, of_weight, of_bias)


@pytest.mark.parametrize("name", NAMES)
def test_autocast_computes_in_its_dtype_and_gradients_keep_their_tensors(name: str) -> None:
    tensors = inputs()
    with torch.autocast("cpu", torch.bfloat16):
        Y = filtered_conv2d(*tensors, padding=1, formulation=name)
    expected = filtered_conv2d(*tensors, padding=1, formulation=name)
    assert Y.dtype == torch.bfloat16
    assert {gradient.dtype for gradient in torch.autograd.grad(Y.float().sum(), tensors)} == {torch.float32}
    assert (Y - expected).norm() / expected.norm() < 2 * torch.finfo(torch.bfloat16).eps


@pytest.mark.parametrize("name", NAMES)
def test_autocast_does_not_round_the_filter_map(name: str) -> None:
    """2.25 * (1 + 2^-8) is nearest to 2.265625 in bfloat16, in whichever order; the map rounded to bfloat16 is 1."""
    x = weight = torch.full((1, 1, 1, 1), 1.5)
    with torch.autocast("cpu", torch.bfloat16):
        Y = filtered_conv2d(x, weight, torch.full((1, 1, 1), 1 + 2**-8), formulation=name)
    assert Y.item() == 2.265625


@pytest.mark.parametrize("name", serving(torch.bfloat16))
def test_a_backward_pass_inside_autocast_gives_the_bits_of_one_outside(name: str) -> None:
    """Within the op autocast is off: it would round the map and the sums that are kept in the map's precision."""
    tensors = inputs(8, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        Y = filtered_conv2d(*tensors, formulation=name)
        dY = torch.randn_like(Y)
        inside = torch.autograd.grad(Y, tensors, dY, retain_graph=True)
    for actual, wanted in zip(inside, torch.autograd.grad(Y, tensors, dY), strict=True):
        assert actual.equal(wanted)


# layouts


@pytest.mark.parametrize("name", serving(torch.float32))
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_tracing_is_told_the_layout_that_comes(name: str, layout: torch.memory_format) -> None:
    """Along dimensions of more than one element: the stride of any other means nothing, and torch compares none."""

    def strides(*tensors: Tensor) -> list[tuple[int, ...]]:
        leaves = [tensor.detach().requires_grad_() for tensor in tensors]
        Y = filtered_conv2d(*leaves, padding=1, formulation=name)
        results = [Y, *torch.autograd.grad(Y, leaves, torch.ones_like(Y))]
        return [tuple(s for s, n in zip(each.stride(), each.shape, strict=True) if n > 1) for each in results]

    for N, D, C, size in itertools.product((0, 1, 2), (1, 3), (1, 4), (1, 4)):
        x, *rest = (tensor.detach() for tensor in inputs(N, D, C, size))
        tensors = [x.contiguous(memory_format=layout), *rest]
        with FakeTensorMode() as mode:
            told = strides(*(mode.from_tensor(tensor) for tensor in tensors))
        assert strides(*tensors) == told, (N, D, C, size)


# other modes


def test_meta_tensors_give_the_shape() -> None:
    x, weight, M, bias = (tensor.to("meta") for tensor in inputs())
    Y = filtered_conv2d(x, weight, M, bias, stride=2)
    assert (Y.shape, Y.device.type) == ((3, 6, 2, 2), "meta")


def test_inference_mode_gives_the_same_output() -> None:
    tensors = inputs()
    with torch.inference_mode():
        Y = filtered_conv2d(*tensors)
        assert Y.is_inference()
    torch.testing.assert_close(Y.clone(), filtered_conv2d(*tensors).detach(), rtol=0, atol=0)


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointing_gives_the_same_gradients(reentrant: bool) -> None:
    tensors, again = inputs(), inputs()
    for leaf, of in zip(again, tensors, strict=True):
        leaf.data.copy_(of.data)
    filtered_conv2d(*tensors).square().sum().backward()
    Y = checkpoint(filtered_conv2d, *again, use_reentrant=reentrant)
    Y.square().sum().backward()
    for leaf, of in zip(again, tensors, strict=True):
        torch.testing.assert_close(leaf.grad, of.grad, rtol=0, atol=0)
