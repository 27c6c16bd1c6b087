"""Tensors that are more, or less, than memory with their numbers in it, and gradients in batches: every op makes of
them what it makes of plain ones, at once and compiled."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import vmap

from shconv import SHConv2d
from shconv.errors import InputError
from shconv.ops import filtered_conv2d, hypernetwork
from shconv.ops.statistics import channel_mean_variance

Op = Callable[..., Tensor]


def layer(x: Tensor, weight: Tensor, bias: Tensor, *theta: Tensor) -> Tensor:
    module = SHConv2d(3, 4, 3, padding=1, dtype=weight.dtype)
    hidden, output = module.hyper.hidden, module.hyper.output
    names = {"weight": module, "bias": module}
    for (name, of), given in zip(names.items(), (weight, bias), strict=True):
        del of._parameters[name]
        setattr(of, name, given)
    owners = (hidden, "weight"), (hidden, "bias"), (output, "weight"), (output, "bias")
    for (of, name), given in zip(owners, theta, strict=True):
        of._parameters[name] = given  # as a functional call leaves it
    Y: Tensor = module(x)
    return Y


def filter_map(x: Tensor, *theta: Tensor) -> Tensor:
    return hypernetwork.filter_map(x, theta, (0, 1), 1e-5)  # type: ignore[arg-type]


def inputs(dtype: torch.dtype) -> dict[str, tuple[Op, list[Tensor]]]:
    """Each op with its tensors."""
    torch.manual_seed(0)
    x, weight, M, bias = (torch.randn(size, dtype=dtype) for size in ((2, 3, 5, 4), (4, 3, 3, 3), (2, 3, 3), (4,)))
    theta = [torch.randn(size, dtype=dtype) for size in ((2, 6), (2,), (9, 2), (9,))]
    return {
        "layer": (layer, [x, weight, bias, *theta]),
        "filtered_conv2d": (filtered_conv2d, [x, weight, M, bias]),
        "filter_map": (filter_map, [x, *theta]),
        "channel_mean_variance": (lambda x: torch.stack(channel_mean_variance(x)), [x]),
    }


OPS = list(inputs(torch.float32))
by_op = pytest.mark.parametrize("name", OPS)


def results(op: Op, tensors: list[Tensor], dY: Callable[[Tensor], Tensor]) -> list[Tensor]:
    leaves = [each.requires_grad_() for each in tensors]
    Y = op(*leaves)
    torch.manual_seed(1)
    return [Y.detach(), *torch.autograd.grad(Y, leaves, dY(torch.randn_like(Y)))]


def same(found: Any, wanted: Any) -> None:
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


# Each gives the same numbers in another way.
WAYS: dict[str, Callable[[Tensor], Tensor]] = {
    "a view that changes signs": lambda t: torch._neg_view(-t),
    "the imaginary part of a conjugate": lambda t: torch.complex(torch.zeros_like(t), -t).conj().imag,
    "of a sub-class": lambda t: t.clone().as_subclass(Sub),
    "a parameter": lambda t: nn.Parameter(t.clone()),
    "begins at an odd address": lambda t: torch.cat([t.new_zeros(1), t.flatten()])[1:].view(t.shape),
    "every other element": lambda t: torch.stack([t, t.cos()], -1)[..., 0],
    "turned": lambda t: t.transpose(-1, -2).contiguous().transpose(-1, -2) if t.dim() > 1 else t.clone(),
}


class Sub(Tensor):
    pass


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@by_op
def test_each_tensor_given_in_another_way_is_the_same(name: str, dtype: torch.dtype, way: str) -> None:
    op, tensors = inputs(dtype)[name]
    wanted = results(op, [each.clone() for each in tensors], lambda dY: dY)
    for place in range(len(tensors)):
        given = [WAYS[way](each.clone()) if i == place else each.clone() for i, each in enumerate(tensors)]
        same([each.as_subclass(Tensor) for each in results(op, given, lambda dY: dY)], wanted)
    same(results(op, [each.clone() for each in tensors], WAYS[way]), wanted)


@pytest.mark.parametrize("way", ["a view that changes signs", "begins at an odd address", "every other element"])
@by_op
def test_compiled_too(name: str, way: str) -> None:
    op, tensors = inputs(torch.float32)[name]
    wanted = results(op, [each.clone() for each in tensors], lambda dY: dY)
    if name == "layer":
        module = SHConv2d(3, 4, 3, padding=1)
        every = [module.weight, module.bias, *module.hyper.parameters()]
        for parameter, value in zip(every, tensors[1:], strict=True):
            parameter.data = WAYS[way](value.clone())
        op, tensors, wanted = module, tensors[:1], wanted[:2]
    whole = torch.compile(op, backend="aot_eager", fullgraph=True)
    same(results(whole, [WAYS[way](each.clone()) for each in tensors], WAYS[way])[: len(wanted)], wanted)


@by_op
def test_a_zero_without_memory_is_a_zero(name: str) -> None:
    op, (x, *others) = inputs(torch.float32)[name]
    zero = torch._efficientzerotensor(x.shape)
    same(op(zero, *others), op(torch.zeros_like(x), *others))
    wanted = results(op, [x, *others], torch.zeros_like)
    same(results(op, [x, *others], lambda dY: torch._efficientzerotensor(dY.shape)), wanted)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@by_op
def test_gradients_in_batches_are_those_one_by_one(name: str, dtype: torch.dtype) -> None:
    op, tensors = inputs(dtype)[name]
    leaves = [each.requires_grad_() for each in tensors]
    Y = op(*leaves)
    rows = torch.eye(Y.numel(), dtype=dtype).view(-1, *Y.shape)[::7]
    each = [torch.autograd.grad(Y, leaves, row, retain_graph=True) for row in rows]
    wanted = [torch.stack(parts) for parts in zip(*each, strict=True)]
    same(list(torch.autograd.grad(Y, leaves, rows, retain_graph=True, is_grads_batched=True)), wanted)
    same(list(vmap(lambda row: torch.autograd.grad(Y, leaves, row, retain_graph=True))(rows)), wanted)


@by_op
def test_a_vectorised_hessian_is_the_other(name: str) -> None:
    op, tensors = inputs(torch.float64)[name]

    def value(x: Tensor) -> Tensor:
        return op(x, *tensors[1:]).sin().sum()

    hessian = torch.autograd.functional.hessian
    same(hessian(value, tensors[0], vectorize=True), hessian(value, tensors[0]))


NO_IMAGES: dict[str, Callable[[Tensor], Tensor]] = {
    "complex64": lambda x: x.to(torch.complex64),
    "float8_e4m3fn": lambda x: x.to(torch.float8_e4m3fn),
    "dense.*sparse_coo": lambda x: x.to_sparse(),
    "dense.*_mkldnn": lambda x: x.to_mkldnn(),
}


@pytest.mark.parametrize("said", NO_IMAGES)
@by_op
def test_what_no_image_can_be_is_refused_and_named(name: str, said: str) -> None:
    op, (x, *others) = inputs(torch.float32)[name]
    with pytest.raises(InputError, match=said):
        op(NO_IMAGES[said](x), *others)


@pytest.mark.parametrize("change", [Tensor.double, lambda bias: bias.to("meta")], ids=["of another dtype", "elsewhere"])
def test_a_bias_that_does_not_fit_is_refused_after_one_that_did(change: Callable[[Tensor], Tensor]) -> None:
    x, module = torch.randn(2, 3, 5, 4), SHConv2d(3, 4, 3)
    module(x)
    module.bias = nn.Parameter(change(module.bias.detach()))  # type: ignore[union-attr]
    with pytest.raises(InputError, match=r"float64|meta"):
        module(x)


def test_a_layer_on_the_meta_device_gives_the_shape() -> None:
    module = SHConv2d(3, 4, 3, stride=2, device="meta")
    Y = module(torch.empty(2, 3, 9, 7, device="meta"))
    assert (Y.shape, Y.device.type) == ((2, 4, 4, 3), "meta")
