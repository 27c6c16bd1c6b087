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
from shconv.ops import hypernetwork, registration
from shconv.ops.cpu import layer as cpu
from shconv.ops.cuda import launches, replay
from shconv.ops.derivatives import convolve
from shconv.ops.geometry import Geometry, check, check_hypernetwork
from shconv.ops.modes import autocast_off, autocasting, cast, direct, exporting, refuse_tangents, transforming

Theta = tuple[Tensor, Tensor, Tensor, Tensor]  # W1 (K, F), b1 (K,), W2 (T, K), b2 (T,)
Order = tuple[int, ...]  # what W1 (K, len(order) * D) looks at, in its order: 0 the means, 1 the deviations


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
    if at_once:
        if torch.is_grad_enabled():
            Y = _apply(x, weight, bias, *theta, geometry, order, eps)
            return Y
        return _compute(x, weight, bias, theta, geometry, order, eps, False)[0]
    Y = torch.ops.shconv.layer.default(x, weight, bias, *theta, *geometry, order, eps)
    return Y


def _rounds(x: Tensor, weight: Tensor) -> bool:
    """Whether the kernels take a weight that autocast would round for them: a launch of theirs takes less than an
    operation of torch's, and no gradient has to be rounded and widened again."""
    return x.is_cuda and x.element_size() == 2 and weight.dtype == torch.float32


def _compute(
    x: Tensor, weight: Tensor, bias: Tensor | None, theta: Theta, geometry: Geometry, order: Order, eps: float,
    keep: bool,
) -> tuple[Tensor, Sequence[Tensor]]:  # fmt: skip
    """Y, and where it is to be kept what the way back needs: M (N, T), [mu, sigma] (N, 2, D), the hidden neurons."""
    inputs = (x, weight, bias, *theta)
    if x.is_cuda:
        Y, *kept = replay.call(_forward, inputs, geometry, order, eps, keep)
    elif plan := cpu.plan(x, weight, bias, theta, geometry, order, eps):
        return plan.forward(x, weight, bias, theta, keep)
    else:
        Y, *kept = _forward(*inputs, geometry, order, eps, keep)
    return Y, kept


def _forward(
    x: Tensor, weight: Tensor, bias: Tensor | None, W1: Tensor, b1: Tensor, W2: Tensor, b2: Tensor,
    geometry: Geometry, order: Order, eps: float, keep: bool,
) -> tuple[Tensor, ...]:  # fmt: skip
    """Part by part."""
    check_hypernetwork(x, (W1, b1, W2, b2), order, weight[:1, :1].numel())
    M, seen, hidden = hypernetwork.compute(x, (W1, b1, W2, b2), order, eps)
    maps = M.view(-1, *weight.shape[2:])
    check(x, weight, maps, bias, geometry, rounds=_rounds(x, weight))
    Y = registration.compute(x, weight, maps, geometry, "auto")
    Y = Y if bias is None else Y.add_(bias.to(Y.dtype)[:, None, None])
    return (Y, M, seen, hidden) if keep else (Y,)


def _gradients(
    dY: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, theta: Theta, kept: Sequence[Tensor],
    geometry: Geometry, order: Order, eps: float, mask: cpu.Mask,
) -> tuple[Tensor | None, ...]:  # fmt: skip
    """The gradients of x, the weight, the bias and theta (W1, b1, W2, b2); None for each that is not wanted."""
    inputs = (dY, x, weight, bias, *theta, *kept)
    if x.is_cuda:
        return replay.call(_backward, inputs, geometry, order, mask)
    if plan := cpu.plan(x, weight, bias, theta, geometry, order, eps):
        return plan.backward(dY, x, weight, bias, theta, kept, mask)
    return _backward(*inputs, geometry, order, mask)  # type: ignore[arg-type, call-arg]


def _backward(
    dY: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, W1: Tensor, b1: Tensor, W2: Tensor, b2: Tensor,
    M: Tensor, seen: Tensor, hidden: Tensor, geometry: Geometry, order: Order, mask: cpu.Mask,
) -> tuple[Tensor | None, ...]:  # fmt: skip
    """Part by part."""
    (of_x, of_weight, of_bias, of_theta), theta = mask, (W1, b1, W2, b2)
    maps = M.view(-1, *weight.shape[2:])
    together = of_x and of_weight and hypernetwork.by_kernels(x, theta)
    join = launches.joined(dY, x, weight, maps, geometry) if together else None
    needs = (of_x and join is None, of_weight, of_x or of_theta)
    dX, dW, dM = registration.gradients(dY, x, weight, maps, geometry, "auto", needs)
    found: tuple[Tensor | None, ...] = (dX, None, None, None, None)
    if of_x or of_theta:
        assert dM is not None
        found = hypernetwork.gradients(dM.flatten(1), x, M, seen, hidden, theta, order, of_x, of_theta, dX, join)
    found = found[0], dW, dY.sum((0, 2, 3)) if of_bias else None, *found[1:]
    inputs = (x, weight, bias, *theta)
    return tuple(None if g is None or of is None else g.to(of.dtype) for g, of in zip(found, inputs, strict=True))


def _again(
    dY: Tensor, inputs: Sequence[Tensor | None], geometry: Geometry, order: Order, eps: float, needs: Sequence[bool]
) -> list[Tensor | None]:
    """The gradients where they will themselves be differentiated: through the layer's definition, once more."""
    x, weight, bias, *theta = inputs
    assert x is not None
    assert weight is not None
    with autocast_off(x):
        M, _, _ = hypernetwork.plain(x, tuple(theta), order, eps)  # type: ignore[arg-type]
        Y = convolve(x, weight.to(x.dtype), M.view(-1, *weight.shape[2:]), *geometry, "auto")
        Y = Y if bias is None else Y + bias.to(x.dtype)[:, None, None]
    wanted = [each for each, needed in zip(inputs, needs, strict=True) if needed]
    found = iter(torch.autograd.grad(Y, wanted, dY, create_graph=True))  # type: ignore[arg-type]
    return [next(found) if needed else None for needed in needs]


