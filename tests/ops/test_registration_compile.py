"""torch.compile and torch.export of the op and the layer: whole graphs, any number of images, autocast, copies."""

import copy
import io
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import grad, jvp, vmap

import shconv
from shconv.ops import filtered_conv2d

Function = Callable[..., Any]


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def compiled(function: Function, **options: Any) -> Function:
    """AOTAutograd traces both passes; inductor's code generation is torch's own affair."""
    whole: Function = torch.compile(function, fullgraph=True, backend="aot_eager", **options)
    return whole


def inputs(N: int = 4) -> list[Tensor]:
    """x, weight, map and bias, requiring gradients."""
    shapes = (N, 4, 6, 6), (6, 4, 3, 3), (N, 3, 3), (6,)
    return [torch.randn(shape).requires_grad_() for shape in shapes]


def padded(*tensors: Tensor) -> Tensor:
    return filtered_conv2d(*tensors, padding=1)


@pytest.mark.parametrize(
    ("dynamic", "layout", "sizes"),
    [(True, torch.channels_last, (4, 1, 0, 3)), (None, torch.contiguous_format, (4, 3))],
    ids=str,
)
def test_compiled_whole_it_gives_the_same_for_any_number_of_images(
    dynamic: bool | None, layout: torch.memory_format, sizes: tuple[int, ...]
) -> None:
    function = compiled(padded, dynamic=dynamic)
    for N in sizes:
        x, *rest = inputs(N)
        leaves = [x.detach().contiguous(memory_format=layout).requires_grad_(), *rest]
        Y, expected = function(*leaves), padded(*leaves)
        torch.testing.assert_close(Y, expected)
        dY = torch.randn_like(Y)
        torch.testing.assert_close(torch.autograd.grad(Y, leaves, dY), torch.autograd.grad(expected, leaves, dY))


def test_autocast_reaches_a_compiled_call_from_outside_and_inside() -> None:
    def both(*tensors: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast("cpu", torch.bfloat16):
            low = padded(*tensors)
            with torch.autocast("cpu", enabled=False):
                return low, padded(*tensors)

    leaves = inputs()
    actual, expected = compiled(both)(*leaves), both(*leaves)
    assert [Y.dtype for Y in actual] == [torch.bfloat16, torch.float32]
    torch.testing.assert_close(actual, expected)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(compiled(padded)(*leaves), expected[0])
    gradients = (torch.autograd.grad(low.float().sum(), leaves) for low, _ in (actual, expected))
    torch.testing.assert_close(*gradients)


TRANSFORMS: dict[str, Function] = {
    "gradient": lambda x, w, M, b: grad(lambda x: padded(x, w, M, b).square().sum())(x),
    "tangent": lambda x, w, M, b: jvp(lambda x: padded(x, w, M, b), (x,), (x.cos(),)),
    "per-sample gradients": lambda x, w, M, b: vmap(
        grad(lambda w, x, M: padded(x[None], w, M[None], b).square().sum()), (None, 0, 0)
    )(w, x, M),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_transform_inside_a_compiled_function_is_that_outside(name: str) -> None:
    tensors = [tensor.detach() for tensor in inputs()]
    expected = TRANSFORMS[name](*tensors)
    torch.testing.assert_close(compiled(TRANSFORMS[name])(*tensors), expected, rtol=1e-4, atol=1e-4)


def test_a_second_derivative_of_a_compiled_function_is_an_error() -> None:
    x, *rest = inputs()
    (dX,) = torch.autograd.grad(compiled(padded)(x, *rest).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="double backward"):
        torch.autograd.grad(dX.sum(), x)


class Filtered(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        _, weight, _, bias = inputs()
        self.weight, self.bias = nn.Parameter(weight.detach()), nn.Parameter(bias.detach())

    def forward(self, x: Tensor, M: Tensor) -> Tensor:
        return padded(x, self.weight, M, self.bias)


@pytest.mark.parametrize("strict", [True, False])
def test_an_exported_program_takes_any_number_of_images_and_survives_saving(strict: bool) -> None:
    module, N = Filtered(), torch.export.Dim("N")
    x, _, M, _ = (tensor.detach() for tensor in inputs())
    program = torch.export.export(module, (x, M), dynamic_shapes=({0: N}, {0: N}), strict=strict)
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    loaded = torch.export.load(file).module()
    for images in (1, 2, 4):
        torch.testing.assert_close(loaded(x[:images], M[:images]), module(x[:images], M[:images]))


def test_copies_and_pickles_of_a_compiled_layer_give_its_output() -> None:
    layer = shconv.SHConv2d(4, 6, 3, padding=1)
    x = inputs()[0].detach()
    whole = compiled(layer)
    expected = whole(x)
    torch.testing.assert_close(expected, layer(x))
    for other in (copy.deepcopy(whole), pickle.loads(pickle.dumps(whole)), pickle.loads(pickle.dumps(layer))):
        torch.testing.assert_close(other(x), expected)
