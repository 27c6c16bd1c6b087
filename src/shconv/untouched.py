"""Whether a module computes what its class says and nothing beside: no hook, no replaced method, no parametrisation, no
tensor subclass. Only then may its tensors be used without calling it."""

from typing import TypeGuard

from torch import Tensor, nn
from torch.nn.modules import module as torch_module

_TENSORS = (Tensor, nn.Parameter, type(None))


def untouched(module: nn.Module) -> bool:
    """Whether calling the module is calling its class's forward: nobody hooked in, for this module or for all."""
    own = module.__dict__  # a module's attributes are slow to find one by one
    return not (
        own["_forward_hooks"]
        or own["_forward_pre_hooks"]
        or own["_backward_hooks"]
        or own["_backward_pre_hooks"]
        or "forward" in own
        or torch_module._global_forward_hooks
        or torch_module._global_forward_pre_hooks
        or torch_module._global_backward_hooks
        or torch_module._global_backward_pre_hooks
    )


def plain_linear(module: nn.Module | None) -> TypeGuard[nn.Linear]:
    """Whether it is torch's own linear layer, with its weight and bias as parameters."""
    if type(module) is not nn.Linear or not untouched(module):
        return False
    tensors = module._parameters
    weight, bias = tensors.get("weight"), tensors.get("bias")
    return weight is not None and type(weight) in _TENSORS and type(bias) in _TENSORS and "bias" in tensors
