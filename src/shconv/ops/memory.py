"""Memory for what kernels write."""

from collections.abc import Callable

import torch
from torch import Tensor


def empty(kind: str) -> Callable[..., Tensor]:
    """What gives memory on the current device of a kind ("cpu", "cuda") by (size, stride, dtype): whatever dtype and
    device torch is set to by default. What compiled programs ask torch for it with takes a third of the time of what
    users do."""
    found: Callable[..., Tensor] | None = getattr(torch._C._dynamo.guards, f"_empty_strided_{kind}", None)
    return found or (lambda size, stride, dtype: torch.empty_strided(size, stride, dtype=dtype, device=kind))
