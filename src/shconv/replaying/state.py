"""What a network's call may depend on beside its input and the numbers in its tensors; and why a network that may do
another thing at each call is not recorded."""

import functools
from collections.abc import Sized
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

from shconv.capturing import Uncapturable
from shconv.routes import Routes

KNOWN = ("torch", "torchvision", "timm", "shconv")  # packages whose modules run the same operations at every call
_NEVER = {  # modules that bring their own ways to run
    *("ScriptModule", "RecursiveScriptModule", "TopLevelTracedModule", "OptimizedModule"),
    *("DataParallel", "DistributedDataParallel", "FullyShardedDataParallel"),
}
_HOOKS = [f"_global_{way}" for way in ("forward_hooks", "forward_pre_hooks", "backward_hooks", "backward_pre_hooks")]
_PLAIN = frozenset((bool, int, float, str, bytes, type(None), torch.dtype, torch.device, Routes))
_TORCHS = frozenset(vars(nn.Module())) - {"training"}  # what torch keeps in a module; its tensors, hooks are looked at


def state_of(model: nn.Module, device: torch.device) -> tuple[Any, ...]:
    """What a call of the network may depend on beside its input and the numbers in its tensors. Raises Uncapturable
    where it cannot be recorded."""
    state: list[Any] = [*_flags()]
    for module in model.modules():
        _check(module)
        held = vars(module)
        for tensor in (*held["_parameters"].values(), *held["_buffers"].values()):
            if tensor is not None:
                if tensor.device != device:
                    raise Uncapturable("its tensors are not all on one device")
                state.append((tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype))
        state.append(type(module))
        state += [v if type(v) in _PLAIN else _seen(v) for name, v in held.items() if name not in _TORCHS]
    return tuple(state)


def _check(module: nn.Module) -> None:
    kind: Any = type(module)
    held = vars(module)
    if not is_steady(kind):
        raise Uncapturable(f"the code of {kind.__name__} may do another thing at each call")
    if "forward" in held or held.get("_compiled_call_impl") is not None:
        raise Uncapturable(f"the call of a {kind.__name__} was replaced")
    if held["_forward_hooks"] or held["_forward_pre_hooks"] or held["_backward_hooks"] or held["_backward_pre_hooks"]:
        raise Uncapturable(f"a hook is on a {kind.__name__}")
    if module.training:
        raise Uncapturable("a part of it is in training mode")
    routes = held.get("routes")
    if isinstance(routes, Routes) and (routes.frozen is not None or routes.recorder is not None):
        raise Uncapturable("its filter maps are held or recorded")


@functools.cache
def is_steady(kind: Any) -> bool:
    """Whether its modules do the same at every call, as far as a class tells: `steady = False` in it says no."""
    known = kind.__module__.partition(".")[0] in KNOWN
    return known and kind.__name__ not in _NEVER and bool(getattr(kind, "steady", True))


def _seen(value: object) -> object:
    """An attribute, as far as it can be told that it changed."""
    if type(value) in _PLAIN:
        return value
    if isinstance(value, Tensor):
        return id(value), value.data_ptr()
    if isinstance(value, list | tuple):
        return tuple(map(_seen, value))
    return id(value), len(value) if isinstance(value, Sized) else 0


def _flags() -> tuple[Any, ...]:
    """Torch's settings that decide which kernels compute. Raises Uncapturable where torch is in another way at work."""
    backends: Any = torch.backends
    autograd: Any = torch._C._autograd
    if torch.is_autocast_enabled("cuda"):
        raise Uncapturable("autocast is on")
    if autograd._top_saved_tensors_default_hooks(True):
        raise Uncapturable("hooks for saved tensors are set")
    if any(getattr(torch_module, name) for name in _HOOKS):
        raise Uncapturable("hooks for all modules are set")
    return (
        *(backends.cudnn.conv.fp32_precision, backends.cuda.matmul.fp32_precision),
        *(backends.cudnn.enabled, backends.cudnn.benchmark, backends.cudnn.deterministic),
        *(torch.are_deterministic_algorithms_enabled(), torch.get_default_dtype()),
    )
