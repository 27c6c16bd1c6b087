"""A whole SHC layer as one op in each direction: statistics, hypernetwork and filtered convolution (section 2.2).
shconv.layers is its definition. Here is how it is called, registered in torch.library, and differentiated.

In plain eager mode the kernels are called with nothing between; what has to see an op (a dispatch mode, torch.compile,
a profiler) sees shconv::layer, and below autograd shconv::layer_forward and shconv::layer_backward.
"""

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from shconv.errors import InputError
from shconv.ops import hypernetwork, kept, registration
from shconv.ops.cpu import layer as cpu
from shconv.ops.cuda import launches, replay, runtime
from shconv.ops.derivatives import convolve
from shconv.ops.geometry import Geometry, check, check_hypernetwork
from shconv.ops.modes import autocast_off, autocasting, cast, direct, exporting, refuse_tangents, transforming

Theta = tuple[Tensor, Tensor, Tensor, Tensor]  # W1 (K, F), b1 (K,), W2 (T, K), b2 (T,)
Order = tuple[int, ...]  # what W1 (K, len(order) * D) looks at, in its order: 0 the means, 1 the deviations
Numbers = tuple[Geometry, Order, float]  # the last is eps
Inputs = tuple[Tensor, ...]  # x, the weight, W1, b1, W2, b2, and the bias where there is one

_TENSORS = (Tensor, torch.nn.Parameter)


def serves(x: Tensor) -> bool:
    """Whether the op computes what its definition does here. It does not in transforms, for tensors that are more than
    tensors, on other devices, and where autocast rounds for the convolution what the statistics see as it is. An
    exported program is made of the definition, for others to read."""
    if type(x) not in _TENSORS or not (x.is_cpu or x.is_cuda) or transforming() or exporting():
        return False
    kind = "cpu" if x.is_cpu else "cuda"
    return not torch.is_autocast_enabled(kind) or x.dtype == torch.get_autocast_dtype(kind)


def _left_over(x: Tensor) -> bool:
    """Whether x is a transform's, kept after its end: it has no memory of its own."""
    return torch._C._functorch.is_functorch_wrapped_tensor(x)


def shc_conv2d(
    x: Tensor, weight: Tensor, bias: Tensor | None, theta: Theta, geometry: Geometry, order: Order, eps: float
) -> Tensor:
    """Y (N, C, H', W') of x (N, D, H, W), weight (C, D / groups, S_h, S_w), bias (C,), and theta, which makes the maps.

    Y_n = conv(X_n, W * M_n), M_n = sigmoid(W2 relu(W1 s_n + b1) + b2), s_n = [mu, sigma] of the channels of X_n,
    sigma = sqrt(population variance + eps). Differentiable any number of times. For x that it serves.

    Raises:
        InputError: shapes, dtypes or devices do not fit.
    """
    at_once = direct() and type(weight) in _TENSORS and not _left_over(x)
    if weight.dtype != x.dtype:
        if not autocasting(x):
            raise InputError(f"a layer's input and weight must be of one dtype, got {x.dtype} and {weight.dtype}")
        if not (at_once and _rounds(x, weight)):
            weight, bias = cast(weight, x.dtype), None if bias is None else cast(bias, x.dtype)
    Y: Tensor
    if not at_once:
        Y = torch.ops.shconv.layer.default(x, weight, bias, *theta, *geometry, order, eps)
        return Y
    inputs, numbers = _inputs(x, weight, bias, *theta), (geometry, order, eps)
    Y = _apply(*inputs, numbers) if torch.is_grad_enabled() else _compute(inputs, numbers, False)[0]
    return Y


def _rounds(x: Tensor, weight: Tensor) -> bool:
    """Whether the kernels take a weight that autocast would round for them: a launch of theirs takes less than an
    operation of torch's, and no gradient has to be rounded and widened again."""
    return x.is_cuda and x.element_size() == 2 and weight.dtype == torch.float32


