"""How the op is differentiated, any number of times in either direction, and vectorised by torch.func.vmap.

<dY, Y(x, W, M)> is linear in each of dY, x, W and M. So every derivative of the two ops, of any order, is a sum of the
two ops with some of their inputs replaced, at their speed and by the same formulation.
"""

import functools
import operator
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from shconv.ops import choice
from shconv.ops.modes import transforming
from shconv.ops.plain import grouped
from shconv.ops.registration import Numbers, Op

Tensors = tuple[Tensor, ...]
Changes = Sequence[Tensor | None]


def convolve(*inputs: Any) -> Tensor:
    """Y (N, C, H', W') of x (N, D, H, W), weight (C, D / groups, S_h, S_w), M (N, S_h, S_w), geometry, formulation."""
    Y: Tensor
    if not transforming():
        Y = _op(inputs[:3], inputs[3:])
    elif not torch.compiler.is_compiling():
        Y = _Forward.apply(*inputs)
    else:  # torch.compile takes no autograd.Function that has a jvp: the formulation made of torch's own operations
        Y = grouped.forward(*inputs[:4])
    return Y


def gradients(*inputs: Any) -> Tensors:
    """(dX, dW, dM) of (dY, x, weight, M, geometry, formulation, mask); an empty tensor for each that mask does not ask
    for. Differentiable."""
    results: Tensors = _Backward.apply(*inputs)
    return results


# derivatives


def _setup_forward(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:3])
    ctx.save_for_forward(*inputs[:3])
    ctx.set_materialize_grads(False)
    ctx.arguments = inputs[3:]


def _forward_vjp(ctx: Any, dY: Tensor | None) -> tuple[Tensor | None, ...]:
    mask = list(ctx.needs_input_grad[:3])
    results: Changes = [None] * 3 if dY is None else gradients(dY, *ctx.saved_tensors, *ctx.arguments, mask)
    wanted = (gradient if needed else None for gradient, needed in zip(results, mask, strict=True))
    return (*wanted, *[None] * len(ctx.arguments))


def _forward_jvp(ctx: Any, *tangents: Tensor | None) -> Tensor | None:
    with _outer_levels(ctx) as tensors:
        return _sum(convolve(*changed, *ctx.arguments) for _, changed in _replaced(tensors, tangents[:3]))


def _setup_backward(ctx: Any, inputs: tuple[Any, ...], output: Tensors) -> None:
    ctx.save_for_backward(*inputs[:4])
    ctx.save_for_forward(*inputs[:4])
    ctx.set_materialize_grads(False)
    *ctx.arguments, ctx.mask = inputs[4:]


