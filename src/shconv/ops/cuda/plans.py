"""Launch plans: a compiled kernel with its grid and the order of its arguments, remembered by all that Triton compiles
it for. A second call of a kind goes straight to the kernel; Triton's own way there takes tens of microseconds."""

from collections.abc import Callable, Hashable, Mapping
from typing import Any

import torch
import triton

from shconv.ops.cuda import tape

_MOST = 4096  # kinds of call remembered
Grid = tuple[int, ...] | Callable[[Any], tuple[int, ...]]

_plans: dict[Hashable, tuple[Any, tuple[str, ...]]] = {}


def run(kernel: Any, grid: Grid, arguments: Mapping[str, Any]) -> None:
    """kernel[grid](**arguments) on the current device: arguments are the kernel's, by name, and Triton's options.

    Tensors count by dtype and by whether they begin at a multiple of 16 bytes, descriptors by dtype and box, everything
    else by its value.
    """
    if (collected := tape.collected()) is not None:
        collected.append((kernel, dict(arguments)))
        return
    places = grid(arguments) if callable(grid) else grid
    if (recorder := tape.recorder()) is None:
        _launch(kernel, places, arguments)
    else:
        recorder.launch(_launch, kernel, places, arguments)


def _launch(kernel: Any, places: tuple[int, ...], arguments: Mapping[str, Any]) -> Any:
    """The compiled kernel; None in the interpreter."""
    if triton.knobs.runtime.interpret:
        return kernel[places](**arguments)
    kinds = tuple((name, *tape.kind(each)) for name, each in arguments.items())
    key = id(kernel), torch.cuda.current_device(), kinds
    if (plan := _plans.get(key)) is not None:
        compiled, names = plan
        compiled[(*places, 1, 1)[:3]](*(arguments[name] for name in names))
        return compiled
    if len(_plans) >= _MOST:
        _plans.clear()
    compiled = kernel[places](**arguments)
    names = tuple(kernel.arg_names)
    if compiled is not None and all(name in arguments for name in names):
        _plans[key] = compiled, names
    return compiled
