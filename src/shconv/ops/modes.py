"""What is at work around a call: autocast, torch.func, forward-mode differentiation. torch.library's registrations
serve none of these as torch's own operations do."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor
from torch.autograd import forward_ad


def autocasting(tensor: Tensor) -> bool:
    """Whether autocast is on for the tensor's device; it raises for meta tensors."""
    return not tensor.is_meta and torch.is_autocast_enabled(tensor.device.type)


def autocast_off(tensor: Tensor) -> AbstractContextManager[object]:
    """For an op's kernel, whose inputs are cast already: autocast would round the map and the sums in its precision."""
    return torch.autocast(tensor.device.type, enabled=False) if autocasting(tensor) else nullcontext()


def transforming() -> bool:
    """Whether torch.func or forward-mode differentiation is at work: what torch.library registers serves neither
    (pytorch issue 168393)."""
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def refuse_tangents() -> None:
    """For an op's kernel: where forward-mode differentiation gets there its tangents would be dropped, in silence."""
    if forward_ad._current_level >= 0 and torch._C._is_fwd_grad_enabled():
        raise NotImplementedError(
            "torch.ops.shconv has no forward-mode derivatives: call shconv.ops.filtered_conv2d instead, and not in a "
            "compiled graph made outside of forward mode"
        )
