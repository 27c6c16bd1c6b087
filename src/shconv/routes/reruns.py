"""Which forward passes a call is part of, where torch runs them again during backward (activation checkpointing).
A run is known by what torch keeps of it until then: the context of an autograd.Function, or a checkpoint's frame."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import FrameType, GeneratorType
from typing import Any

import torch
from torch.autograd.function import BackwardCFunction
from torch.utils import checkpoint

_CHECKPOINT = checkpoint.__file__
_BACKWARDS = tuple(  # their code stands between the engine and a Function's backward
    getattr(BackwardCFunction, name).__code__ for name in ("apply", "apply_boxed") if hasattr(BackwardCFunction, name)
)


class Run:
    """One forward pass that may be run again, and what is to hold then: a note for each module, made the first time."""

    def __init__(self) -> None:
        self.notes: dict[Any, Any] = {}

    def __reduce__(self) -> tuple[type["Run"], tuple[()]]:
        return Run, ()  # a copied or stored network is in no run

    @classmethod
    def of(cls, owner: Any) -> "Run":
        """The run that torch keeps `owner` for."""
        run: Run = vars(owner).setdefault("_shconv_run", cls())
        return run


@dataclass
class Runs:
    """Where a call stands: in these runs for the first time, innermost first, all within one that is run again."""

    first: list[Run] = field(default_factory=list)
    again: Run | None = None
    unknown: bool = False  # within a backward pass, and in no run whose first time was seen


def in_backward() -> bool:
    """Whether autograd is at work below this call: a forward pass is then run again, or an exotic one."""
    return bool(torch._C._current_graph_task_id() != -1)


def runs() -> Runs:
    """The runs around the caller, read from the stack."""
    found = Runs()
    if torch.compiler.is_dynamo_compiling():
        return found
    for owner, again in _owners(sys._getframe(1)):
        if again:
            found.first = [run for run in found.first if run is not Run.of(owner)]
            found.unknown = not _shows_its_context(owner)
            found.again = None if found.unknown else Run.of(owner)
            return found
        found.first.append(Run.of(owner))
    if (hooks := torch._C._autograd._top_saved_tensors_default_hooks(True)) and (owner := _closure(hooks[0])):
        found.first = [run for run in found.first if run is not Run.of(owner)] + [Run.of(owner)]
    found.unknown = in_backward()
    return found


def _owners(frame: FrameType | None) -> Iterator[tuple[Any, bool]]:
    """What stands for each run around a frame, innermost first; with True, at last, for one that is run again."""
    while frame is not None:
        code = frame.f_code
        if code in _BACKWARDS:
            yield frame.f_locals["self"], True
        elif code.co_filename == _CHECKPOINT:
            held = frame.f_locals
            if code.co_name == "unpack_hook":
                yield held["frame"], True
            elif isinstance(steps := held.get("gen"), GeneratorType) and steps.gi_frame is not None:
                yield steps.gi_frame.f_locals["new_frame"], False
        if code.co_argcount and code.co_varnames[0] == "ctx" and _is_context(ctx := frame.f_locals.get("ctx")):
            yield ctx, False
        frame = frame.f_back


def _is_context(value: Any) -> bool:
    return isinstance(value, torch._C._FunctionBase)


def _shows_its_context(owner: Any) -> bool:
    """Whether the forward of an autograd.Function is given the context its backward gets, and so was seen."""
    if not _is_context(owner):
        return True
    code = owner._forward_cls.forward.__code__
    return bool(code.co_argcount and code.co_varnames[0] == "ctx")


def _closure(pack: Any) -> Any:
    """The frame of a checkpoint whose forward pass goes on between two hooks, with no call of torch's on the stack."""
    cells = getattr(pack, "__closure__", None) or ()
    return next(
        (cell.cell_contents for cell in cells if isinstance(cell.cell_contents, checkpoint._CheckpointFrame)), None
    )