def _compute(inputs: Inputs, numbers: Numbers, keep: bool) -> tuple[Tensor, ...]:
    """Y, and with keep what the way back needs (kept.py)."""
    x = inputs[0]
    if x.is_cuda:
        return replay.call(_forward, inputs, *numbers, keep)
    if plan := cpu.plan(inputs, *numbers):
        return plan.forward(inputs, keep)
    return _forward(inputs, *numbers, keep)


def _forward(inputs: Inputs, geometry: Geometry, order: Order, eps: float, keep: bool) -> tuple[Tensor, ...]:
    """Part by part."""
    x, weight, W1, b1, W2, b2, *bias = inputs
    theta, rounds = (W1, b1, W2, b2), _rounds(x, weight)
    check_hypernetwork(x, theta, order, weight[:1, :1].numel())
    check(x, weight, x.new_empty(len(x), *weight.shape[2:]), bias[0] if bias else None, geometry, rounds)
    whole, parts = None, None
    if keep:
        whole = x.new_empty(kept.count(x, weight, W1, W2, rounds), dtype=kept.dtype(x))
        parts = kept.parts(whole, x, weight, W1, W2, rounds)
    M, _, _ = hypernetwork.compute(x, theta, order, eps, parts and parts[:3])
    W = _rounded(weight, x, theta, parts and parts.weight) if rounds else weight
    Y = registration.compute(x, W, M.view(-1, *weight.shape[2:]), geometry, "auto")
    Y = Y.add_(bias[0].to(Y.dtype)[:, None, None]) if bias else Y
    return (Y,) if whole is None else (Y, whole)


def _rounded(weight: Tensor, x: Tensor, theta: Theta, into: Tensor | None) -> Tensor:
    """The weight in x's dtype, channels last. into: memory for it."""
    if not hypernetwork.by_kernels(x, theta) or weight.numel() >= runtime.COUNTED:
        return weight.to(x.dtype, memory_format=torch.channels_last) if into is None else into.copy_(weight)
    from shconv.ops.cuda import rounding

    return rounding.rounded(weight, x.dtype, into)


def _gradients(dY: Tensor, saved: Inputs, numbers: Numbers, mask: cpu.Mask) -> tuple[Tensor | None, ...]:
    """The gradients of the inputs; None for each that is not wanted. saved: the inputs and what was kept."""
    if dY.is_cuda:
        return replay.call(_backward, (dY, *saved), *numbers, mask)
    *inputs, whole = saved
    if plan := cpu.plan(inputs, *numbers):
        return plan.backward(dY, inputs, whole, mask)
    return _backward((dY, *saved), *numbers, mask)


def _backward(
    tensors: Inputs, geometry: Geometry, order: Order, eps: float, mask: cpu.Mask
) -> tuple[Tensor | None, ...]:
    """Part by part. tensors: dY, the inputs, what was kept."""
    dY, *inputs, whole = tensors
    x, weight, W1, b1, W2, b2, *bias = inputs
    of_x, of_weight, of_bias, of_theta = mask
    theta = W1, b1, W2, b2
    M, seen, hidden, rounded = kept.parts(whole, x, weight, W1, W2, _rounds(x, weight))
    W, maps = weight if rounded is None else rounded, M.view(-1, *weight.shape[2:])
    together = of_x and of_weight and hypernetwork.by_kernels(x, theta)
    join = launches.joined(dY, x, W, maps, geometry) if together else None
    needs = (of_x and join is None, of_weight, of_x or of_theta)
    dX, dW, dM = registration.gradients(dY, x, W, maps, geometry, "auto", needs, weight.dtype)
    dtheta: Sequence[Tensor | None] = (None,) * 4
    if of_x or of_theta:
        assert dM is not None
        dX, *dtheta = hypernetwork.gradients(dM.flatten(1), x, M, seen, hidden, theta, order, of_x, of_theta, dX, join)
    dW = None if dW is None else registration.like(dW, weight)  # W may lie in another way
    found = dX, dW, *dtheta, *([dY.sum((0, 2, 3)) if of_bias else None] if bias else [])
    return tuple(None if g is None else g.to(of.dtype) for g, of in zip(found, inputs, strict=True))


