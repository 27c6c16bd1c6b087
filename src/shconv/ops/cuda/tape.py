"""What a function does on a GPU, written down while it runs: every launch of a Triton kernel, every operation of
torch's, and in which tensor, and where in it, each finds its numbers. replay.py does it again, for tensors of the same
kind: what is launched stays described once, by the function. Importing this imports no triton.
"""

import itertools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only

_aten = torch.ops.aten
_EMPTY = {
    _aten.empty.memory_format, _aten.empty_strided.default, _aten.empty_like.default, _aten.new_empty.default,
    _aten.new_empty_strided.default,
}  # fmt: skip


class UnrecordableError(Exception):
    """The function does something that can't be run again. later: another call of the kind may be written down."""

    def __init__(self, reason: str, later: bool = False) -> None:
        super().__init__(reason)
        self.later = later


class Root(NamedTuple):
    """A block of memory that the function asks for, or that an operation of torch's makes."""

    dtype: torch.dtype
    size: tuple[int, ...]
    stride: tuple[int, ...]
    bytes: int
    computed: bool  # by an operation


class Ref(NamedTuple):
    """A tensor: it begins `offset` bytes into a root. The inputs are the first roots, then those the function makes."""

    root: int
    offset: int
    dtype: torch.dtype
    size: tuple[int, ...]
    stride: tuple[int, ...]


class Described(NamedTuple):
    """A TMA descriptor of a tensor."""

    base: Ref
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    box: tuple[int, ...]
    nan: bool  # what lies outside
    rounded: bool  # float32 to TF32


class Launched(NamedTuple):
    kernel: Any
    grid: tuple[int, ...]
    arguments: dict[str, Any]  # the kernel's and Triton's options; Ref and Described for tensors
    compiled: Any  # None in the interpreter


class Computed(NamedTuple):
    """An operation of torch's, with Ref for tensors; `made` are the roots of its results, None for one that is no new
    tensor."""

    operation: Any
    arguments: tuple[Any, ...]
    named: dict[str, Any]
    made: tuple[int | None, ...]


class Tape(NamedTuple):
    inputs: int
    roots: tuple[Root, ...]  # those that are no inputs
    steps: tuple[Launched | Computed, ...]
    results: tuple[Ref | None, ...]


