"""The hypernetwork T of an SHC layer as one op for CUDA: M from x in two launches, its gradients in two or three.
shconv.layers.Hypernetwork is its definition, and what computes M elsewhere. Where Triton's kernels cannot, torch does.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from shconv.ops import kept, statistics
from shconv.ops.cuda import runtime
from shconv.ops.geometry import check_hypernetwork, check_images, memory_format
from shconv.ops.modes import autocast_off, transforming
from shconv.ops.registration import Op, differentiated

Inputs = tuple[Tensor, ...]  # x, W1, b1, W2, b2
Numbers = tuple[Sequence[int], float]  # what W1 looks at, and eps
Theta = tuple[Tensor, Tensor, Tensor, Tensor]  # W1 (K, F), b1 (K,), W2 (T, K), b2 (T,)
States = tuple[Tensor, Tensor, Tensor]  # M (N, T), [mu, sigma] (N, 2, D), the hidden neurons (N, K)

_FUSED_ON = ("cuda",)
_HIDDEN = 2048  # neurons one program holds
_TILE = 2**15  # weights of the output layer it holds, both sides rounded up to powers of two


def fused(x: Tensor) -> bool:
    """Whether filter_map is the way to compute the map of x, rather than its definition in torch's operations."""
    return x.device.type in _FUSED_ON and not transforming()


def filter_map(x: Tensor, theta: Theta, order: Sequence[int], eps: float) -> Tensor:
    """M = sigmoid(W2 relu(W1 s + b1) + b2) with s the channel statistics of x (section 2.2 of the paper).

    x (N, D, H, W), theta = W1 (K, len(order) * D), b1, W2 (T, K), b2 -> M (N, T), in x's dtype or float32, whichever is
    more precise. order: what W1 takes, 0 for mu and 1 for sigma = sqrt(population variance + eps).
    """
    check_images(x)
    M: Tensor = _op((x, *theta), (tuple(order), eps))
    return M


def by_kernels(x: Tensor, theta: Theta) -> bool:
    """Whether Triton's kernels compute M and its gradients. Where they can't on a GPU the reason is logged, once."""
    if x.device.type not in _FUSED_ON:
        return False
    if reason := _reason_against(x, *theta):
        runtime.log_once(f"no fused hypernetwork: {reason}; plain torch is used instead")
        return False
    return not (x.is_cuda and runtime.reason_against(x.device.index))


def _reason_against(x: Tensor, W1: Tensor, b1: Tensor, W2: Tensor, b2: Tensor) -> str:
    K, T = len(W1), len(W2)
    if any(each.dtype not in runtime.DTYPES for each in (x, W1, b1, W2, b2)):
        return f"x and the hypernetwork must be bfloat16, float16 or float32, got {x.dtype} and {W1.dtype}"
    if x[:1].numel() >= runtime.COUNTED:
        return f"an image must have fewer than {runtime.COUNTED} elements, got {x[:1].numel()}"
    if K > _HIDDEN or (1 << (K - 1).bit_length()) * (1 << (T - 1).bit_length()) > _TILE:
        return f"{K} hidden neurons for {T} taps do not fit one program"
    return ""


def compute(x: Tensor, theta: Theta, order: Sequence[int], eps: float, into: States | None = None) -> States:
    """M (N, T), and what the way back needs: [mu, sigma] (N, 2, D) and the hidden neurons (N, K). into: memory for all
    three."""
    if not by_kernels(x, theta):
        with autocast_off(x):
            found = plain(x, theta, order, eps)
        return found if into is None else (into[0].copy_(found[0]), into[1].copy_(found[1]), into[2].copy_(found[2]))
    from shconv.ops.cuda import hypernetwork as kernels

    return kernels.forward(_dense(x), *theta, order, eps, into or states(x, theta[0], theta[2]))


