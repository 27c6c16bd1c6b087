"""DeepFool: step by step to the nearest boundary of the linearised network (Moosavi-Dezfooli et al. 2016)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from shconv.attacks.base import Model
from shconv.attacks.budget import Norm
from shconv.attacks.checks import check_choice, check_count, check_logits
from shconv.attacks.cost import Cost
from shconv.attacks.losses import gradient_at, likeliest_wrong
from shconv.attacks.minimal import MinimalAttack
from shconv.attacks.search import Strongest
from shconv.attacks.spelling import other_names
from shconv.attacks.under_way import spread
from shconv.numbers import read_numbers

LEAST = 1e-4  # a step at least this long, as in the authors' code: where two logits are equal there is no way to go
FAR = 1e6  # a step this long leaves the box in every direction that it has
Project = Callable[[Tensor, Tensor], Tensor]  # of images at (n,) and a gradient (n, C, H, W), where steps may go


@dataclass(frozen=True)
class BoundaryDescent(MinimalAttack):
    """What DeepFool and its semi-random kin share: the way to the boundary."""

    norm: Norm = "l2"
    overshoot: float = 0.02
    steps: int = 50
    candidates: int = 9

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("norm", self.norm, Norm)
        read_numbers(self, "overshoot")
        check_count("steps", self.steps, 1)
        check_count("candidates", self.candidates, 1)

    @property
    def cost(self) -> Cost:
        return Cost(1 + self.steps, self.steps * self.candidates)

    def descend(
        self, model: Model, x: Tensor, y: Tensor, project: Project = lambda places, w: w
    ) -> tuple[Tensor, Tensor]:
        """The first misclassified images on the way, x where there is none, and the forward passes (N,)."""
        strongest, z, total, classes = Strongest(model, x, y, hold=True), x, torch.zeros_like(x), torch.empty(0)
        for number in range(self.steps):
            here = strongest.here
            at = z[here].requires_grad_()
            logits = check_logits(model(at), y[here])
            strongest.offer(z, spread(logits.detach(), here, len(x)))
            if strongest.settled:
                break
            if number == 0:
                classes = torch.stack(likeliest_wrong(logits.detach(), y, self.candidates))
            step = self._step(logits, at, y[here], classes[:, here], partial(project, here))
            total[here] = torch.where(strongest.wrong[here, None, None, None], total[here], total[here] + step)
            z = (x + (1 + self.overshoot) * total).clamp(0.0, 1.0)
        else:
            strongest.look(z)
        return torch.where(strongest.wrong[:, None, None, None], strongest.images, x), strongest.queries

    def _step(
        self, logits: Tensor, z: Tensor, y: Tensor, classes: Tensor, project: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """To the nearest boundary as the gradients at z have it; 0 where no class has a gradient."""
        nearest = z.new_full((len(z),), torch.inf)
        step = torch.zeros_like(z)
        for number, each in enumerate(classes, 1):
            f = (logits.gather(1, each[:, None]) - logits.gather(1, y[:, None]))[:, 0]  # z_k - z_y
            w = project(gradient_at(z, f, keep=number < len(classes)).nan_to_num(0.0).contiguous())
            with torch.no_grad():
                # Of the gradient over its largest entry, since squares of small ones underflow.
                largest = w.abs().amax((1, 2, 3))
                unit = w / largest.clamp_min(torch.finfo(w.dtype).tiny)[:, None, None, None]
                length = unit.abs().sum((1, 2, 3)) if self.norm == "linf" else unit.square().sum((1, 2, 3)).sqrt()
                away = torch.where(largest > 0, (f.abs().to(w) / largest / length).clamp(LEAST, FAR), torch.inf)
                direction = unit.sign() if self.norm == "linf" else unit / length[:, None, None, None]
                closer = away < nearest
                nearest = torch.where(closer, away, nearest)
                step = torch.where(closer[:, None, None, None], away[:, None, None, None] * direction, step)
        return step


@other_names
@dataclass(frozen=True)
class DeepFool(BoundaryDescent):
    """Steps r_i to the nearest of the linearised boundaries, until x + (1 + overshoot) sum r_i is misclassified.

    To the boundary with class k, f_k = z_k - z_y and w_k its gradient, the L2 step is |f_k| / ||w_k||_2^2 w_k and the
    L-infinity step |f_k| / ||w_k||_1 sign(w_k) (Algorithm 2 and their section 3.3). Only the `candidates` wrong classes
    that are likeliest for the clean image are looked at, as in the authors' code; at most all. A step is at least 1e-4
    long, so that an image on the boundary crosses it. Points are clipped to [0, 1]. The distance reached holds the
    overshoot: divide by 1 + overshoot for the distance to the boundary itself.
    """

    def nearest(
        self, model: Model, x: Tensor, y: Tensor, index: Sequence[int], seed: int
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        found, queries = self.descend(model, x, y)
        return found, None, queries