class _Direct(torch.autograd.Function):
    """The op in plain eager mode."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        x, weight, bias, *theta, ctx.geometry, ctx.order, ctx.eps = inputs
        Y, kept = _compute(x, weight, bias, theta, ctx.geometry, ctx.order, ctx.eps, True)  # type: ignore[arg-type]
        ctx.save_for_backward(x, weight, bias, *theta, *kept)
        return Y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return *_derivative(ctx, gradients[0]), None, None, None


# torch's own, which transforms do not ask for: the Python around it unwraps their tensors
_apply = super(torch.autograd.Function, _Direct).apply


def _derivative(ctx: Any, dY: Tensor) -> Sequence[Tensor | None]:
    """The gradients of (x, weight, bias, W1, b1, W2, b2)."""
    saved, needs = ctx.saved_tensors, ctx.needs_input_grad[:7]
    if torch.is_grad_enabled():
        return _again(dY, saved[:7], ctx.geometry, ctx.order, ctx.eps, needs)
    mask = needs[0], needs[1], needs[2], any(needs[3:])
    if direct():
        x, weight, bias, *theta = saved[:7]
        return _gradients(dY, x, weight, bias, tuple(theta), saved[7:], ctx.geometry, ctx.order, ctx.eps, mask)
    found = torch.ops.shconv.layer_backward.default(dY, *saved, _told(ctx.geometry, ctx.order), ctx.eps, mask)
    given = iter(found)
    every = [next(given) if wanted else None for wanted in (*mask[:3], *[mask[3]] * 4)]
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
    f"layer_backward(Tensor dY, {_INPUTS}, Tensor M, Tensor seen, Tensor hidden, str numbers, float eps, bool[] mask) "
    "-> Tensor[]",
    tags=_EXACT,
)


def _layer(*inputs: Any) -> Tensor:
    *tensors, stride, padding, dilation, groups, order, eps = inputs
    geometry = registration.geometry(stride, padding, dilation, groups)
    if torch.is_grad_enabled() and any(each is not None and each.requires_grad for each in tensors):
        Y: Tensor = _Dispatched.apply(*tensors, geometry, tuple(order), eps)
    else:
        (Y,) = torch.ops.shconv.layer_forward.default(*tensors, _told(geometry, order), eps, False)
    return Y


class _Dispatched(_Direct):
    """The op where somebody looks."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        *tensors, ctx.geometry, ctx.order, ctx.eps = inputs
        numbers = _told(ctx.geometry, ctx.order)
        Y: Tensor
        Y, *kept = torch.ops.shconv.layer_forward.default(*tensors, numbers, ctx.eps, True)
        ctx.save_for_backward(*tensors, *kept)
        return Y


def _told(geometry: Geometry, order: Sequence[int]) -> str:
    stride, padding, dilation, groups = geometry
    return " ".join(str(int(each)) for each in (*stride, *padding, *dilation, groups, *order))


@functools.cache
def _numbers(told: str) -> tuple[Geometry, Order]:
    a, b, c, d, e, f, groups, *order = map(int, told.split())
    return Geometry((a, b), (c, d), (e, f), groups), tuple(order)


def _kernel(
    x: Tensor, weight: Tensor, bias: Tensor | None, W1: Tensor, b1: Tensor, W2: Tensor, b2: Tensor,
    numbers: str, eps: float, keep: bool,
) -> list[Tensor]:  # fmt: skip
    """[Y], or [Y, M, seen, hidden]."""
    refuse_tangents()
    Y, kept = _compute(x, weight, bias, (W1, b1, W2, b2), *_numbers(numbers), eps, keep)
    return [Y, *kept]


def _fake(x: Tensor, weight: Tensor, bias: Any, W1: Tensor, b1: Any, W2: Tensor, *others: Any) -> list[Tensor]:
    *_, numbers, _, keep = others
    Y = registration.output(x, weight, _numbers(numbers)[0])
    return [Y, *hypernetwork.states(x, W1, W2)] if keep else [Y]


def _backward_kernel(*inputs: Any) -> list[Tensor]:
    """The gradients that mask asks for, no others."""
    refuse_tangents()
    dY, x, weight, bias, W1, b1, W2, b2, M, seen, hidden, numbers, eps, mask = inputs
    theta, kept = (W1, b1, W2, b2), (M, seen, hidden)
    found = _gradients(dY, x, weight, bias, theta, kept, *_numbers(numbers), eps, tuple(mask))
    return [each for each in found if each is not None]


def _backward_fake(*inputs: Any) -> list[Tensor]:
    mask = inputs[-1]
    wanted = zip(inputs[1:8], (*mask[:3], *[mask[3]] * 4), strict=True)
    return [registration.like(torch.empty_like(of), of) for of, needed in wanted if needed and of is not None]


_library.impl("layer", _layer, "CompositeImplicitAutograd")
_library.impl("layer_forward", _kernel, "CompositeExplicitAutograd")
_library.impl("layer_backward", _backward_kernel, "CompositeExplicitAutograd")
torch.library.register_fake("shconv::layer_forward", _fake, lib=_library)
torch.library.register_fake("shconv::layer_backward", _backward_fake, lib=_library)
