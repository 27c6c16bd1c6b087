"""formulation="auto" on CUDA: the fastest formulation is measured on the spot, as torch.backends.cudnn.benchmark does.

The first call with new shapes, dtype, layout, geometry, gradients or device runs every formulation that can serve it:
once to warm up and to be compared with a plain one, then a few times against the clock. One that raises or deviates is
out, and the log says why. The fastest is remembered for the life of the process.

Bounds: 1 + 5 runs of each candidate (Triton's first tries its tilings); three sets of results beside a candidate's own
scratch; 1,024 choices remembered, after which new calls follow the fixed rule. A kernel for every image is no candidate
where it takes more than 8 times the memory of the image's x and Y.

Under torch.use_deterministic_algorithms (a choice by the clock may change the last bits between runs) and with
SHCONV_TUNE=0 the fixed rule holds. While a CUDA graph is captured, which nothing may wait in, what was measured before.
"""

import logging
import math
import os
from collections.abc import Callable, Hashable, Mapping, Sequence

import torch
from torch import Tensor

from shconv.ops.cuda import runtime
from shconv.ops.geometry import Geometry, memory_format

Results = Sequence[Tensor | None]
Call = Callable[[], Results]
Clock = Callable[[Call], float]

_MOST_KEYS = 1024
_REPETITIONS = 5
_KERNELS_TO_ACTIVATIONS = 8
_log = logging.getLogger(__name__)
_fastest: dict[Hashable, str] = {}
_said: set[tuple[str, str]] = set()


def fixed() -> bool:
    """Whether choices follow fixed rules, whatever has been measured."""
    return os.environ.get("SHCONV_TUNE") == "0" or torch.are_deterministic_algorithms_enabled()


def measures() -> bool:
    """Whether anything may be measured now."""
    return not fixed() and not (torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing())


def affordable(name: str, x: Tensor, weight: Tensor, geometry: Geometry) -> bool:
    """Whether a formulation's scratch is worth a try; only "grouped" holds a kernel for every image."""
    activations = x[0].numel() + len(weight) * math.prod(geometry.output_size(x, weight))
    return name != "grouped" or weight.numel() <= _KERNELS_TO_ACTIVATIONS * activations


def key(x: Tensor, weight: Tensor, M: Tensor, geometry: Geometry, mask: Sequence[bool]) -> Hashable:
    """All that the times depend on; mask: which gradients are asked for, () in the forward direction."""
    tensors = tuple((each.shape, each.dtype) for each in (x, weight, M))
    layouts = memory_format(x), memory_format(weight)
    precision = runtime.tf32(), torch.backends.cuda.matmul.fp32_precision
    return tensors, layouts, geometry, tuple(mask), x.device, precision


def remembered(key: Hashable) -> str | None:
    """The name chosen for the key before, where that counts."""
    return None if fixed() else _fastest.get(key)


def fastest(
    key: Hashable, candidates: Mapping[str, Call], plain: str, rule: str, dtype: torch.dtype, clock: Clock | None = None
) -> str:
    """The name of the candidate that takes the least time, measured when the key is new; `rule` where it may not be.

    plain: the candidate the others are compared with. dtype: what results are rounded to, those of a more precise map
    included. clock: seconds of one call; between two CUDA events by default.
    """
    if name := remembered(key):
        return name
    if not measures() or len(_fastest) >= _MOST_KEYS:
        return rule
    try:
        wanted = candidates[plain]()
    except Exception as error:  # out of memory, say
        _warn_once(plain, type(error).__name__, str(error))
        return _fastest.setdefault(key, rule)
    if not all(bool(each.isfinite().all()) for each in wanted if each is not None):
        return rule  # a gradient that overflowed, say: nothing can be compared now, the next call may measure
    timed = {name: _seconds(name, call, wanted, dtype, clock or _cuda_seconds) for name, call in candidates.items()}
    best = min(timed, key=lambda name: timed[name])
    _log.info("%s for %s: %s", best, key, {name: f"{seconds * 1e3:.3g} ms" for name, seconds in timed.items()})
    return _fastest.setdefault(key, best if timed[best] < math.inf else rule)


def _seconds(name: str, call: Call, wanted: Results, dtype: torch.dtype, clock: Clock) -> float:
    """The least of a few; inf for what raises or deviates."""
    try:
        off = max(_deviation(*pair, dtype) for pair in zip(call(), wanted, strict=True))
        if off <= 1:
            return min(clock(call) for _ in range(_REPETITIONS))
        _warn_once(name, "Deviation", f"its result is off by {off:.2g} times what rounding explains")
    except Exception as error:  # whatever it is, the others can do without this one
        _warn_once(name, type(error).__name__, str(error))
    return math.inf


def _deviation(got: Tensor | None, wanted: Tensor | None, dtype: torch.dtype) -> float:
    """The largest difference, over what rounding may explain: of the largest element 4 roundings to dtype, or to TF32,
    which float32 may stand for on CUDA. Inf where it is not a number."""
    if wanted is None or wanted.numel() == 0:
        return 0.0
    if got is None or got.shape != wanted.shape:
        return math.inf
    allowed = 4 * max(torch.finfo(dtype).eps, 2.0**-10 if dtype == torch.float32 else 2.0**-40)
    wide = torch.promote_types(wanted.dtype, torch.float32)
    error, largest = float((got.to(wide) - wanted).abs().max()), float(wanted.abs().max())
    return error / (allowed * largest) if largest and not math.isnan(error) else math.inf if error else 0.0


def _warn_once(name: str, kind: str, detail: str) -> None:
    if (name, kind) not in _said:
        _said.add((name, kind))
        _log.warning("formulation %r is left out: %s: %s", name, kind, " ".join(detail.split())[:300])


def _cuda_seconds(call: Call) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    call()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / 1e3
