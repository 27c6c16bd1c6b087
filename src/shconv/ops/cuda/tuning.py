"""When tiles are tried on a GPU, which of them is the fastest, and where that is remembered.

Every kernel has a rule for its tiles, which serves without a trial where no other tile is left to measure, and wherever
an image is too little work to be worth one. Else a few candidates are compiled side by side, compared and timed once;
the choice is kept on disk, by card and versions, never by the number of images.

SHCONV_TUNE=0: the rule everywhere; 1: trials for every shape. Under torch.use_deterministic_algorithms the rule holds
too, and nothing is tried while a CUDA graph is captured.
"""

import functools
import importlib.metadata
import json
import logging
import math
import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from shconv.errors import one_line
from shconv.files import cache_folder, one_at_a_time, replace_json
from shconv.ops.cuda import tape
from shconv.switches import switch

Candidate = TypeVar("Candidate", bound=tuple[int, ...])
Results = Sequence[Tensor | None]
Run = Callable[[], Results]

_WORTH = 25e6  # products for an image: a layer of a ResNet at 224 pixels has 115 million, one of a small network 2
_REPETITIONS = 5
_WAITED = 10.0  # seconds that another process may take to write
_log = logging.getLogger(__name__)


def fixed() -> bool:
    """Whether choices follow the rule, whatever has been measured."""
    return switch("SHCONV_TUNE") is False or torch.are_deterministic_algorithms_enabled()


def state() -> tuple[str | None, bool]:
    """What decides how tiles are chosen, beside what has been measured."""
    return os.environ.get("SHCONV_TUNE"), torch.are_deterministic_algorithms_enabled()


def measures(products: float, known: bool = False) -> bool:
    """Whether tiles may be tried now. products: of an image; known: nothing else is left to measure."""
    if not switch("SHCONV_TUNE") and (known or products < _WORTH):
        return False
    return not fixed() and not (torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing())


def choose(
    key: str,
    candidates: Sequence[Candidate],
    trial: Callable[[Candidate], Run],
    compile: Callable[[Candidate], object],
    device: torch.device,
    clock: Callable[[Run], float] | None = None,
) -> Candidate:
    """The candidate that takes the least time, tried once for a key and card; the first is the rule.

    trial: one candidate's call. compile: what has to be done before it, in threads side by side. clock: seconds of one
    call; between two CUDA events by default. What raises, or differs from the rule's results, is out, and the log says
    why. Where launches are collected it tries none: those of all candidates are collected.
    """
    store = _store(device)
    for each in candidates:
        if list(each) == store.chosen.get(key):
            return each
    if tape.collected() is not None:
        for each in candidates[1:]:
            trial(each)()
        return candidates[0]
    tape.refuse_for_now("tiles are tried")
    with ThreadPoolExecutor(min(len(candidates), os.cpu_count() or 1)) as pool:
        list(pool.map(functools.partial(_quietly, compile), candidates))
    wanted = trial(candidates[0])()
    timed = {each: _seconds(key, each, trial(each), wanted, clock or _cuda_seconds) for each in candidates}
    best = min(candidates, key=lambda each: timed[each])
    _log.info("%s for %s: %s", best, key, {str(each): f"{seconds * 1e6:.1f} us" for each, seconds in timed.items()})
    store.keep(key, list(best))
    return best


class _Store:
    """The choices of one card and set of versions; a disk that can't be written to costs the next process a trial."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.warned = device, False
        self.chosen = self._read()

    def _read(self) -> dict[str, list[int]]:
        try:
            found = json.loads(_path(self.device).read_text(encoding="utf-8"))
            return {str(key): [int(side) for side in sides] for key, sides in found.items()}
        except Exception:  # none yet, or not ours; a damaged one can raise nearly anything
            return {}

    def keep(self, key: str, sides: list[int]) -> None:
        self.chosen[key] = sides
        try:
            path = _path(self.device)
            with one_at_a_time(path, _WAITED):
                self.chosen = {**self._read(), **self.chosen}  # other processes tried others meanwhile
                replace_json(path, self.chosen)
        except OSError as error:
            if not self.warned:
                _log.warning("the choice of tiles cannot be kept, each process tries them anew: %s", error)
            self.warned = True


_store = functools.cache(_Store)


def _path(device: torch.device) -> Path:
    versions = [f"{name}-{_version(name)}" for name in ("triton", "torch", "shconv")]
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else "interpreter"
    return cache_folder() / "tiles" / (re.sub(r"[^\w.+-]", "_", "-".join([card, *versions])) + ".json")


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _quietly(compile: Callable[[Candidate], object], candidate: Candidate) -> None:
    """Its trial will say what is wrong with it."""
    try:
        compile(candidate)
    except Exception as error:
        _log.debug("%s does not compile: %s", candidate, error)


def _seconds(key: str, candidate: object, run: Run, wanted: Results, clock: Callable[[Run], float]) -> float:
    """The least of a few; inf for what raises or deviates."""
    try:
        off = max((_deviation(*pair) for pair in zip(run(), wanted, strict=True)), default=0.0)
        if off <= 1:
            return min(clock(run) for _ in range(_REPETITIONS))
        reason = f"its result is off by {off:.2g} times what rounding explains"
    except Exception as error:  # whatever it is, the others can do without this one
        reason = one_line(error)
    _log.warning("tile %s is left out for %s: %s", candidate, key, reason)
    return math.inf


def _deviation(got: Tensor | None, wanted: Tensor | None) -> float:
    """The largest difference, over what rounding may explain: of the largest element 4 roundings of its dtype, or of
    TF32. Inf where one is no number and the other is."""
    if wanted is None or wanted.numel() == 0:
        return 0.0
    if got is None or got.shape != wanted.shape:
        return math.inf
    allowed = 4 * max(torch.finfo(wanted.dtype).eps, 2.0**-10)
    real = wanted.isfinite()
    if not bool((got.isfinite() == real).all()):
        return math.inf
    got, wanted = (torch.where(real, each, 0).float() for each in (got, wanted))
    error, largest = float((got - wanted).abs().max()), float(wanted.abs().max())
    return error / (allowed * largest) if largest else math.inf if error else 0.0


def _cuda_seconds(run: Run) -> float:
    """Of a call among several, so that the card works while the host sends."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(4):
        run()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / 4e3
