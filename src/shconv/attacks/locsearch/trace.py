"""What a LocSearchAdv search did at every step: the record behind its table of steps and its traces."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from shconv.attacks.base import AttackResult
from shconv.attacks.locsearch.rules import Rules
from shconv.attacks.locsearch.search import Search
from shconv.errors import InputError


@dataclass(frozen=True, eq=False)
class LocSearchTrace:
    """N images, R = steps, t = pixels_per_step, K classes; on the CPU. An image that stopped repeats its last look."""

    confidences: Tensor
    """float64 (N, R + 1): p_y of the current image after every step, the clean image first."""
    logits: Tensor
    """float (N, R + 1, K): its logits, for accuracy and relative confidence."""
    pixels: Tensor
    """int64 (N, R, t): the pixels changed in each step, y * W + x, -1 where there are fewer than t."""
    p: Tensor
    """float64 (N, R): the p that each step's probes were made with."""
    queries: Tensor
    """int64 (N, R + 1): forward passes spent up to each step."""
    images: dict[int, Tensor]
    """step -> (N, C, H, W), the current images after the steps asked for."""


@dataclass(frozen=True, eq=False)
class LocSearchResult(AttackResult):
    """An attack's result, with a trace where one was asked for."""

    trace: LocSearchTrace | None


class Recorder:
    """Fills a trace step by step."""

    def __init__(self, rules: Rules, search: Search, steps_kept: Sequence[int]) -> None:
        n, classes = search.logits.shape
        self.steps_kept = frozenset(steps_kept)
        self.logits = torch.empty(n, rules.steps + 1, classes, dtype=search.logits.dtype)
        self.pixels = torch.full((n, rules.steps, rules.pixels_per_step), -1)
        self.p = torch.empty(n, rules.steps, dtype=torch.float64)
        self.queries = torch.empty(n, rules.steps + 1, dtype=torch.int64)
        self.images: dict[int, Tensor] = {}
        self.next_p = torch.from_numpy(search.p.copy())
        self._look(0, search)

    def record(self, step: int, search: Search) -> None:
        """Take down round `step`, counted from 1, which `search` has just finished."""
        image, pixel = (torch.from_numpy(numbers) for numbers in search.selected)
        rank = torch.arange(len(image)) - torch.searchsorted(image, image)
        self.pixels[image, step - 1, rank] = pixel
        self.p[:, step - 1] = self.next_p
        self.next_p = torch.from_numpy(search.p.copy())
        self._look(step, search)

    def trace(self, y: Tensor) -> LocSearchTrace:
        """The finished trace, for the true classes y (N,)."""
        classes = y.cpu()[:, None, None].expand(-1, self.logits.shape[1], 1)
        confidences = self.logits.double().softmax(2).gather(2, classes)[:, :, 0]
        return LocSearchTrace(confidences, self.logits, self.pixels, self.p, self.queries, self.images)

    def _look(self, step: int, search: Search) -> None:
        self.logits[:, step] = search.logits
        self.queries[:, step] = torch.from_numpy(search.queries)
        if step in self.steps_kept:
            self.images[step] = search.x.detach().to("cpu", copy=True)


def check_trace_steps(steps_kept: Sequence[int], steps: int) -> None:
    """Raise InputError for a step outside 0 ... steps."""
    for step in steps_kept:
        if step not in range(steps + 1):
            raise InputError(f"trace_steps: got {step!r}; want steps from 0 to {steps}")
