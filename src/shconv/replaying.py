"""Networks run from CUDA graphs where they are asked for logits and gradients of the same kind again and again: by
attacks and evaluations. Forward pass, and backward pass down to the images, are a graph each; the bits are the same."""

import functools
import logging
import math
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Sized
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules import module as torch_module

from shconv.capturing import (
    CudaRecorder,
    Recorder,
    Recording,
    Results,
    Uncapturable,
    kind_of,
    log_once,
    off,
    replayed,
    still,
)
from shconv.routes import Routes

Model = Callable[[Tensor], Tensor]

SEEN = 2  # calls of a kind that run as they are
STATES = 100  # that one network is known in
SHARE = 0.25  # of a device's memory that graphs may hold
KNOWN = ("torch", "torchvision", "timm", "shconv")  # packages whose modules run the same operations at every call
_NEVER = {  # modules that bring their own ways to run
    *("ScriptModule", "RecursiveScriptModule", "TopLevelTracedModule", "OptimizedModule"),
    *("DataParallel", "DistributedDataParallel", "FullyShardedDataParallel"),
}
_ALIKE = 1e-2  # a replay that differs by more of the largest number is no replay
_HOOKS = [f"_global_{way}" for way in ("forward_hooks", "forward_pre_hooks", "backward_hooks", "backward_pre_hooks")]
_PLAIN = frozenset((bool, int, float, str, bytes, type(None), torch.dtype, torch.device, Routes))


def replaying(model: Model, recorder: Recorder | None = None) -> Model:
    """The model, run from CUDA graphs where it can be: a torch module on one CUDA device, in eval mode and without
    hooks, all of whose parts are of torch, torchvision, timm or shconv; else the model itself, and the log says why
    once. What it returns are tensors of the caller's.

    Of two calls that want a gradient the second runs as it is while somebody may still ask for the first one's.
    Gradients of gradients are not to be had. The module's state is looked at here: it must not be changed between this
    call and the last one of what it returns.
    """
    if not isinstance(model, nn.Module) or off():
        return model
    recorder = recorder or _CUDA
    parameters = list(model.parameters())
    if not parameters or recorder.reason(parameters[0].device):
        return model
    network = _NETWORKS.setdefault(model, _Network())
    if network.reason:
        return model
    try:
        state = state_of(model, parameters[0].device)
        if len(network.states) >= STATES and state not in network.states:
            network.reason = "it is in another state at each call"
            raise Uncapturable(network.reason)
    except Uncapturable as error:  # as long as it is in this state
        log_once(f"{type(model).__name__}: {error}", logging.INFO)
        return model
    frozen = not any(each.requires_grad for each in parameters)
    return _Replaying(model, network, network.states.setdefault(state, len(network.states)), frozen, recorder)


def module_of(model: Model) -> nn.Module | None:
    """The torch module that a model is, replayed or not; None for a function."""
    module: Any = model
    module = module.model if isinstance(module, _Replaying) else module
    return module if isinstance(module, nn.Module) else None


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


_TORCHS = frozenset(vars(nn.Module())) - {"training"}  # what torch keeps in a module; its tensors, hooks are looked at


def _check(module: nn.Module) -> None:
    kind: Any = type(module)
    held = vars(module)
    if not _is_steady(kind):
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
def _is_steady(kind: Any) -> bool:
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


class _Pair:
    """A forward pass, and the backward pass that belongs to it where a gradient was wanted, as recorded."""

    def __init__(self, held: Results, forward: Recording, above: Results, backward: Recording | None) -> None:
        self.held, self.forward, self.above, self.backward = held, forward, above, backward
        self.lent: weakref.ref[Any] = weakref.ref(_Token())  # of nothing that is alive
        self.lock = threading.Lock()  # of its tensors, until a call's results are out of them or it is lent

    @property
    def size(self) -> int:
        return self.forward.size + (self.backward.size if self.backward else 0)


class _Token:
    """Alive as long as somebody may still ask for the gradient of a forward pass."""


class _Network:
    """What is kept for one network, as long as it lives."""

    def __init__(self) -> None:
        self.reason = ""
        self.states: dict[tuple[Any, ...], int] = {}
        self.calls: dict[Any, int] = {}  # as it is, of a kind
        self.given_up: dict[Any, int] = {}  # how often a pair made room for others
        self.pairs: dict[Any, _Pair] = {}


_NETWORKS: weakref.WeakKeyDictionary[nn.Module, _Network] = weakref.WeakKeyDictionary()
_USED: OrderedDict[Any, tuple[weakref.ref[_Network], Any]] = OrderedDict()  # all pairs, the last used one last
_CUDA = CudaRecorder()