def gradients(
    dM: Tensor, x: Tensor, M: Tensor, seen: Tensor, hidden: Tensor, theta: Theta, order: Sequence[int],
    needs_x: bool, needs_theta: bool, beside: Tensor | None = None,
    join: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> tuple[Tensor | None, ...]:  # fmt: skip
    """The gradients of x and of theta, each only where it is asked for. beside: another gradient of x; the sum of both
    is what is returned, in its place. join, where by_kernels: gives the sum itself, of [mu, sigma] and [dmu, dvariance]
    (N, 2, D)."""
    x = _dense(x)
    if not by_kernels(x, theta):
        with autocast_off(x):
            dX, *dtheta = _plain_backward(dM, x, M, seen, hidden, theta, order, needs_x, needs_theta)
        return dX if dX is None or beside is None else beside.add_(dX), *dtheta
    from shconv.ops.cuda import hypernetwork as kernels
    from shconv.ops.cuda import statistics as cuda

    dseen, *dtheta = kernels.backward(dM, M, seen, hidden, theta, order, needs_x, needs_theta)
    if join is not None:
        return join(seen, dseen), *dtheta
    return cuda.input_gradient(x, seen[:, 0], dseen[:, 0], dseen[:, 1], beside) if needs_x else None, *dtheta


def states(x: Tensor, W1: Tensor, W2: Tensor) -> States:
    """Tensors like those of compute, their numbers undefined."""
    N, D, K, T = x.shape[0], x.shape[1], W1.shape[0], W2.shape[0]
    M, seen, hidden = (x.new_empty(N, *size, dtype=kept.dtype(x)) for size in ((T,), (2, D), (K,)))
    return M, seen, hidden


def _forward(inputs: Inputs, numbers: Numbers, keep: bool) -> tuple[Tensor, ...]:
    (x, W1, b1, W2, b2), (order, eps) = inputs, numbers
    check_hypernetwork(x, (W1, b1, W2, b2), order, len(W2))
    found = compute(x, (W1, b1, W2, b2), order, eps)
    return found if keep else found[:1]


def _shapes(inputs: Inputs, numbers: Numbers, keep: bool) -> tuple[Tensor, ...]:
    x, W1, _, W2, _ = inputs
    found = states(x, W1, W2)
    return found if keep else found[:1]


def _backward(dresults: Inputs, saved: Inputs, numbers: Numbers, mask: Sequence[bool]) -> tuple[Tensor | None, ...]:
    (dM,), (x, W1, b1, W2, b2, M, seen, hidden), (order, _) = dresults, saved, numbers
    return gradients(dM, x, M, seen, hidden, (W1, b1, W2, b2), order, mask[0], any(mask[1:]))


def _again(dresults: Inputs, inputs: Inputs, numbers: Numbers, mask: Sequence[bool]) -> list[Tensor | None]:
    """Torch goes through its own operations once more."""
    (dM,), (x, W1, b1, W2, b2) = dresults, inputs
    with autocast_off(x):
        M, _, _ = plain(x, (W1, b1, W2, b2), *numbers)
    return differentiated(M, inputs, dM, mask)


_op = Op(
    "filter_map(Tensor x, Tensor W1, Tensor b1, Tensor W2, Tensor b2, int[] order, float eps) -> Tensor",
    ("M",), ("M", "seen", "hidden"), forward=_forward, shapes=_shapes, backward=_backward, again=_again,
)  # fmt: skip


def plain(x: Tensor, theta: Theta, order: Sequence[int], eps: float) -> States:
    """M (N, T), [mu, sigma] (N, 2, D) and the hidden neurons (N, K)."""
    mu, variance = statistics.channel_mean_variance(x)
    seen = torch.stack((mu, (variance + eps).sqrt()), 1)
    W1, b1, W2, b2 = (each.to(seen.dtype) for each in theta)
    hidden = F.relu(F.linear(_inputs(seen, order), W1, b1))
    return torch.sigmoid(F.linear(hidden, W2, b2)), seen, hidden


def _plain_backward(
    dM: Tensor, x: Tensor, M: Tensor, seen: Tensor, hidden: Tensor, theta: Theta,
    order: Sequence[int], needs_x: bool, needs_theta: bool,
) -> tuple[Tensor | None, ...]:  # fmt: skip
    W1, _, W2, _ = (each.to(M.dtype) for each in theta)
    dlogits = dM * M * (1 - M)  # (N, T)
    dz = (dlogits @ W2) * (hidden > 0)  # (N, K)
    dX: Tensor | None = None
    dtheta: tuple[Tensor | None, ...] = (None,) * 4
    if needs_x:
        ds = (dz @ W1).unflatten(1, (len(order), -1)).unbind(1)
        dmu, dsigma = (ds[order.index(which)] if which in order else torch.zeros_like(ds[0]) for which in (0, 1))
        dX = statistics.input_gradient(x, seen[:, 0], dmu, dsigma / (2 * seen[:, 1]))
    if needs_theta:
        found = dz.T @ _inputs(seen, order), dz.sum(0), dlogits.T @ hidden, dlogits.sum(0)
        dtheta = tuple(gradient.to(of.dtype) for gradient, of in zip(found, theta, strict=True))
    return dX, *dtheta


def _inputs(seen: Tensor, order: Sequence[int]) -> Tensor:
    """s (N, len(order) * D)."""
    return torch.cat([seen[:, which] for which in order], 1)


def _dense(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=memory_format(x))
