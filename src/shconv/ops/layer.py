"""A whole SHC layer as one op in each direction: statistics, hypernetwork and filtered convolution (section 2.2).
shconv.layers is its definition. Here is when it serves, what it computes, and how it is differentiated."""

from collections.abc import Sequence

import torch
from torch import Tensor

from shconv.errors import InputError
from shconv.ops import choice, hypernetwork, kept
from shconv.ops.cpu import layer as cpu
from shconv.ops.cuda import launches, replay, runtime
from shconv.ops.derivatives import convolve
from shconv.ops.geometry import Geometry, check, check_hypernetwork, like
from shconv.ops.modes import TENSORS, autocast_off, autocasting, cast, direct, exporting, transforming
from shconv.ops.registration import Op, differentiated, kernels_may_have

Theta = tuple[Tensor, Tensor, Tensor, Tensor]  # W1 (K, F), b1 (K,), W2 (T, K), b2 (T,)
Order = tuple[int, ...]  # what W1 (K, len(order) * D) looks at, in its order: 0 the means, 1 the deviations
Numbers = tuple[Geometry, Order, float]  # the last is eps
Inputs = tuple[Tensor, ...]  # x, the weight, W1, b1, W2, b2, and the bias where there is one


def shc_conv2d(
    x: Tensor, weight: Tensor, bias: Tensor | None, theta: Theta, geometry: Geometry, order: Order, eps: float
) -> Tensor | None:
    """Y (N, C, H', W') of x (N, D, H, W), weight (C, D / groups, S_h, S_w), bias (C,), and theta, which makes the maps.
    None where the op does not compute what its definition does.

    Y_n = conv(X_n, W * M_n), M_n = sigmoid(W2 relu(W1 s_n + b1) + b2), s_n = [mu, sigma] of the channels of X_n,
    sigma = sqrt(population variance + eps). Differentiable any number of times.

    Raises:
        InputError: shapes, dtypes or devices do not fit.
    """
    inputs: Inputs = (x, weight, *theta) if bias is None else (x, weight, *theta, bias)
    numbers = geometry, order, eps
    Y: Tensor
    if x.is_cpu and direct() and (plan := cpu.seen(inputs, *numbers)):
        Y = _op.at_once(inputs, numbers, plan.forward)
        return Y
    if not _serves(x):
        return None
    at_once = kernels_may_have((x,), inputs[1:])
    if weight.dtype != x.dtype:
        if not autocasting(x):
            raise InputError(f"a layer's input and weight must be of one dtype, got {x.dtype} and {weight.dtype}")
        if not (at_once and _rounds(x, weight)):
            others = [] if bias is None else [cast(bias, x.dtype)]
            inputs = (x, cast(weight, x.dtype), *theta, *others)
    if not at_once:
        _check(inputs, geometry, order)  # a compiler would say no more than that a size is negative
    Y = (_op.at_once if at_once else _op.dispatched)(inputs, numbers)
    return Y


def _serves(x: Tensor) -> bool:
    """Whether the op computes what its definition does here. It does not in transforms, for tensors that are more than
    tensors, on other devices, and where autocast rounds for the convolution what the statistics see as it is. An
    exported program is made of the definition, for others to read."""
    if type(x) not in TENSORS or not (x.is_cpu or x.is_cuda) or transforming() or exporting():
        return False
    kind = "cpu" if x.is_cpu else "cuda"
    return not torch.is_autocast_enabled(kind) or x.dtype == torch.get_autocast_dtype(kind)


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
        return plan.forward(inputs, numbers, keep)
    return _forward(inputs, *numbers, keep)


def _forward(inputs: Inputs, geometry: Geometry, order: Order, eps: float, keep: bool) -> tuple[Tensor, ...]:
    """Part by part."""
    x, weight, W1, b1, W2, b2, *bias = inputs
    theta, rounds = (W1, b1, W2, b2), _rounds(x, weight)
    _check(inputs, geometry, order)
    whole, parts = None, None
    if keep:
        whole = x.new_empty(kept.count(x, weight, W1, W2, rounds), dtype=kept.dtype(x))
        parts = kept.parts(whole, x, weight, W1, W2, rounds)
    M, _, _ = hypernetwork.compute(x, theta, order, eps, parts and parts[:3])
    W = _rounded(weight, x, theta, parts and parts.weight) if rounds else weight
    Y = choice.compute(x, W, M.view(-1, *weight.shape[2:]), geometry, "auto")
    Y = Y.add_(bias[0].to(Y.dtype)[:, None, None]) if bias else Y
    return (Y,) if whole is None else (Y, whole)