def _again(dY: Tensor, inputs: Inputs, numbers: Numbers, needs: Sequence[bool]) -> list[Tensor | None]:
    """The gradients where they will themselves be differentiated: through the layer's definition, once more."""
    (x, weight, *theta), bias, (geometry, order, eps) = inputs[:6], inputs[6:], numbers
    with autocast_off(x):
        M, _, _ = hypernetwork.plain(x, tuple(theta), order, eps)  # type: ignore[arg-type]
        Y = convolve(x, weight.to(x.dtype), M.view(-1, *weight.shape[2:]), *geometry, "auto")
        Y = Y + bias[0].to(x.dtype)[:, None, None] if bias else Y
    wanted = [each for each, needed in zip(inputs, needs, strict=True) if needed]
    found = iter(torch.autograd.grad(Y, wanted, dY, create_graph=True))
    return [next(found) if needed else None for needed in needs]


class _Direct(torch.autograd.Function):
    """The op in plain eager mode: of its inputs, and its numbers."""

    @staticmethod
    def forward(ctx: Any, *given: Any) -> Tensor:
        *inputs, ctx.numbers = given
        Y, whole = _compute(tuple(inputs), ctx.numbers, True)
        ctx.save_for_backward(*inputs, whole)
        return Y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return *_derivative(ctx, gradients[0]), None


# torch's own, which transforms do not ask for: the Python around it unwraps their tensors
_apply = super(torch.autograd.Function, _Direct).apply


def _derivative(ctx: Any, dY: Tensor) -> Sequence[Tensor | None]:
    """The gradients of the inputs."""
    saved, needs = ctx.saved_tensors, ctx.needs_input_grad[:-1]
    if torch.is_grad_enabled():
        return _again(dY, saved[:-1], ctx.numbers, needs)
    of_x, of_weight, of_W1, of_b1, of_W2, of_b2, *of_bias = needs
    mask = of_x, of_weight, True in of_bias, of_W1 or of_b1 or of_W2 or of_b2
    if direct():
        return _gradients(dY, saved, ctx.numbers, mask)
    *inputs, whole = saved
    geometry, order, eps = ctx.numbers
    found = torch.ops.shconv.layer_backward.default(dY, *_given(inputs), whole, _told(geometry, order), eps, mask)
    given = iter(found)
    every = [next(given) if wanted else None for wanted in _wanted(mask)[: len(inputs)]]
    return [each if needed else None for each, needed in zip(every, needs, strict=True)]


# in torch.library


_library = torch.library.Library("shconv", "FRAGMENT")
_INPUTS = "Tensor x, Tensor weight, Tensor? bias, Tensor W1, Tensor b1, Tensor W2, Tensor b2"
_library.define(
    f"layer({_INPUTS}, SymInt[] stride, SymInt[] padding, SymInt[] dilation, SymInt groups, int[] order, float eps) "
    "-> Tensor"
)
# What runs in a compiled graph. It costs what the dispatcher makes of its arguments: half a microsecond each list, and
# eight where a gradient is registered in Python. So the numbers are one string, and `layer` has the gradient.
_EXACT = (torch.Tag.needs_exact_strides,)  # Inductor gives its inputs as they were traced, so in no other layout
_library.define(f"layer_forward({_INPUTS}, str numbers, float eps, bool keep) -> Tensor[]", tags=_EXACT)
_library.define(
    f"layer_backward(Tensor dY, {_INPUTS}, Tensor kept, str numbers, float eps, bool[] mask) -> Tensor[]", tags=_EXACT
)


