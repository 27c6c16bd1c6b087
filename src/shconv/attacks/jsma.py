"""The Jacobian-based saliency map attack, by pairs of features (Papernot et al. 2016)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from shconv.attacks.aims import Aim, Goal, aims, reached
from shconv.attacks.base import Model, generators
from shconv.attacks.checks import check_choice, check_count, check_logits
from shconv.attacks.cost import Cost
from shconv.attacks.losses import gradient_at
from shconv.attacks.minimal import MinimalAttack
from shconv.attacks.spelling import other_names
from shconv.attacks.under_way import passing
from shconv.errors import InputError
from shconv.numbers import number, read_numbers
from shconv.routes import holds_a_batch

STREAM = 17


@other_names
@dataclass(frozen=True)
class JSMA(MinimalAttack):
    """Adds theta to the pair of features that raises the target's logit and lowers the others' most, again and again.

    With a the gradient of z_t and b that of the sum of the other logits, the pair (p, q) has the highest
    -(a_p + a_q)(b_p + b_q) among those with a_p + a_q > 0 > b_p + b_q, for theta < 0 with both signs turned
    (their Algorithm 3 and equations 9 to 11). A feature is one channel of one pixel; one that is at the edge of the box
    takes no part. Ends when the image is fooled, no pair is left, or the pairs amount to the share `gamma` of the
    features or to `steps`. goal, aim and targets are those of LBFGS; of several targets the image with the fewest
    changed features is kept.
    """

    goal: Goal = "targeted"
    aim: Aim = "random"
    targets: int = 1
    theta: float = 1.0
    gamma: float = 0.145
    steps: int = 1000

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("goal", self.goal, Goal)
        check_choice("aim", self.aim, Aim)
        check_count("targets", self.targets, 1)
        object.__setattr__(self, "theta", number("theta", self.theta, -1, 1))
        if self.theta == 0:
            raise InputError("theta: got 0; want a number from -1 to 1 that is not 0")
        read_numbers(self, "gamma", high=1, above=True)
        check_count("steps", self.steps, 1)

    @property
    def cost(self) -> Cost:
        return Cost(1 + self.targets * (self.steps + 1), 2 * self.targets * self.steps)

    def nearest(
        self, model: Model, x: Tensor, y: Tensor, index: Sequence[int], seed: int
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        with torch.no_grad():
            logits = check_logits(model(x), y)
        right, queries = logits.argmax(1) == y, torch.ones_like(y)
        classes = aims(self.aim, self.targets, logits, y, generators(seed, STREAM, index))
        found, y_t = x, classes[0]
        fewest = torch.full_like(y, x[0].numel() + 1)
        for target in classes:
            z, hit, passes = self._towards(model, x, y, target, right)
            queries = queries + passes
            changed = (z != x).flatten(1).sum(1)
            better = hit & (changed < fewest)
            found, fewest = torch.where(better[:, None, None, None], z, found), torch.where(better, changed, fewest)
            y_t = torch.where(better, target, y_t)
        return found, y_t, queries

    def _towards(
        self, model: Model, x: Tensor, y: Tensor, target: Tensor, right: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The images on their way to one class, which of them are fooled, and the passes spent on each."""
        images, alive, hit, passes = x.clone(), right.clone(), torch.zeros_like(right), torch.zeros_like(y)
        whole = holds_a_batch(model)
        limit = min(self.steps, int(self.gamma * x[0].numel()) // 2)
        for step in range(limit + 1):
            if not bool(alive.any()):
                break
            here = passing(alive, whole)
            z = images[here].requires_grad_()
            logits = check_logits(model(z), y[here])
            passes += alive
            hit[here] |= alive[here] & reached(self.goal, logits.detach(), y[here], target[here])
            alive &= ~hit
            if step == limit or not bool(alive.any()) or not logits.requires_grad:
                break
            images[here], moved = self._changed(z, logits, target[here], alive[here])
            alive[here] &= moved
        return images, hit, passes

    def _changed(self, z: Tensor, logits: Tensor, target: Tensor, alive: Tensor) -> tuple[Tensor, Tensor]:
        """z with theta added to the best pair of each image that is alive, and which of them had one: bool (N,)."""
        own = logits.gather(1, target[:, None])[:, 0].sum()
        up, down = (gradient_at(z, f, keep=True).nan_to_num(0.0) for f in (own, logits.sum() - own))
        sign = 1 if self.theta > 0 else -1
        changed = z.detach().clone()
        room = (changed < 1 if self.theta > 0 else changed > 0).flatten(1)
        pairs = [
            best_pair((sign * u).flatten()[free], (-sign * d).flatten()[free]) if live else None
            for u, d, free, live in zip(up, down, room, alive.tolist(), strict=True)
        ]
        for one, free, pair in zip(changed, room, pairs, strict=True):
            if pair is not None:
                at = free.nonzero()[:, 0][pair]
                one.view(-1)[at] = (one.view(-1)[at] + self.theta).clamp(0.0, 1.0)
        return changed, torch.tensor([pair is not None for pair in pairs], device=z.device)


def best_pair(u: Tensor, v: Tensor) -> Tensor | None:
    """The two places p, q in u and v (F,) with the highest (u_p + u_q)(v_p + v_q), both sums above 0; None without one.

    A place that two others exceed in u and v can be swapped for one of them, so only the two outermost layers are
    paired: the places that no other exceeds in both, and those that none does once these are gone.
    """
    order = u.argsort(descending=True, stable=True)
    heights = v[order]
    layers = []
    for _ in range(2):
        before = torch.cat([heights.new_full((1,), -torch.inf), heights.cummax(0).values[:-1]]) if len(heights) else v
        outer = heights > before
        layers.append(order[outer])
        heights = heights.masked_fill(outer, -torch.inf)
    at = torch.cat(layers)
    if len(at) < 2:
        return None
    us, vs = u[at][:, None] + u[at], v[at][:, None] + v[at]
    score = torch.where((us > 0) & (vs > 0), us * vs, -torch.inf).fill_diagonal_(-torch.inf)
    if float(score.max()) == -torch.inf:
        return None
    best = int(score.argmax())
    return at[[best // len(at), best % len(at)]]
