"""The weight as the kernels take it: channels last, in the images' dtype. Importing this module imports triton."""
# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False, disallow-untyped-decorators=False
# (Triton compiles these bodies: their arguments have no Python types.)

import torch
import triton
import triton.language as tl
from torch import Tensor

from shconv.ops.cuda import plans

_BLOCK = 1024


@triton.jit
def _round(weight, found, count, D, T, step_d, step_t, BLOCK: tl.constexpr):
    """found (C, T, D), in its own type."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    c, t, d = at // (T * D), at // D % T, at % D
    W = tl.load(weight + c * (T * D) + t * step_t + d * step_d, at < count, 0.0)
    tl.store(found + at, W.to(found.dtype.element_ty), at < count)


def rounded(weight: Tensor, dtype: torch.dtype, into: Tensor | None = None) -> Tensor:
    """weight (C, D, S_h, S_w) in another dtype and channels last; into: memory for it."""
    last = torch.channels_last
    weight = weight if weight.is_contiguous() else weight.contiguous(memory_format=last)
    found = torch.empty(weight.shape, dtype=dtype, device=weight.device, memory_format=last) if into is None else into
    count, D, T = weight.numel(), weight.shape[1], weight[0, 0].numel()
    step_d, step_t = (T, 1) if weight.is_contiguous() else (1, D)  # strides of sides of 1 may be anything
    numbers = {"count": count, "D": D, "T": T, "step_d": step_d, "step_t": step_t, "BLOCK": _BLOCK, "num_warps": 4}
    plans.run(_round, (triton.cdiv(count, _BLOCK),), {"weight": weight, "found": found, **numbers})
    return found
