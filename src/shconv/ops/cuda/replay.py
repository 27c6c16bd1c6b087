"""A function that launches kernels, called with tensors of a kind it has seen: what it did then is done again, without
its Python. A call is one allocation for all that is not returned, one for each result, and one call of launcher.py.

The first call of a kind runs the function as it is, and compiles and tries what has to be; the second is recorded.
"""

import functools
import itertools
import logging
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from shconv.ops import memory
from shconv.ops.cuda import launcher, runtime, tape, tuning
from shconv.ops.cuda.tape import Computed, Launched, Ref, Root, Tape, UnrecordableError, record
from shconv.ops.modes import autocast_off
from shconv.ops.seen import Seen

Results = tuple[Tensor | None, ...]
Run = Callable[[list[Tensor | None], Sequence[int]], None]  # of all tensors, and the addresses of the first of them
Make = Callable[[Sequence[Launched], int], Run]

_MOST = 4096  # kinds of call remembered
_TRIES = 4  # calls of a kind that may be recorded, where the first try tiles
_ALIGNED = 256  # bytes, where a buffer of the scratch begins: as torch's own do
_log = logging.getLogger(__name__)


def call(function: Callable[..., Results], inputs: Sequence[Tensor], *numbers: Hashable) -> tuple[Any, ...]:
    """function(inputs, *numbers), the first of the inputs on a CUDA device. What it launches must depend on the kinds
    of its inputs, on numbers and on tuning alone, and what it does is done by torch and plans.run."""
    first = inputs[0]
    if tape.collected() is not None:
        return function(inputs, *numbers)
    device = first.get_device()
    if torch._C._cuda_getDevice() != device:
        with torch.cuda.device(device):
            return call(function, inputs, *numbers)
    addresses = [each.data_ptr() for each in inputs]
    together = 0
    for address in addresses:
        together |= address
    if together % 16:  # kernels are compiled for other addresses
        return function(inputs, *numbers)
    tf32 = first.dtype == torch.float32 and runtime.tf32()
    near = function, numbers, first.shape, tuning.state(), tf32
    if (player := _near.find(near, inputs)) is not None:
        return player.play(inputs, addresses)
    key = near, *[(each.shape, each.stride(), each.dtype, each.get_device()) for each in inputs]
    known = _known.get(key, 0)
    if isinstance(known, Player):
        _near.add(near, inputs, known)
        return known.play(inputs, addresses)
    if known is None or first.numel() == 0 or torch.cuda.is_current_stream_capturing():
        return function(inputs, *numbers)
    if known == 0:
        if len(_known) >= _MOST:
            _known.clear()
            _near.clear()
        _known[key] = 1
        return function(inputs, *numbers)
    results, found = record(lambda *tensors: function(tensors, *numbers), inputs)
    _known[key] = _next(found, known, device)
    return results


_known: "dict[Hashable, Player | int | None]" = {}  # how often a kind was called, or None where it can't be replayed
_near: "Seen[Player]" = Seen()


def _next(found: Tape | UnrecordableError, known: int, device: int) -> "Player | int | None":
    try:
        if isinstance(found, Tape):
            return Player(found, device, _launcher)
        refusal = found
    except UnrecordableError as error:
        refusal = error
    if refusal.later and known < _TRIES:
        return known + 1
    _log.info("a layer's launches are made one by one: %s", refusal)
    return None


def _launcher(launches: Sequence[Launched], device: int) -> Run:
    play = launcher.player(launches, device)

    def run(roots: Sequence[Tensor | None], known: Sequence[int]) -> None:
        others = [0 if each is None else each.data_ptr() for each in roots[len(known) :]]
        play([*known, *others], launcher.stream(device))

    return run


