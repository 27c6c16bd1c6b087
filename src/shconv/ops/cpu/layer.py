"""A whole layer by one call of the C++ library in each direction: float32 on the CPU, one group, all of it dense.
What such a call is told is made ready once for each kind of call; then it takes addresses only."""

import ctypes
from collections.abc import Hashable, Sequence
from typing import Any

import torch
from torch import Tensor

from shconv.ops import kept, memory
from shconv.ops.cpu import compiled, library
from shconv.ops.geometry import Geometry, check, check_hypernetwork
from shconv.ops.modes import autocasting
from shconv.ops.seen import Seen

Inputs = Sequence[Tensor]  # x, the weight, W1, b1, W2, b2, and the bias where there is one
Theta = tuple[Tensor, Tensor, Tensor, Tensor]  # W1 (K, F), b1 (K,), W2 (T, K), b2 (T,)
Numbers = tuple[Geometry, tuple[int, ...], float]  # the last is eps
Mask = tuple[bool, bool, bool, bool]  # gradients of x, the weight, the bias, theta

_MOST = 4096  # kinds of call remembered
_empty = memory.empty("cpu")


class _Numbers(ctypes.Structure):
    _fields_ = (*((name, ctypes.c_int64) for name in ("K", "F", "mean", "std")), ("eps", ctypes.c_double))


class Plan:
    """One kind of call: shapes, layouts, geometry, statistics."""

    def __init__(self, x: Tensor, weight: Tensor, theta: Theta, geometry: Geometry, order: Sequence[int], eps: float):
        N, D = x.shape[:2]
        mean, std = (order.index(which) * D if which in order else -1 for which in (0, 1))
        self.size = (N, len(weight), *map(int, geometry.output_size(x, weight)))  # a stride may be one of numpy's
        self.layout = library.layout(x)
        self.stride = torch.empty(self.size, device="meta", memory_format=self.layout).stride()
        self.kept = kept.count(x, weight, theta[0], theta[2], False)
        whole = _empty((self.kept,), (1,), torch.float32)
        M, seen, hidden, _ = kept.parts(whole, x, weight, theta[0], theta[2], False)
        self.offsets = [each.data_ptr() - whole.data_ptr() for each in (M, seen, hidden)]
        self.numbers = _Numbers(len(theta[0]), theta[0].shape[1], mean, std, eps)
        self.geometry = geometry
        sizes = library.geometry_numbers(x.shape, self.size, weight.shape[2:], geometry)
        lasts = int(not x.is_contiguous()), int(not weight.is_contiguous())
        count = len(sizes) + 4
        self.arguments = {  # by whether Y, or dY, is channels last
            last: (ctypes.c_int64 * count)(*sizes, lasts[0], int(last), lasts[1], torch.get_num_threads())
            for last in (False, True)
        }
        self.function = library.function("shconv_layer_forward", "ppip" + 11 * "p")
        self.backward_function = library.function("shconv_layer_backward", "ppiiip" + 15 * "p")
        self.gomp = library.torch_threads()
        first = self.arguments[self.layout == torch.channels_last]
        route = compiled.forward_route(x, weight, geometry)
        self.head = (ctypes.addressof(first), self.gomp, int(route), ctypes.addressof(self.numbers))
        self.heads: dict[tuple[Mask, bool], tuple[Any, ...]] = {}
        dense = [torch.empty_like(each, device="meta") for each in (x, weight)]
        linear = [torch.empty(each.shape, device="meta") for each in theta]
        self.gradients = [(tuple(each.shape), each.stride()) for each in (*dense, *linear)]

    def forward(self, inputs: Inputs, numbers: Numbers, keep: bool) -> tuple[Tensor, ...]:
        """Y, and with keep what the way back needs (kept.py). numbers: those of the plan."""
        x, weight, W1, b1, W2, b2, *bias = inputs
        Y = _empty(self.size, self.stride, torch.float32)
        whole = _empty((self.kept,), (1,), torch.float32) if keep else None
        self.function(
            *self.head, x.data_ptr(), weight.data_ptr(), bias[0].data_ptr() if bias else None,
            W1.data_ptr(), b1.data_ptr(), W2.data_ptr(), b2.data_ptr(), Y.data_ptr(), *self._parts(whole),
        )  # fmt: skip
        return (Y,) if whole is None else (Y, whole)

    def backward(self, dY: Tensor, inputs: Inputs, whole: Tensor, mask: Mask) -> tuple[Tensor | None, ...]:
        """The gradients of the inputs; None for each that mask does not ask for."""
        x, weight, *theta = inputs[:6]
        bias, dY = inputs[6:], library.dense(dY)
        of_x, of_weight, of_bias, of_theta = mask
        kind = mask, not dY.is_contiguous()
        if (head := self.heads.get(kind)) is None:
            head = self.heads[kind] = self._head(x, weight, *kind)
        wanted = of_x, of_weight, *(of_theta,) * 4
        dX, dW, *dtheta = [
            _empty(size, stride, torch.float32) if needed else None
            for needed, (size, stride) in zip(wanted, self.gradients, strict=True)
        ]
        db = [_empty((len(weight),), (1,), torch.float32) if of_bias else None for _ in bias]
        found = (dX, dW, *(db or [None]), *dtheta)
        self.backward_function(
            *head, dY.data_ptr(), x.data_ptr(), weight.data_ptr(), theta[0].data_ptr(), theta[2].data_ptr(),
            *self._parts(whole), *(None if each is None else each.data_ptr() for each in found),
        )  # fmt: skip
        return dX, dW, *dtheta, *db

    def _parts(self, whole: Tensor | None) -> Sequence[int | None]:
        """Addresses of M, [mu, sigma] and the hidden neurons."""
        if whole is None:
            return None, None, None
        first = whole.data_ptr()
        return [first + offset for offset in self.offsets]

    def _head(self, x: Tensor, weight: Tensor, mask: Mask, last: bool) -> tuple[Any, ...]:
        of_x, of_weight, _, of_theta = mask
        routes = compiled.backward_routes(x, weight, self.geometry, (of_x, of_weight, of_x or of_theta))
        return ctypes.addressof(self.arguments[last]), self.gomp, *map(int, routes), ctypes.addressof(self.numbers)