class _Replaying:
    """A network in one state. frozen: its parameters want no gradient."""

    def __init__(self, model: nn.Module, network: _Network, state: int, frozen: bool, recorder: Recorder) -> None:
        self.model, self.network, self.state, self.frozen, self.recorder = model, network, state, frozen, recorder

    def __call__(self, x: Tensor) -> Tensor:
        wanted = torch.is_grad_enabled() and (x.requires_grad or not self.frozen)
        if self.network.reason or self.recorder.reason(x.device) or (wanted and not self.frozen):
            return self._plain(x)
        if torch.is_inference_mode_enabled():  # tensors made in it may not be written outside
            return self._plain(x)
        stream = torch._C._cuda_getCurrentRawStream(x.get_device()) if x.is_cuda else 0  # two may run side by side
        key = (self.state, wanted, kind_of((x,)), stream)
        pair = self.network.pairs.get(key)
        if pair is None:
            calls = self.network.calls[key] = self.network.calls.get(key, 0) + 1
            if calls <= SEEN or (pair := self._recorded(x, wanted, key)) is None:
                return self._plain(x)
        _USED.move_to_end((id(self.network), key))
        with pair.lock:
            if not wanted:
                return replayed(pair.held, pair.forward, (x,))[0].clone()
            if pair.lent() is None:
                logits: Tensor = _Replay.apply(x, pair)
                return logits
        return self._plain(x)

    def _plain(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x)
        return logits

    def _recorded(self, x: Tensor, wanted: bool, key: Any) -> _Pair | None:
        """The passes at x, recorded; None where that fails, and then for good."""
        try:
            with torch.random.fork_rng([x.device] if x.is_cuda else []):
                pair = self._proved(x, wanted)
            _keep(self.network, key, pair, x.device)
        except (Uncapturable, torch.OutOfMemoryError) as error:
            self.network.reason = str(error).partition("\n")[0]
            self.network.pairs.clear()
            log_once(f"{type(self.model).__name__}: {self.network.reason}")
            return None
        return pair

    def _proved(self, x: Tensor, wanted: bool) -> _Pair:
        (held,) = still((x,))
        held.requires_grad_(wanted)

        def forward() -> Results:
            with torch.set_grad_enabled(wanted):
                return (_logits(self.model(held), held),)

        def both() -> Results:
            (logits,) = forward()
            above = torch.ones_like(logits)
            return logits.detach(), *((_gradient(logits, held, above, False),) if wanted else ())

        before = state_of(self.model, x.device)
        with torch.random.fork_rng([x.device] if x.is_cuda else []):
            found, reason = self.recorder.checked(both)
        if reason or state_of(self.model, x.device) != before:
            raise Uncapturable(reason or "a call changes it")
        pool, above = self.recorder.pool(), torch.ones_like(found[0])
        first = self.recorder.record(forward, pool)
        second = None
        if wanted:
            logits = first.results[0]
            second = self.recorder.record(lambda: (_gradient(logits, held, above, True),), pool)
        pair = _Pair((held.detach(),), first, (above,), second)
        again = [replayed(pair.held, first, (x,))[0].detach()]
        again += [replayed(pair.above, second, (above,))[0]] if second else []
        if not all(map(_alike, found, again)):
            raise Uncapturable("a replay gave other numbers than a call")
        return pair


def _keep(network: _Network, key: Any, pair: _Pair, device: torch.device) -> None:
    """Raises Uncapturable where it takes too much memory; others that have not been used for long make room. Each time
    they do they wait ten times as long until they are recorded anew: two that have no room together take turns."""
    network.pairs[key] = pair
    _USED[id(network), key] = weakref.ref(network), key
    most = _most(device)
    if pair.size > most:
        raise Uncapturable(f"its passes take {pair.size / 2**30:.1f} GB, more than a quarter of the memory")
    sizes = {}
    for place, (owner, its) in list(_USED.items()):
        held = owner()
        if held is None or its not in held.pairs:
            del _USED[place]
        else:
            sizes[place] = held.pairs[its].size
    for place, size in list(sizes.items()):
        if sum(sizes.values()) <= most:
            break
        owner, its = _USED.pop(place)
        if (held := owner()) is not None:
            del held.pairs[its]
            held.given_up[its] = held.given_up.get(its, 0) + 1
            held.calls[its] = SEEN - 10 ** held.given_up[its]
        del sizes[place], size


def _most(device: torch.device) -> float:
    """Bytes that all graphs of a device may hold."""
    return SHARE * torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else math.inf


def _logits(out: object, x: Tensor) -> Tensor:
    if not isinstance(out, Tensor) or out.device != x.device or not out.is_floating_point():
        raise Uncapturable("it returns something else than logits on its device")
    return out


def _gradient(logits: Tensor, x: Tensor, above: Tensor, keep: bool) -> Tensor:
    """keep: for a recording, which may be replayed several times for one forward pass."""
    if not logits.requires_grad:
        raise Uncapturable("it passes no gradient")
    return torch.autograd.grad(logits, x, above, retain_graph=keep)[0]


def _alike(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    largest = one.abs().nan_to_num(0.0, 0.0, 0.0).max()
    return bool(torch.isclose(one, other, rtol=0, atol=float(_ALIKE * largest), equal_nan=True).all())


class _Replay(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, pair: _Pair) -> Tensor:
        ctx.pair, ctx.token = pair, _Token()
        pair.lent = weakref.ref(ctx.token)
        return replayed(pair.held, pair.forward, (x,))[0].detach().clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        if ctx.token is None:  # another pass may be in the graph's tensors by now
            raise RuntimeError("a second backward pass through a network's graph needs retain_graph=True in the first")
        found = replayed(ctx.pair.above, ctx.pair.backward, gradients)[0].clone()
        if not torch._C._autograd._get_current_graph_task_keep_graph():
            ctx.token = None
        return found, None