def _check(inputs: Inputs, geometry: Geometry, order: Order) -> None:
    """Raise InputError unless it all fits together."""
    x, weight, *theta = inputs[:6]
    check_hypernetwork(x, theta, order, weight[:1, :1].numel())
    maps = x.new_empty(len(x), *weight.shape[2:])
    check(x, weight, maps, inputs[6] if inputs[6:] else None, geometry, _rounds(x, weight))


def _rounded(weight: Tensor, x: Tensor, theta: Theta, into: Tensor | None) -> Tensor:
    """The weight in x's dtype, channels last. into: memory for it."""
    if not hypernetwork.by_kernels(x, theta) or weight.numel() >= runtime.COUNTED:
        return weight.to(x.dtype, memory_format=torch.channels_last) if into is None else into.copy_(weight)
    from shconv.ops.cuda import rounding

    return rounding.rounded(weight, x.dtype, into)


def _gradients(gradients: Inputs, saved: Inputs, numbers: Numbers, mask: Sequence[bool]) -> tuple[Tensor | None, ...]:
    """The gradients of the inputs; None for each that is not wanted. saved: the inputs and what was kept."""
    (dY,), (of_x, of_weight, of_W1, of_b1, of_W2, of_b2, *of_bias) = gradients, mask
    wanted = of_x, of_weight, True in of_bias, of_W1 or of_b1 or of_W2 or of_b2
    if dY.is_cuda:
        return replay.call(_backward, (dY, *saved), *numbers, wanted)
    *inputs, whole = saved
    if whole.is_contiguous() and (plan := cpu.plan(inputs, *numbers)):
        return plan.backward(dY, inputs, whole, wanted)
    return _backward((dY, *saved), *numbers, wanted)


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
    dX, dW, dM = choice.gradients(dY, x, W, maps, geometry, "auto", needs, weight.dtype)
    dtheta: Sequence[Tensor | None] = (None,) * 4
    if of_x or of_theta:
        assert dM is not None
        dX, *dtheta = hypernetwork.gradients(dM.flatten(1), x, M, seen, hidden, theta, order, of_x, of_theta, dX, join)
    dW = None if dW is None else like(dW, weight)  # W may lie in another way
    found = dX, dW, *dtheta, *([dY.sum((0, 2, 3)) if of_bias else None] if bias else [])
    return tuple(None if g is None else g.to(of.dtype) for g, of in zip(found, inputs, strict=True))


def _again(gradients: Inputs, inputs: Inputs, numbers: Numbers, mask: Sequence[bool]) -> list[Tensor | None]:
    """The gradients through the layer's definition, once more."""
    (x, weight, *theta), bias, (geometry, order, eps) = inputs[:6], inputs[6:], numbers
    with autocast_off(x):
        M, _, _ = hypernetwork.plain(x, tuple(theta), order, eps)  # type: ignore[arg-type]
        Y = convolve(x, weight.to(x.dtype), M.view(-1, *weight.shape[2:]), geometry, "auto")
        Y = Y + bias[0].to(x.dtype)[:, None, None] if bias else Y
    return differentiated(Y, inputs, gradients[0], mask)


def _shapes(inputs: Inputs, numbers: Numbers, keep: bool) -> list[Tensor]:
    x, weight, W1, _, W2, *_ = inputs
    Y = choice.output(x, weight, numbers[0])
    whole = kept.count(x, weight, W1, W2, _rounds(x, weight))
    return [Y, x.new_empty(whole, dtype=kept.dtype(x))] if keep else [Y]


_op = Op(
    "layer(Tensor x, Tensor weight, Tensor W1, Tensor b1, Tensor W2, Tensor b2, Tensor? bias, SymInt[] stride, "
    "SymInt[] padding, SymInt[] dilation, SymInt groups, int[] order, float eps) -> Tensor",
    ("Y",), ("kept",), forward=_compute, shapes=_shapes, backward=_gradients, again=_again,
)  # fmt: skip
