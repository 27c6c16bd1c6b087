"""How our ops pass torch's dispatcher, at little cost: what runs in a compiled graph has no gradient registered in
Python, which takes 8 us a call, and all that is no tensor is one string, because every list takes half a microsecond.

An op is three in torch.library. shconv::name is what tracers and profilers see; an autograd.Function differentiates it.
Below autograd shconv::name_forward and shconv::name_backward compute, and a compiled graph calls these two.
In plain eager mode the kernels are called with nothing between.
"""

import functools
import json
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map, tree_map_only

from shconv.ops.geometry import Geometry, like
from shconv.ops.modes import TENSORS, direct, is_plain, refuse_tangents

Tensors = tuple[Tensor, ...]
Found = Sequence[Tensor | None]
Forward = Callable[..., Sequence[Tensor]]
Numbers = tuple[Any, ...]  # all that is no tensor, hashable; the four of a convolution as one Geometry

_library = torch.library.Library("shconv", "FRAGMENT")
_EXACT = (torch.Tag.needs_exact_strides,)  # Inductor gives its inputs as they were traced, so in no other layout
_TYPES = set(TENSORS)
_TRACED = 2  # to be raised where what is traced of the ops changes and no schema does


class Op:
    """Of a schema: tensors, then numbers. A last tensor that may be None is left out where it is.

    results: the names of what it gives. kept: of what the way back needs beside the inputs.
    forward(inputs, numbers, keep) -> the results; and where they are to be kept, others that kept names.
    shapes: forward's arguments and results, whose elements mean nothing.
    backward(gradients of the results, (*inputs, *kept), numbers, mask) -> a gradient for each input that mask asks for,
    anything for the others. again(gradients, inputs, numbers, mask): where those will themselves be differentiated.

    torch keeps compiled graphs on disk, for all that call the same ops with the same numbers: the last number, version,
    changes with what they become below autograd.
    """

    def __init__(
        self, schema: str, results: tuple[str, ...], kept: tuple[str, ...] = (), *,
        forward: Forward, shapes: Callable[..., Sequence[Tensor]],
        backward: Callable[..., Found], again: Callable[..., Found],
    ) -> None:  # fmt: skip
        head, _, returns = schema.partition(") -> ")
        self.name, _, given = head.partition("(")
        tensors = [each for each in given.split(", ") if each.startswith("Tensor")]
        found = [*results, *(each for each in kept if each not in results)]
        first = found.index(kept[0]) if kept else 0
        self.results, self.kept, self.tensors = len(results), slice(first, first + len(kept)), len(tensors)
        self.forward, self.shapes, self.backward, self.again = forward, shapes, backward, again
        self._given, self._geometric = len(given.split(", ")), "stride" in given
        self._read = functools.cache(self._read_once)
        every = [*(f"Tensor d{each}" for each in results), *tensors, *(f"Tensor {each}" for each in kept)]
        self._version = zlib.crc32(repr((_TRACED, schema, tensors, every)).encode()) // 2
        _library.define(f"{head}, int version=0) -> {returns}")
        _library.impl(self.name, self._differentiable, "CompositeImplicitAutograd")
        _vectorise(self.name)
        self._define("forward", tensors, forward, shapes)
        self._define("backward", every, self._wanted, self._wanted_shapes)

    def __call__(self, inputs: Tensors, numbers: Numbers) -> Any:
        """The results, differentiable."""
        return (self.at_once if kernels_may_have(inputs) else self.dispatched)(inputs, numbers)

    def at_once(self, inputs: Tensors, numbers: Numbers, forward: Forward | None = None) -> Any:
        """The results of inputs that kernels may have. forward: one that is known to serve these."""
        forward = forward or self.forward
        if torch.is_grad_enabled():
            return _apply(self, numbers, forward, *inputs)
        found = forward(inputs, numbers, False)
        return found[0] if self.results == 1 else tuple(found)

    def dispatched(self, inputs: Tensors, numbers: Numbers) -> Any:
        """The results, with torch's dispatcher between."""
        flat = (*numbers[0], *numbers[1:]) if self._geometric else numbers
        op = getattr(torch.ops.shconv, self.name).default
        return op(*inputs, *self._none(inputs), *flat, self._version)

    def compute(self, inputs: Tensors, numbers: Numbers) -> Any:
        """The results, below autograd."""
        found = (self.forward if kernels_may_have(inputs) else self._forward)(inputs, numbers, False)
        return found[0] if self.results == 1 else tuple(found)

    def gradients(self, gradients: Tensors, saved: Tensors, numbers: Numbers, mask: Sequence[bool]) -> Found:
        """What backward gives, below autograd."""
        at_once = kernels_may_have((*gradients, *saved))
        return (self.backward if at_once else self._backward)(gradients, saved, numbers, mask)

    def _none(self, inputs: Tensors) -> list[None]:
        return [None] * (self.tensors - len(inputs))

    def _forward(self, inputs: Tensors, numbers: Numbers, keep: bool) -> Sequence[Tensor]:
        """forward, through the dispatcher."""
        op = getattr(torch.ops.shconv, f"{self.name}_forward").default
        found: Sequence[Tensor] = op(*inputs, *self._none(inputs), tell(numbers, keep))
        return found

    def _backward(self, gradients: Tensors, saved: Tensors, numbers: Numbers, mask: Sequence[bool]) -> Found:
        """backward, through the dispatcher."""
        op = getattr(torch.ops.shconv, f"{self.name}_backward").default
        inputs, kept = saved[: len(mask)], saved[len(mask) :]
        found = iter(op(*gradients, *inputs, *self._none(inputs), *kept, tell(numbers, tuple(mask))))
        return [next(found) if needed else None for needed in mask]

    # what torch.library calls

    def _define(self, direction: str, tensors: Sequence[str], compute: Any, shapes: Any) -> None:
        def kernel(*given: Any) -> list[Tensor]:
            refuse_tangents()
            return list(compute(_there(given[:-1]), *self._read(given[-1])))

        def fake(*given: Any) -> list[Tensor]:
            return list(shapes(_there(given[:-1]), *self._read(given[-1])))

        name = f"{self.name}_{direction}"
        _library.define(f"{name}({', '.join(tensors)}, str told) -> Tensor[]", tags=_EXACT)
        _library.impl(name, kernel, "CompositeExplicitAutograd")
        torch.library.register_fake(f"shconv::{name}", fake, lib=_library)
        _vectorise(name)

    def _differentiable(self, *given: Any) -> Any:
        inputs = _there(given[: self.tensors])
        numbers = _fixed(given[self.tensors : self._given])  # torch leaves a version of 0 out
        numbers = (Geometry(*numbers[:4]), *numbers[4:]) if self._geometric else numbers
        if torch.is_grad_enabled() and any(each.requires_grad for each in inputs):
            return _Function.apply(self, numbers, None, *inputs)
        found = self._forward(inputs, numbers, False)
        return found[0] if self.results == 1 else tuple(found)

    def _wanted(self, tensors: Tensors, numbers: Numbers, mask: Sequence[bool]) -> Sequence[Tensor]:
        """The gradients that mask asks for, no others."""
        found = self.backward(tensors[: self.results], tensors[self.results :], numbers, mask)
        return [each for each, needed in zip(found, mask, strict=True) if needed and each is not None]

    def _wanted_shapes(self, tensors: Tensors, numbers: Numbers, mask: Sequence[bool]) -> Sequence[Tensor]:
        of = zip(tensors[self.results :], mask, strict=False)
        return [like(torch.empty_like(each), each) for each, needed in of if needed]

    def _read_once(self, told: str) -> tuple[Numbers, Any]:
        numbers, more = _fixed(json.loads(told))
        return (Geometry(*numbers[0]), *numbers[1:]) if self._geometric else numbers, more