def _backward_vjp(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
    asked = [change if needed else None for change, needed in zip(cotangents, ctx.mask, strict=True)]
    changed_inputs = _replaced(ctx.saved_tensors[1:], asked) if ctx.needs_input_grad[0] else ()
    ddY = _sum(convolve(*changed, *ctx.arguments) for _, changed in changed_inputs)
    changes = _changes(ctx.saved_tensors, [None, *asked], ctx.arguments, ctx.needs_input_grad[1:4])
    return (ddY, *changes, *[None] * (len(ctx.arguments) + 1))


def _backward_jvp(ctx: Any, *tangents: Tensor | None) -> Tensors:
    with _outer_levels(ctx) as tensors:
        changes = _changes(tensors, tangents[:4], ctx.arguments, ctx.mask)
        outputs = zip(changes, tensors[1:], ctx.mask, strict=True)
        return tuple(_tangent(change, of, needed) for change, of, needed in outputs)


def _tangent(change: Tensor | None, of: Tensor, needed: bool) -> Tensor:
    """torch.func wants one for every output, also where nothing changes."""
    if change is not None:
        return change
    return torch.zeros_like(of) if needed else of.new_empty(0)


def _changes(tensors: Tensors, changes: Changes, arguments: Any, mask: Sequence[bool]) -> tuple[Tensor | None, ...]:
    """How the gradients by x, W and M that mask asks for change with (dY, x, W, M): each of them does not depend on
    the tensor that it is the gradient of."""
    parts: tuple[list[Tensor], ...] = ([], [], [])
    for i, changed in _replaced(tensors, changes):
        wanted = [needed and j + 1 != i for j, needed in enumerate(mask)]
        if any(wanted):
            for j, gradient in enumerate(gradients(*changed, *arguments, wanted)):
                if wanted[j]:
                    parts[j].append(gradient)
    return tuple(_sum(each) for each in parts)


@contextmanager
def _outer_levels(ctx: Any) -> Iterator[Tensors]:
    """The saved tensors for a jvp. torch switches forward mode off around it, which would drop the tangents of the
    outer of two levels: so it is on again, and the tensors are without the tangents of their own level."""
    with forward_ad._set_fwd_grad_enabled(True):
        yield tuple(forward_ad.unpack_dual(tensor).primal for tensor in ctx.saved_tensors)


def _replaced(tensors: Tensors, changes: Changes) -> Iterator[tuple[int, Tensors]]:
    """For every change its place, and the tensors with the change in that place."""
    for i, change in enumerate(changes):
        if change is not None:
            yield i, (*tensors[:i], change, *tensors[i + 1 :])


def _sum(parts: Any) -> Tensor | None:
    parts = list(parts)
    return functools.reduce(operator.add, parts) if parts else None


# vmap, by the op that takes the folded batch


def _forward_vmap(op: Callable[..., Tensor], info: Any, in_dims: Any, *inputs: Any) -> tuple[Tensor, int]:
    """A filter map belongs to an image: entries that share the weight are one batch of images. Entries with weights of
    their own are one call each."""
    tensors, arguments = inputs[:3], inputs[3:]
    if in_dims[1] is None:
        x, M = (_entries(info.batch_size, tensors[i], in_dims[i]) for i in (0, 2))
        Y = op(x.flatten(0, 1), tensors[1], M.flatten(0, 1), *arguments)
        return Y.unflatten(0, x.shape[:2]), 0
    each = zip(*(_entries(info.batch_size, tensor, in_dims[i]) for i, tensor in enumerate(tensors)), strict=True)
    return torch.stack([op(*entry, *arguments) for entry in each]), 0


def _backward_vmap(op: Callable[..., Tensors], info: Any, in_dims: Any, *inputs: Any) -> tuple[Tensors, Any]:
    """As in the forward direction; but a gradient of the weight for each entry takes one call each, too."""
    tensors, arguments, mask = inputs[:4], inputs[4:], inputs[-1]
    if in_dims[2] is None and not mask[1]:
        dY, x, M = (_entries(info.batch_size, tensors[i], in_dims[i]) for i in (0, 1, 3))
        dX, dW, dM = op(dY.flatten(0, 1), x.flatten(0, 1), tensors[2], M.flatten(0, 1), *arguments)
        dX, dM = (each.unflatten(0, x.shape[:2]) if needed else each for each, needed in ((dX, mask[0]), (dM, mask[2])))
        return (dX, dW, dM), (0 if mask[0] else None, None, 0 if mask[2] else None)
    each = zip(*(_entries(info.batch_size, tensor, in_dims[i]) for i, tensor in enumerate(tensors)), strict=True)
    results = [op(*entry, *arguments) for entry in each]
    return tuple(torch.stack(parts) for parts in zip(*results, strict=True)), (0, 0, 0)


def _entries(size: int, tensor: Tensor, dim: int | None) -> Tensor:
    """The tensor with the dimension that vmap runs over in front, repeated where all entries share it."""
    return tensor.expand(size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)


class _Forward(torch.autograd.Function):
    @staticmethod
    def forward(*inputs: Any) -> Tensor:
        Y: Tensor = _op.compute(inputs[:3], inputs[3:])
        return Y

    setup_context = staticmethod(_setup_forward)
    backward = staticmethod(_forward_vjp)
    jvp = staticmethod(_forward_jvp)
    vmap = staticmethod(functools.partial(_forward_vmap, convolve))


class _Backward(torch.autograd.Function):
    @staticmethod
    def forward(*inputs: Any) -> Tensors:
        found = _op.gradients(inputs[:1], inputs[1:4], inputs[4:-1], inputs[-1])
        return tuple(inputs[0].new_empty(0) if each is None else each for each in found)

    setup_context = staticmethod(_setup_backward)
    backward = staticmethod(_backward_vjp)
    jvp = staticmethod(_backward_jvp)
    vmap = staticmethod(functools.partial(_backward_vmap, gradients))


# in torch.library


def _compute(inputs: Tensors, numbers: Numbers, keep: bool) -> Tensors:
    x, weight, M = inputs
    return (choice.compute(x, weight, M, *numbers),)


def _shapes(inputs: Tensors, numbers: Numbers, keep: bool) -> Tensors:
    x, weight, _ = inputs
    return (choice.output(x, weight, numbers[0]),)


def _gradients(cotangents: Tensors, inputs: Tensors, numbers: Numbers, mask: Sequence[bool]) -> Changes:
    (dY,), (x, weight, M), (geometry, formulation) = cotangents, inputs, numbers
    return choice.gradients(dY, x, weight, M, geometry, formulation, mask)


def _again(cotangents: Tensors, inputs: Tensors, numbers: Numbers, mask: Sequence[bool]) -> Changes:
    return gradients(*cotangents, *inputs, *numbers, mask)


_op = Op(
    "filtered_conv2d(Tensor x, Tensor weight, Tensor filter_map, SymInt[] stride, SymInt[] padding, "
    "SymInt[] dilation, SymInt groups, str formulation) -> Tensor",
    results=("Y",), forward=_compute, shapes=_shapes, backward=_gradients, again=_again,
)  # fmt: skip