def _given(inputs: Sequence[Tensor]) -> tuple[Tensor | None, ...]:
    """As the ops take them."""
    x, weight, W1, b1, W2, b2, *bias = inputs
    return x, weight, bias[0] if bias else None, W1, b1, W2, b2


def _inputs(x: Tensor, weight: Tensor, bias: Tensor | None, *theta: Tensor) -> Inputs:
    """The other way about."""
    return (x, weight, *theta) if bias is None else (x, weight, *theta, bias)


def _wanted(mask: Sequence[bool]) -> tuple[bool, ...]:
    """For each input, a bias with them."""
    of_x, of_weight, of_bias, of_theta = mask
    return of_x, of_weight, *[of_theta] * 4, of_bias


def _layer(*given: Any) -> Tensor:
    *tensors, stride, padding, dilation, groups, order, eps = given
    geometry = registration.geometry(stride, padding, dilation, groups)
    if torch.is_grad_enabled() and any(each is not None and each.requires_grad for each in tensors):
        Y: Tensor = _Dispatched.apply(*_inputs(*tensors), (geometry, tuple(order), eps))
    else:
        (Y,) = torch.ops.shconv.layer_forward.default(*tensors, _told(geometry, order), eps, False)
    return Y


class _Dispatched(_Direct):
    """The op where somebody looks."""

    @staticmethod
    def forward(ctx: Any, *given: Any) -> Tensor:
        *inputs, ctx.numbers = given
        geometry, order, eps = ctx.numbers
        Y: Tensor
        Y, whole = torch.ops.shconv.layer_forward.default(*_given(inputs), _told(geometry, order), eps, True)
        ctx.save_for_backward(*inputs, whole)
        return Y


def _told(geometry: Geometry, order: Sequence[int]) -> str:
    stride, padding, dilation, groups = geometry
    return " ".join(str(int(each)) for each in (*stride, *padding, *dilation, groups, *order))


@functools.cache
def _numbers(told: str) -> tuple[Geometry, Order]:
    a, b, c, d, e, f, groups, *order = map(int, told.split())
    return Geometry((a, b), (c, d), (e, f), groups), tuple(order)


def _kernel(*given: Any) -> list[Tensor]:
    """[Y], or [Y, what is kept]."""
    refuse_tangents()
    *tensors, numbers, eps, keep = given
    return list(_compute(_inputs(*tensors), (*_numbers(numbers), eps), keep))


def _fake(x: Tensor, weight: Tensor, bias: Any, W1: Tensor, b1: Any, W2: Tensor, *others: Any) -> list[Tensor]:
    *_, numbers, _, keep = others
    Y = registration.output(x, weight, _numbers(numbers)[0])
    rounds = _rounds(x, weight)
    return [Y, x.new_empty(kept.count(x, weight, W1, W2, rounds), dtype=kept.dtype(x))] if keep else [Y]


def _backward_kernel(dY: Tensor, *given: Any) -> list[Tensor]:
    """The gradients that mask asks for, no others: of x, the weight, theta, the bias."""
    refuse_tangents()
    *tensors, whole, numbers, eps, mask = given
    found = _gradients(dY, (*_inputs(*tensors), whole), (*_numbers(numbers), eps), tuple(mask))
    return [each for each in found if each is not None]


def _backward_fake(dY: Tensor, *given: Any) -> list[Tensor]:
    *tensors, _, _, _, mask = given
    wanted = zip(_inputs(*tensors), _wanted(mask), strict=False)
    return [registration.like(torch.empty_like(of), of) for of, needed in wanted if needed]


_library.impl("layer", _layer, "CompositeImplicitAutograd")
_library.impl("layer_forward", _kernel, "CompositeExplicitAutograd")
_library.impl("layer_backward", _backward_kernel, "CompositeExplicitAutograd")
torch.library.register_fake("shconv::layer_forward", _fake, lib=_library)
torch.library.register_fake("shconv::layer_backward", _backward_fake, lib=_library)