class _Function(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, op: Op, numbers: Numbers, at_once: Forward | None, *inputs: Tensor) -> Any:
        found = (at_once or op._forward)(inputs, numbers, True)
        ctx.op, ctx.numbers, ctx.at_once = op, numbers, at_once is not None
        ctx.hooked = torch._C._autograd._top_saved_tensors_default_hooks(True) is not None  # which give what they like
        ctx.save_for_backward(*inputs, *found[op.kept])
        return found[0] if op.results == 1 else tuple(found[: op.results])

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        op, saved, mask = ctx.op, ctx.saved_tensors, ctx.needs_input_grad[3:]
        if torch.is_grad_enabled():
            found = op.again(gradients, saved[: len(mask)], ctx.numbers, mask)
        else:
            at_once = ctx.at_once and kernels_may_have((*gradients, *saved) if ctx.hooked else gradients)
            found = (op.backward if at_once else op._backward)(gradients, saved, ctx.numbers, mask)
        return None, None, None, *found


# torch's own, which transforms do not ask for: the Python around it unwraps their tensors
_apply = super(torch.autograd.Function, _Function).apply


def kernels_may_have(tensors: Tensors, parameters: Tensors = ()) -> bool:
    """Whether kernels may have the tensors with nothing between. A module's parameters are looked at for what has an
    address that says too little, sub-classes and views that change signs: less than half of the time."""
    return (
        direct()
        and all(map(is_plain, tensors))
        and _TYPES.issuperset(map(type, parameters))
        and not any(map(Tensor.is_neg, parameters))
    )


