"""Launch plans: a compiled kernel with its grid and the order of its arguments, remembered by all that Triton compiles
it for. A second call of a kind goes straight to the kernel; Triton's own way there takes tens of microseconds."""

from collections.abc import Callable, Hashable, Mapping
from typing import Any

import torch
import triton
from torch import Tensor

_MOST = 4096  # kinds of call remembered
_ALIGNED = 16  # bytes, what Triton asks of an address
Grid = tuple[int, ...] | Callable[[Any], tuple[int, ...]]

_plans: dict[Hashable, tuple[Any, tuple[str, ...]]] = {}


def run(kernel: Any, grid: Grid, arguments: Mapping[str, Any]) -> None:
    """kernel[grid](**arguments) on the current device: arguments are the kernel's, by name, and Triton's options.

    Tensors count by dtype and by whether they begin at a multiple of 16 bytes, everything else by its value.
    """
    places = grid(arguments) if callable(grid) else grid
    if triton.knobs.runtime.interpret:
        kernel[places](**arguments)
        return
    kinds = tuple(
        (name, each.dtype, each.data_ptr() % _ALIGNED == 0) if isinstance(each, Tensor) else (name, each)
        for name, each in arguments.items()
    )
    key = id(kernel), torch.cuda.current_device(), kinds
    if (plan := _plans.get(key)) is not None:
        compiled, names = plan
        compiled[(*places, 1, 1)[:3]](*(arguments[name] for name in names))
        return
    if len(_plans) >= _MOST:
        _plans.clear()
    compiled = kernel[places](**arguments)
    names = tuple(kernel.arg_names)
    if compiled is not None and all(name in arguments for name in names):
        _plans[key] = compiled, names