class Recorder(TorchDispatchMode):
    """Sees the operations of its thread; plans.run tells it of launches. It keeps every tensor that is made, so that an
    address belongs to one."""

    def __init__(self, inputs: Sequence[Tensor | None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._ranges = [(0, 0) if each is None else _range(each) for each in inputs]
        taken = sorted(each for each in self._ranges if each[1] > each[0])
        if any(first[1] > second[0] for first, second in itertools.pairwise(taken)):
            raise UnrecordableError("tensors that share memory", later=True)
        self._inputs, self._kept = len(inputs), list[Tensor]()
        self._roots, self._steps = list[Root](), list[Launched | Computed]()
        self._launching = False
        self._refusal: UnrecordableError | None = None

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        named = dict(kwargs or {})
        found = func(*args, **named)
        if self._launching:
            return found
        if func in _EMPTY:
            self._add(found, False)
        elif not _is_view(func):
            try:
                arguments, its = tree_map_only(Tensor, self.ref, (args, named))
                made = tuple(map(self._result, tree_flatten(found)[0]))
                self._steps.append(Computed(func, arguments, its, made))
            except UnrecordableError as refusal:  # not raised through what is being recorded, which goes on
                self.refuse(refusal)
        return found

    def launch(self, run: Callable[..., Any], kernel: Any, grid: tuple[int, ...], arguments: Mapping[str, Any]) -> None:
        """run(kernel, grid, arguments) gives the compiled kernel; torch's operations in it are Triton's own."""
        self._launching = True
        try:
            compiled = run(kernel, grid, arguments)
        finally:
            self._launching = False
        try:
            named = {name: self._argument(each) for name, each in arguments.items()}
            self._steps.append(Launched(kernel, grid, named, compiled))
        except UnrecordableError as refusal:
            self.refuse(refusal)

    def refuse(self, refusal: UnrecordableError) -> None:
        self._refusal = self._refusal or refusal

    def tape(self, results: Sequence[Tensor | None]) -> Tape:
        if self._refusal is not None:
            raise self._refusal
        found = tuple(None if each is None else self.ref(each) for each in results)
        return Tape(self._inputs, tuple(self._roots), tuple(self._steps), found)

    def ref(self, tensor: Tensor) -> Ref:
        address = tensor.data_ptr()
        for root, (first, last) in enumerate(self._ranges):
            if first <= address < last:
                return Ref(root, address - first, tensor.dtype, tuple(tensor.shape), tensor.stride())
        raise UnrecordableError(f"a tensor {tuple(tensor.shape)} that is neither given nor made")

    def _argument(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return self.ref(value) if value.data_ptr() else None
        if not hasattr(value, "block_shape"):
            return value
        shape, strides, box = map(tuple, (value.shape, value.strides, value.block_shape))
        rounded = getattr(value, "round_f32_to_tf32", False)
        return Described(self.ref(value.base), shape, strides, box, value.padding == "nan", rounded)

    def _result(self, value: Any) -> int | None:
        """The root it is, where the operation made it."""
        if not isinstance(value, Tensor):
            raise UnrecordableError("an operation that gives no tensor")
        first, last = _range(value)
        if any(begin <= first < end for begin, end in self._ranges):
            return None
        return self._add(value, True) if last > first else None

    def _add(self, made: Tensor, computed: bool) -> int:
        first, last = _range(made)
        self._kept.append(made)
        self._ranges.append((first, last))
        self._roots.append(Root(made.dtype, tuple(made.shape), made.stride(), last - first, computed))
        return len(self._ranges) - 1


_local = threading.local()


def recorder() -> Recorder | None:
    """The one that writes down what this thread does."""
    return getattr(_local, "recorder", None)


Launches = list[tuple[Any, dict[str, Any]]]  # kernels, and their arguments and Triton's options by name
_collected: dict[int, Launches] = {}  # by thread


def collected() -> Launches | None:
    """Where this thread writes launches down instead of making them."""
    return _collected.get(threading.get_ident()) if _collected else None


@contextmanager
def collecting() -> Iterator[Launches]:
    """Inside, plans.run makes no launch in this thread, and what it is asked for comes into the list. Backward passes
    do not leave the thread for autograd's own; what others compute at the time is computed."""
    found = _collected[threading.get_ident()] = []
    try:
        with torch.autograd.set_multithreading_enabled(False):
            yield found
    finally:
        del _collected[threading.get_ident()]


def refuse_for_now(reason: str) -> None:
    """Told by what is done once, such as trying tiles: a later call is the one to write down."""
    if (now := recorder()) is not None:
        now.refuse(UnrecordableError(reason, later=True))


@contextmanager
def _recording(now: Recorder) -> Iterator[None]:
    _local.recorder = now
    try:
        with now:
            yield
    finally:
        _local.recorder = None


def record(
    function: Callable[..., tuple[Tensor | None, ...]], inputs: Sequence[Tensor | None]
) -> tuple[tuple[Tensor | None, ...], Tape | UnrecordableError]:
    """What function(*inputs) gives, and how it came about or why that can't be run again."""
    try:
        now = Recorder(inputs)
    except UnrecordableError as refusal:
        return function(*inputs), refusal
    results: tuple[Tensor | None, ...] | None
    try:
        with _recording(now):
            results = function(*inputs)
    except torch.OutOfMemoryError:
        del now  # it keeps what the function alone would have freed
        results = None
    if results is None:
        return function(*inputs), UnrecordableError("memory is short", later=True)
    try:
        return results, now.tape(results)
    except UnrecordableError as refusal:
        return results, refusal


def kind(argument: Any) -> tuple[Any, ...]:
    """What Triton compiles a kernel anew for, of an argument: a tensor's dtype and whether it begins at a multiple of
    16 bytes, a descriptor's dtype and box, any other value."""
    if isinstance(argument, Tensor):
        return argument.dtype, argument.data_ptr() % 16 == 0
    if hasattr(argument, "block_shape"):
        return argument.base.dtype, *argument.block_shape
    return (argument,)


def _is_view(operation: Any) -> bool:
    returns = operation._schema.returns
    return bool(returns) and all(each.alias_info and not each.alias_info.is_write for each in returns)


def _range(tensor: Tensor) -> tuple[int, int]:
    """Addresses of its elements."""
    first = tensor.data_ptr()
    if tensor.numel() == 0:
        return first, first
    reach = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return first, first + (reach + 1) * tensor.element_size()