_plans: dict[Hashable, Plan | None] = {}
_seen: Seen[Plan] = Seen()


def seen(inputs: Inputs, geometry: Geometry, order: tuple[int, ...], eps: float) -> Plan | None:
    """What serves such calls, where it is known; then the kernels may have the inputs if nothing is at work that has to
    see an op."""
    found = _seen.find(_near(inputs, geometry, order, eps), inputs)
    return None if found is None or isinstance(library.kernels(), str) else found


def plan(inputs: Inputs, geometry: Geometry, order: tuple[int, ...], eps: float) -> Plan | None:
    """What serves such calls; None where something else has to. Builds the kernels for the first it can serve."""
    if found := seen(inputs, geometry, order, eps):
        return found
    x, weight, W1, b1, W2, b2, *others = inputs
    bias, theta = others[0] if others else None, (W1, b1, W2, b2)
    key = (
        x.shape, x.stride(), x.dtype, weight.shape, weight.stride(), weight.dtype, geometry, order, eps,
        W1.shape, W1.dtype, b1.numel(), b1.dtype, W2.shape, W2.dtype, b2.numel(), b2.dtype,
        None if bias is None else (bias.numel(), bias.dtype), torch.get_num_threads(),
    )  # fmt: skip
    try:
        found = _plans[key]
    except KeyError:
        if len(_plans) >= _MOST:
            _plans.clear()
        found = _plans[key] = _made(x, weight, bias, theta, geometry, order, eps)
    if found is None or not all(each.is_cpu for each in inputs) or isinstance(library.kernels(), str):
        return None
    if not all(each.is_contiguous() for each in inputs[2:]):
        return None
    if not autocasting(x):  # for its sake serves() looks at a number that no check of torch's knows
        _seen.add(_near(inputs, geometry, order, eps), inputs, found)
    return found


def _near(inputs: Inputs, geometry: Geometry, order: tuple[int, ...], eps: float) -> Hashable:
    return inputs[0].shape, geometry, order, eps, torch.get_num_threads()


def _made(
    x: Tensor, weight: Tensor, bias: Tensor | None, theta: Theta, geometry: Geometry, order: tuple[int, ...], eps: float
) -> Plan | None:
    """Raises InputError where shapes, dtypes or devices do not fit: the kernels do not look what memory there is."""
    taps = weight.shape[2:]
    check_hypernetwork(x, theta, order, taps.numel())
    check(x, weight, x.new_empty(x.shape[0], *taps), bias, geometry)
    dense = all(each.is_contiguous() or each.is_contiguous(memory_format=torch.channels_last) for each in (x, weight))
    if not dense or x.dtype != torch.float32 or any(each.dtype != x.dtype for each in theta) or x.numel() == 0:
        return None
    return None if compiled.reasons_against(x, weight, geometry) else Plan(x, weight, theta, geometry, order, eps)
