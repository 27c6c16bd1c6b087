"""A recorder of work on the CPU, in the place of CUDA's: it notes every operation with its tensors, and a replay runs
the same operations on the same memory. So what a CUDA graph would read stale, or write over, goes wrong here too."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only

from shconv.capturing import Recording, Results, Uncapturable, _drawn

RUNNING = {"running_mean", "running_var"}  # batch norm writes them, and its schema does not say so
WAITS = {"aten::_local_scalar_dense", "aten::nonzero"}


class _Noting(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, tuple[Any, ...], dict[str, Any], Any]] = []
        self.names: set[str] = set()
        self.before: list[tuple[Tensor, Tensor]] = []
        self.drawn = {torch.default_generator: torch.default_generator.get_state()}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        kwargs = kwargs or {}
        self.names.add(func._schema.name)
        for value in kwargs.values():
            if isinstance(value, torch.Generator):
                self.drawn.setdefault(value, value.get_state())
        for place, argument in enumerate(func._schema.arguments):
            written = (argument.alias_info is not None and argument.alias_info.is_write) or argument.name in RUNNING
            value = args[place] if place < len(args) else kwargs.get(argument.name)
            if written and isinstance(value, Tensor):
                self.before.append((value, value.clone()))
        out = func(*args, **kwargs)
        self.calls.append((func, args, kwargs, out))
        return out

    def rewind(self) -> None:
        """As if nothing had been computed."""
        for generator, state in self.drawn.items():
            generator.set_state(state)
        for tensor, was in reversed(self.before):
            tensor.data.copy_(was)  # by way of data: autograd counts no change, as it does not see what CUDA replays

    @torch.no_grad()
    def replay(self) -> None:
        for func, args, kwargs, out in self.calls:
            again = func(*tree_map_only(Tensor, _data, args), **tree_map_only(Tensor, _data, kwargs))
            for new, held in zip(tree_flatten(again)[0], tree_flatten(out)[0], strict=True):
                if isinstance(new, Tensor) and isinstance(held, Tensor) and new.data_ptr() != held.data_ptr():
                    held.data.copy_(new)


def _data(tensor: Tensor) -> Tensor:
    return tensor.data


@dataclass
class Tape:
    """What was done with it is counted."""

    recorded: int = 0
    replayed: int = 0
    fails: str = ""  # what recording raises, if anything
    size: int = 0  # bytes that each recording is said to hold
    reasons: list[str] = field(default_factory=list)

    def reason(self, device: torch.device) -> str:
        return ""

    def aside(self, run: Callable[[], Results]) -> Results:
        return run()

    def checked(self, run: Callable[[], Results]) -> tuple[Results, str]:
        drawn = _drawn()
        with _Noting() as noted:
            results = run()
        if noted.names & WAITS:
            return results, "the host waits for the device in the midst of it"
        return results, "" if _drawn() == drawn else "it draws random numbers on the CPU"

    def record(self, run: Callable[[], Results], pool: Any) -> Recording:
        if self.fails:
            raise Uncapturable(self.fails)
        self.recorded += 1
        with _Noting() as noted:
            results = run()
        noted.rewind()

        def replay() -> None:
            self.replayed += 1
            noted.replay()

        return Recording(results, replay, self.size)

    def pool(self) -> None:
        return None