class Player:
    """A tape that is ready to be played on a device (-1: the CPU), with `make` for launches that follow each other."""

    def __init__(self, tape: Tape, device: int, make: Make) -> None:
        offsets, self.bytes = _layout(tape)
        used = {ref.root for ref in _refs((tape.steps, tape.results))} - offsets.keys()
        roots = {place: root for place, root in enumerate(tape.roots, tape.inputs) if root.computed or place in used}
        made = {place: root for place, root in roots.items() if not root.computed}
        self.empty = memory.empty("cuda" if device >= 0 else "cpu")
        self.made = [(root.size, root.stride, root.dtype) for root in made.values()]
        if self.bytes:
            self.made.append(((self.bytes,), (1,), torch.uint8))
        self.others = [None] * (len(roots) - len(made) + 1)  # what operations make; the last: a result that is none
        scratch = tape.inputs + len(made)
        order = [*range(tape.inputs), *made, *[-1] * bool(self.bytes), *(roots.keys() - made.keys())]
        slots: dict[int | None, int] = {place: slot for slot, place in enumerate(order)}

        def placed(value: Any) -> Any:
            if isinstance(value, Ref):
                root, first = (scratch, offsets[value.root]) if value.root in offsets else (slots[value.root], 0)
                return value._replace(root=root, offset=first + value.offset)
            if isinstance(value, dict):
                return {name: placed(each) for name, each in value.items()}
            if hasattr(value, "_fields"):
                return value._make(map(placed, value))
            return type(value)(map(placed, value)) if type(value) in (list, tuple) else value

        self.steps: list[Run] = []
        self.computes = False
        for launches, steps in itertools.groupby(tape.steps, lambda each: isinstance(each, Launched)):
            if launches:
                self.steps.append(make([placed(each) for each in steps], device))
                continue
            self.computes = True
            for each in steps:
                made_of_it = tuple(None if root is None else slots[root] for root in each.made)  # type: ignore[union-attr]
                self.steps.append(functools.partial(_compute, placed(each)._replace(made=made_of_it)))
        self.places = [-1 if ref is None else slots[ref.root] for ref in tape.results]
        self.views = [_view(ref, placed(ref), made) for ref in tape.results]
        self.whole = not any(self.views)

    def play(self, inputs: Sequence[Tensor], addresses: Sequence[int] = ()) -> Results:
        """addresses: of the inputs, where they are known."""
        empty = self.empty
        roots = [*inputs, *[empty(*kind) for kind in self.made], *self.others]
        if self.computes:
            with autocast_off(inputs[0]):
                for step in self.steps:
                    step(roots, addresses)
        else:
            for step in self.steps:
                step(roots, addresses)
        if self.whole:
            return tuple([roots[place] for place in self.places])
        found = zip(self.places, self.views, strict=True)
        return tuple([roots[place] if view is None else tensor(roots, view) for place, view in found])


def _view(result: Ref | None, placed: Ref | None, made: Mapping[int, Root]) -> Ref | None:
    """A result that is not as its root is made, where it is placed."""
    root = None if result is None else made.get(result.root)
    return None if result is None or (root and result[1:] == (0, *root[:3])) else placed


def tensor(roots: Sequence[Tensor | None], ref: Ref) -> Tensor:
    """The tensor that ref names."""
    root = roots[ref.root]
    assert root is not None
    if not ref.offset and root.dtype == ref.dtype and root.shape == ref.size and root.stride() == ref.stride:
        return root
    whole = root if root.dtype == ref.dtype else root.view(ref.dtype)
    return whole.as_strided(ref.size, ref.stride, whole.storage_offset() + ref.offset // ref.dtype.itemsize)


def _compute(step: Computed, roots: list[Tensor | None], addresses: Sequence[int]) -> None:
    def given(value: Any) -> Any:
        if isinstance(value, Ref):
            return tensor(roots, value)
        return type(value)(map(given, value)) if type(value) in (list, tuple) else value

    found = step.operation(*map(given, step.arguments), **{name: given(each) for name, each in step.named.items()})
    for root, result in zip(step.made, found if isinstance(found, tuple | list) else (found,), strict=True):
        if root is not None:
            roots[root] = result


def _layout(tape: Tape) -> tuple[dict[int, int], int]:
    """Where in the scratch each root lies that launches alone use, by the first place that is free from its first use
    to its last; and how many bytes that is."""
    outside = {each.root for each in tape.results if each is not None}
    used: dict[int, list[int]] = {}
    for number, step in enumerate(tape.steps):
        for ref in _refs(step):
            used.setdefault(ref.root, []).append(number)
            if isinstance(step, Computed):
                outside.add(ref.root)
    offsets, total = dict[int, int](), 0
    taken: list[tuple[int, int, int, int]] = []  # first and last use, first and last byte
    for place, root in enumerate(tape.roots, tape.inputs):
        if place in outside or root.computed or place not in used:
            continue
        first, last = used[place][0], used[place][-1]
        size = -(-root.bytes // _ALIGNED) * _ALIGNED
        at = 0
        for _, _, begin, end in sorted((each for each in taken if each[0] <= last and first <= each[1]), key=_begin):
            if begin < at + size and at < end:
                at = end
        offsets[place] = at
        taken.append((first, last, at, at + size))
        total = max(total, at + size)
    return offsets, total


def _begin(taken: tuple[int, int, int, int]) -> int:
    return taken[2]


def _refs(value: Any) -> Iterable[Ref]:
    """All in a step or in a part of it."""
    if isinstance(value, Ref):
        yield value
    elif isinstance(value, dict):
        yield from _refs(tuple(value.values()))
    elif isinstance(value, tuple | list):
        for each in value:
            yield from _refs(each)
