"""What the attacks that search a ball share: one call, the strongest example of each image, a cost known beforehand."""

import random
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from shconv.attacks.base import CheckedAttack, Model
from shconv.attacks.checks import check_logits
from shconv.attacks.cost import Cost
from shconv.attacks.losses import margin
from shconv.attacks.under_way import passing, spread
from shconv.routes import holds_a_batch


@dataclass(frozen=True)
class SearchAttack(CheckedAttack):
    """An attack that looks at many images within epsilon of the clean one and returns the strongest of each.

    An image that has what is sought leaves the batch, if nothing later can replace it (`under_way`). Where kernels are
    frozen for one batch it stays whole, image i in row i. No image's result depends on the others, as far as the
    model's own rounding does not.
    """

    contiguous: ClassVar[bool] = True  # pyautoattack needs it too

    def _made(
        self, model: Model, x: Tensor, y: Tensor, index: Sequence[int], seed: int, goal: Tensor | None
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """With a goal the strongest image is one that is taken for it, then the one nearest to it in logits."""
        found, queries = self.search(model, x, y, index, seed, *([] if goal is None else [goal]))
        return found, goal, queries

    @abstractmethod
    def search(
        self, model: Model, x: Tensor, y: Tensor, index: Sequence[int], seed: int, goal: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """From checked x (N, C, H, W) and y (N,): the strongest images, and int64 (N,) forward passes spent on each.

        goal (N,): classes to be predicted; None: any other than y. Given only to attacks that aim.
        """

    @property
    @abstractmethod
    def cost(self) -> Cost:
        """Passes over one image, at most: a sample that is averaged over counts one."""


class Strongest:
    """Of all images offered, per image the one that is misclassified, then the one with the highest margin.

    goal (N,): classes that images are to be taken for; then the one that is, then the one with the highest margin of
    its goal over all other classes. With `hold`, an image that has what is sought stays as it is: nothing offered
    later replaces it.
    """

    def __init__(self, model: Model, x: Tensor, y: Tensor, hold: bool = False, goal: Tensor | None = None) -> None:
        self.model, self.y, self.hold, self.goal = model, y, hold, goal
        self.whole = not hold or holds_a_batch(model)
        self.images = x
        self.wrong = torch.zeros_like(y, dtype=torch.bool)
        self.margin = torch.full(y.shape, -torch.inf, device=x.device)
        self.queries = torch.zeros_like(y)

    @property
    def here(self) -> Tensor:
        """Places (n,) of the images that still pass through the model."""
        return passing(~self.wrong, self.whole)

    def look(self, x: Tensor) -> Tensor:
        """Pass x (N, C, H, W) through the model without a graph, offer it, and return its logits (N, K): of an image
        that passes no more, 0."""
        with torch.no_grad():
            here = self.here
            logits = check_logits(self.model(x[here]), self.y[here])
            logits = spread(logits, here, len(x))
            self.offer(x, logits)
        return logits

    def offer(self, x: Tensor, logits: Tensor, passes: int = 1) -> None:
        """Keep those of x that are stronger, given their logits (N, K), which cost so many forward passes."""
        guess = logits.argmax(1)
        rise, wrong = self.rise(logits), guess != self.y if self.goal is None else guess == self.goal
        better = (wrong & ~self.wrong) | ((wrong == self.wrong) & (rise > self.margin))
        if self.hold:
            self.queries += passes * ~self.wrong
            better &= ~self.wrong
        else:
            self.queries += passes
        self.images = torch.where(better[:, None, None, None], x, self.images)
        self.margin = torch.where(better, rise, self.margin)
        self.wrong = self.wrong | wrong

    def rise(self, logits: Tensor) -> Tensor:
        """How near (N,) images with these logits (N, K) are to what is sought; above 0 it is reached."""
        return margin(logits, self.y) if self.goal is None else -margin(check_logits(logits, self.goal), self.goal)

    @property
    def settled(self) -> bool:
        """Whether no image can change any more."""
        return self.hold and bool(self.wrong.all())


@contextmanager
def own_randomness(device: torch.device | None, seed: int) -> Iterator[None]:
    """Inside, the global generators of torch, numpy and Python are seeded; afterwards they go on as they were.

    For other people's attacks and networks, which draw from them. device: None is every GPU in use.
    """
    devices: list[Any] = [] if device is None or device.type == "cpu" else [device]
    if device is None and torch.cuda.is_initialized():
        devices = [*range(torch.cuda.device_count())]
    numpys, pythons = np.random.get_state(), random.getstate()
    with torch.random.fork_rng(devices, device_type=device.type if device is not None and devices else "cuda"):
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)
        random.seed(seed)
        try:
            yield
        finally:
            np.random.set_state(numpys)
            random.setstate(pythons)
