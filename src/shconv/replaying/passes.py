"""A network's forward pass, and the backward pass down to its images, recorded: a replay has to give the numbers that a
call gives."""

import threading
import weakref

import torch
from torch import Tensor, nn

from shconv.capturing import Recorder, Recording, Results, Uncapturable, replayed, still
from shconv.replaying.state import state_of

_ALIKE = 1e-2  # a replay that differs by more of the largest number is no replay


class Pair:
    """A forward pass, and the backward pass that belongs to it where a gradient was wanted, as recorded."""

    def __init__(self, held: Results, forward: Recording, above: Results, backward: Recording | None) -> None:
        self.held, self.forward, self.above, self.backward = held, forward, above, backward
        self.lent: weakref.ref[Token] = weakref.ref(Token())  # of nothing that is alive
        self.lock = threading.Lock()  # of its tensors, until a call's results are out of them or it is lent

    @property
    def size(self) -> int:
        return self.forward.size + (self.backward.size if self.backward else 0)


class Token:
    """Alive as long as somebody may still ask for the gradient of a forward pass."""


def recorded(model: nn.Module, recorder: Recorder, x: Tensor, wanted: bool) -> Pair:
    """The passes at x, recorded; wanted: with a gradient. Raises Uncapturable where a replay is not what a call is."""
    (held,) = still((x,))
    held.requires_grad_(wanted)

    def forward() -> Results:
        with torch.set_grad_enabled(wanted):
            return (_logits(model(held), held),)

    def both() -> Results:
        (logits,) = forward()
        above = torch.ones_like(logits)
        return logits.detach(), *((_gradient(logits, held, above, False),) if wanted else ())

    before = state_of(model, x.device)
    with torch.random.fork_rng([x.device] if x.is_cuda else []):
        found, reason = recorder.checked(both)
    if reason or state_of(model, x.device) != before:
        raise Uncapturable(reason or "a call changes it")
    pool, above = recorder.pool(), torch.ones_like(found[0])
    first = recorder.record(forward, pool)
    second = None
    if wanted:
        logits = first.results[0]
        second = recorder.record(lambda: (_gradient(logits, held, above, True),), pool)
    pair = Pair((held.detach(),), first, (above,), second)
    again = [replayed(pair.held, first, (x,))[0].detach()]
    again += [replayed(pair.above, second, (above,))[0]] if second else []
    if not all(map(_alike, found, again)):
        raise Uncapturable("a replay gave other numbers than a call")
    return pair


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
