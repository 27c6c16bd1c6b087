"""What is at work around a call: autocast, torch.func, forward-mode differentiation. torch.library's registrations
serve none of these as torch's own operations do."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor
from torch.autograd import forward_ad

TENSORS = (Tensor, torch.nn.Parameter)  # what is no sub-class with ways of its own


def autocasting(tensor: Tensor) -> bool:
    """Whether autocast is on for the tensor's device; it raises for meta tensors."""
    kind = "cuda" if tensor.is_cuda else tensor.device.type  # which takes longer to find
    return not tensor.is_meta and torch.is_autocast_enabled(kind)


def cast(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """As autocast casts the inputs of torch's own convolution: float64 and integers stay."""
    return tensor.to(dtype) if tensor.is_floating_point() and tensor.dtype != torch.float64 else tensor


def autocast_off(tensor: Tensor) -> AbstractContextManager[object]:
    """For an op's kernel, whose inputs are cast already: autocast would round the map and the sums in its precision."""
    return torch.autocast(tensor.device.type, enabled=False) if autocasting(tensor) else nullcontext()


def transforming() -> bool:
    """Whether torch.func or forward-mode differentiation is at work: what torch.library registers serves neither
    (pytorch issue 168393)."""
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def exporting() -> bool:
    """torch.compiler.is_exporting(), which is True in all that torch 2.11 compiles."""
    return bool(torch.compiler._is_exporting_flag)


def direct() -> bool:
    """Whether nothing is at work that has to see an op pass torch's dispatcher, so that its kernel may be called: no
    compiler, no dispatch mode, no transform, no tracer, no profiler."""
    return not (
        torch.compiler.is_compiling()
        or torch._C._len_torch_dispatch_stack()
        or transforming()
        or torch._C._get_tracing_state() is not None
        or torch._C._autograd._profiler_enabled()
    )


def is_plain(tensor: Tensor) -> bool:
    """Whether the tensor is memory of a CPU or of a CUDA device, with its numbers in it, and nothing more: no
    sub-class, no sparse, quantised or nested one, no view that changes signs, none that a transform of torch.func left
    over, and no zero without memory."""
    if type(tensor) not in TENSORS:
        return False
    keys = torch._C._dispatch_keys(tensor)
    number = keys.raw_repr()
    if (found := _plain.get(number)) is None:
        for each in _USUAL:
            keys = keys.remove(each)
        found = _plain[number] = keys.raw_repr() in _MEMORY
    return found


_KEYS = torch._C.DispatchKey
_MEMORY = {torch._C.DispatchKeySet(each).raw_repr() for each in (_KEYS.CPU, _KEYS.CUDA)}
_USUAL = (_KEYS.ADInplaceOrView, _KEYS.AutogradCPU, _KEYS.AutogradCUDA, _KEYS.AutocastCPU, _KEYS.AutocastCUDA)
_plain: dict[int, bool] = {}  # by what torch dispatches by


def refuse_tangents() -> None:
    """For an op's kernel: where forward-mode differentiation gets there its tangents would be dropped, in silence."""
    if forward_ad._current_level >= 0 and torch._C._is_fwd_grad_enabled():
        raise NotImplementedError(
            "torch.ops.shconv has no forward-mode derivatives: call shconv.ops.filtered_conv2d instead, and not in a "
            "compiled graph made outside of forward mode"
        )
