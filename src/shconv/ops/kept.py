"""What a layer keeps of its forward pass for the way back, in one tensor: one to make, to save and to find again, not
four."""

from typing import NamedTuple

import torch
from torch import Tensor

_STEP = 4  # elements, where a part begins on a GPU: kernels read 16 bytes at a time


class Kept(NamedTuple):
    M: Tensor  # (N, T)
    seen: Tensor  # [mu, sigma] (N, 2, D)
    hidden: Tensor  # the hidden neurons (N, K)
    weight: Tensor | None  # as kernels rounded it: in x's dtype, channels last


def dtype(x: Tensor) -> torch.dtype:
    """Of all parts but the weight: x's, or float32 where that is more precise."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def count(x: Tensor, weight: Tensor, W1: Tensor, W2: Tensor, rounds: bool) -> int:
    """Elements of the tensor. rounds: whether the weight is in it."""
    *_, (first, size) = _places(x, weight, W1, W2, rounds)
    return first + size


def parts(whole: Tensor, x: Tensor, weight: Tensor, W1: Tensor, W2: Tensor, rounds: bool) -> Kept:
    """Views of the tensor."""
    rounded, seen, hidden, M = (whole[first : first + size] for first, size in _places(x, weight, W1, W2, rounds))
    N, C, D, S_h, S_w = len(x), *weight.shape
    last = rounded.view(x.dtype)[: weight.numel()].view(C, S_h, S_w, D).permute(0, 3, 1, 2) if rounds else None
    return Kept(M.view(N, len(W2)), seen.view(N, 2, x.shape[1]), hidden.view(N, len(W1)), last)


def _places(x: Tensor, weight: Tensor, W1: Tensor, W2: Tensor, rounds: bool) -> list[tuple[int, int]]:
    """First element and size of the weight, [mu, sigma], the hidden neurons and M."""
    (N, D), step = x.shape[:2], _STEP if x.is_cuda else 1
    wide = dtype(x).itemsize // x.element_size()  # elements of the weight in one of the tensor's
    sizes = -(-weight.numel() // wide) if rounds else 0, N * 2 * D, N * W1.shape[0], N * W2.shape[0]
    found, first = [], 0
    for size in sizes:
        found.append((first, size))
        first += -(-size // step) * step
    return found
