"""How a gradient attack climbs: by steps of one size, or by steps that shrink where they no longer pay.
Both make `steps` gradients and end at a point that has not been looked at yet."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from shconv.attacks.ball import Ball

Slope = Callable[[Tensor], tuple[Tensor, Tensor]]  # x (N, C, H, W) -> the loss (N,) to be raised, its gradient like x

MOMENTUM = 0.25  # alpha = 0.75 of a step is new
SHARE = 0.75  # rho, the share of steps that have to raise the loss


def fixed_ascent(ball: Ball, slope: Slope, x: Tensor, steps: int, size: float) -> Tensor:
    """Projected steepest ascent with steps of one size (Madry et al. 2018)."""
    for _ in range(steps):
        x = ball.step(x, slope(x)[1], size)
    return x


def adaptive_ascent(ball: Ball, slope: Slope, x: Tensor, steps: int) -> Tensor:
    """Auto-PGD (Croce and Hein 2020, Algorithm 1): momentum, and per image a step that starts at 2 epsilon.

    At check points that come ever faster, the step is halved and the search goes back to its best point where fewer
    than 3/4 of the steps since the last one raised the loss, or where the step stayed and the best loss did too.
    """
    size = torch.full_like(x[:, :1, :1, :1], 2 * ball.epsilon)  # (N, 1, 1, 1)
    best_loss, best_gradient = loss, gradient = slope(x)
    best = previous = x
    rises = torch.zeros_like(loss)
    loss_before, halved_before = loss, torch.ones_like(loss, dtype=torch.bool)
    checks, last = check_points(steps), 0
    for k in range(1, steps + 1):
        pull = MOMENTUM if k > 1 else 0.0
        x, previous = ball.project(x + (1 - pull) * (ball.step(x, gradient, size) - x) + pull * (x - previous)), x
        if k == steps:
            break
        old, (loss, gradient) = loss, slope(x)
        rises += loss > old
        best, best_gradient = _where(loss > best_loss, (x, gradient), (best, best_gradient))
        best_loss = best_loss.maximum(loss)
        if k in checks:
            halved = (rises < SHARE * (k - last)) | (~halved_before & (best_loss <= loss_before))
            size = torch.where(_rows(halved), size / 2, size)
            x, gradient, previous = _where(halved, (best, best_gradient, best), (x, gradient, previous))
            loss = torch.where(halved, best_loss, loss)
            loss_before, halved_before, last, rises = best_loss, halved, k, torch.zeros_like(rises)
    return x


def check_points(steps: int) -> set[int]:
    """w_j = ceil(p_j steps), p_0 = 0, p_1 = 0.22, p_(j+1) = p_j + max(p_j - p_(j-1) - 0.03, 0.06), below `steps`."""
    points, before, p = set[int](), 0.0, 0.22
    while p < 1:
        points.add(math.ceil(round(p * steps, 6)))  # 0.57 is 0.5700000000000001 here
        before, p = p, p + max(p - before - 0.03, 0.06)
    return points - {steps}


def _where(chosen: Tensor, ours: tuple[Tensor, ...], theirs: tuple[Tensor, ...]) -> list[Tensor]:
    return [torch.where(_rows(chosen), a, b) for a, b in zip(ours, theirs, strict=True)]


def _rows(flags: Tensor) -> Tensor:
    return flags[:, None, None, None]