def differentiated(result: Tensor, inputs: Tensors, gradient: Tensor, mask: Sequence[bool]) -> list[Tensor | None]:
    """The gradients of the inputs that mask asks for, to be differentiated again."""
    wanted = [each for each, needed in zip(inputs, mask, strict=True) if needed]
    found = iter(torch.autograd.grad(result, wanted, gradient, create_graph=True))
    return [next(found) if needed else None for needed in mask]


def _vectorise(name: str) -> None:
    """One call for each entry, in torch.func.vmap and where torch.autograd takes a batch of gradients."""

    def entries(size: int, inputs: Sequence[Any], dims: Sequence[Any]) -> Any:
        op, pairs = getattr(torch.ops.shconv, name).default, list(zip(inputs, dims, strict=True))
        found = [
            op(*(each.select(dim, i) if isinstance(dim, int) else each for each, dim in pairs)) for i in range(size)
        ]
        return tree_map(lambda *each: torch.stack(each), *found)

    def of_vmap(info: Any, dims: Sequence[Any], *inputs: Any) -> tuple[Any, Any]:
        found = entries(info.batch_size, inputs, dims)
        return found, tree_map(lambda _: 0, found)

    def of_autograd(*inputs: Any) -> Any:
        level = torch._C._vmapmode_decrement_nesting() + 1
        try:  # with a first dimension of 1 where a tensor is no batch
            whole = tree_map_only(Tensor, lambda each: torch._remove_batch_dim(each, level, 1, 0), inputs)
            size = max(len(each) for each in whole if isinstance(each, Tensor))
            whole = tree_map_only(Tensor, lambda each: each.expand(size, *each.shape[1:]), whole)
            found = entries(size, whole, [0 if isinstance(each, Tensor) else None for each in whole])
        finally:
            torch._C._vmapmode_increment_nesting()
        return tree_map(lambda each: torch._add_batch_dim(each, 0, level), found)

    torch.library.register_vmap(f"shconv::{name}", of_vmap, lib=_library)
    _library.impl(name, of_autograd, "Batched")


def _there(tensors: Sequence[Tensor | None]) -> Tensors:
    return tuple([each for each in tensors if each is not None])


def _fixed(value: Any) -> Any:
    """What the dispatcher or JSON gives, hashable."""
    if isinstance(value, torch.SymInt):
        return int(value)
    return tuple(map(_fixed, value)) if isinstance(value, list | tuple) else value


@functools.cache
def tell(numbers: Numbers, more: Any) -> str:
    """What an op below autograd is told beside tensors. more: whether it keeps, or which gradients it gives."""
    return json.dumps((numbers, more))


def told(numbers: str) -> Any:
    """That more."""
    return json.loads(numbers)[1]
