"""What serves a kind of call, found again by what torch's compiler checks tensors with: classes, shapes, layouts,
dtypes, devices, views that change signs, autocast, transforms. It takes a tenth of the time of making a key of these.
"""

from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

_FEW = 8  # kinds that are looked through one by one
_MOST = 4096  # of what is told quickly
Fits = Callable[..., bool]  # of tensors: whether they are of a kind
Found = TypeVar("Found")


class Seen(dict[Hashable, tuple[tuple[Fits, Found], ...]]):
    """By what is told quickly of a call: the kinds that were added last."""

    def find(self, near: Hashable, tensors: Sequence[Tensor]) -> Found | None:
        for fits, found in self.get((near, len(tensors)), ()):
            if fits(*tensors):
                return found
        return None

    def add(self, near: Hashable, tensors: Sequence[Tensor], found: Found) -> None:
        """Nothing is added where torch is another version's, and knows no such checks."""
        sizes: list[Any] = [list(each.shape) for each in tensors]
        strides: list[Any] = [list(each.stride()) for each in tensors]
        try:
            kind = torch._C._dynamo.guards.TensorGuards
            fits = kind(*tensors, dynamic_dims_sizes=sizes, dynamic_dims_strides=strides).check
            served = fits(*tensors)
        except (AttributeError, TypeError, ValueError, SystemError):
            return
        if served:
            if len(self) >= _MOST:
                self.clear()
            key = near, len(tensors)  # as many as the checks were made of: a layer may have a bias
            self[key] = ((fits, found), *self.get(key, ()))[:_FEW]
