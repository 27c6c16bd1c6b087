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

from shconv.ops import registration
from shconv.ops.geometry import Geometry
from shconv.ops.modes import transforming
from shconv.ops.plain import grouped

Tensors = tuple[Tensor, ...]
Changes = Sequence[Tensor | None]


def convolve(*inputs: Any) -> Tensor:
    """Y: registration.forward's arguments and result."""
    Y: Tensor
    if not transforming():
        Y = registration.forward(*inputs)
    elif not torch.compiler.is_compiling():
        Y = _Forward.apply(*inputs)
    else:  # torch.compile takes no autograd.Function that has a jvp: the formulation made of torch's own operations
        x, weight, M, stride, padding, dilation, groups, _ = inputs
        Y = grouped.forward(x, weight, M, Geometry(stride, padding, dilation, groups))
    return Y


def gradients(*inputs: Any) -> Tensors:
    """(dX, dW, dM): registration.backward's arguments and results."""
    results: Tensors = _Backward.apply(*inputs) if transforming() else registration.backward(*inputs)
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
    forward = staticmethod(registration.forward)
    setup_context = staticmethod(_setup_forward)
    backward = staticmethod(_forward_vjp)
    jvp = staticmethod(_forward_jvp)
    vmap = staticmethod(functools.partial(_forward_vmap, convolve))


class _Backward(torch.autograd.Function):
    forward = staticmethod(registration.backward)
    setup_context = staticmethod(_setup_backward)
    backward = staticmethod(_backward_vjp)
    jvp = staticmethod(_backward_jvp)
    vmap = staticmethod(functools.partial(_backward_vmap, gradients))


for _op, _vjp, _setup, _vmap in (
    (registration.forward, _forward_vjp, _setup_forward, _forward_vmap),
    (registration.backward, _backward_vjp, _setup_backward, _backward_vmap),
):
    _op.register_autograd(_vjp, setup_context=_setup)
    _op.register_vmap(functools.partial(_vmap, _op))
