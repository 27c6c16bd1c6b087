"""Which calls of a network are replayed, which run as they are, and what ends the recording of a network."""

import logging
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from shconv.capturing import CudaRecorder, Recorder, Uncapturable, kind_of, log_once, off, replayed
from shconv.replaying.memory import NETWORKS, SEEN, USED, Recordings, keep
from shconv.replaying.passes import Pair, Token, recorded
from shconv.replaying.state import state_of

Model = Callable[[Tensor], Tensor]

STATES = 100  # that one network is known in
_CUDA = CudaRecorder()


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
    recordings = NETWORKS.setdefault(model, Recordings())
    if recordings.reason:
        return model
    try:
        state = state_of(model, parameters[0].device)
        if len(recordings.states) >= STATES and state not in recordings.states:
            recordings.reason = "it is in another state at each call"
            raise Uncapturable(recordings.reason)
    except Uncapturable as error:  # as long as it is in this state
        log_once(f"{type(model).__name__}: {error}", logging.INFO)
        return model
    frozen = not any(each.requires_grad for each in parameters)
    return _Replaying(model, recordings, recordings.states.setdefault(state, len(recordings.states)), frozen, recorder)


def module_of(model: Model) -> nn.Module | None:
    """The torch module that a model is, replayed or not; None for a function."""
    module: Any = model
    module = module.model if isinstance(module, _Replaying) else module
    return module if isinstance(module, nn.Module) else None


class _Replaying:
    """A network in one state. frozen: its parameters want no gradient."""

    def __init__(self, model: nn.Module, recordings: Recordings, state: int, frozen: bool, recorder: Recorder) -> None:
        self.model, self.recordings, self.state, self.frozen, self.recorder = model, recordings, state, frozen, recorder

    def __call__(self, x: Tensor) -> Tensor:
        wanted = torch.is_grad_enabled() and (x.requires_grad or not self.frozen)
        if self.recordings.reason or self.recorder.reason(x.device) or (wanted and not self.frozen):
            return self._plain(x)
        if torch.is_inference_mode_enabled():  # tensors made in it may not be written outside
            return self._plain(x)
        stream = torch._C._cuda_getCurrentRawStream(x.get_device()) if x.is_cuda else 0  # two may run side by side
        key = (self.state, wanted, kind_of((x,)), stream)
        pair = self.recordings.pairs.get(key)
        if pair is None:
            calls = self.recordings.calls[key] = self.recordings.calls.get(key, 0) + 1
            if calls <= SEEN or (pair := self._recorded(x, wanted, key)) is None:
                return self._plain(x)
        USED.move_to_end((id(self.recordings), key))
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

    def _recorded(self, x: Tensor, wanted: bool, key: Any) -> Pair | None:
        """The passes at x, recorded; None where that fails, and then for good."""
        try:
            with torch.random.fork_rng([x.device] if x.is_cuda else []):
                pair = recorded(self.model, self.recorder, x, wanted)
            keep(self.recordings, key, pair, x.device)
        except (Uncapturable, torch.OutOfMemoryError) as error:
            self.recordings.reason = str(error).partition("\n")[0]
            self.recordings.pairs.clear()
            log_once(f"{type(self.model).__name__}: {self.recordings.reason}")
            return None
        return pair


class _Replay(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, pair: Pair) -> Tensor:
        ctx.pair, ctx.token = pair, Token()
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
