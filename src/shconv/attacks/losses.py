"""What an attack raises: cross-entropy, difference of logits ratio or margin, each untargeted or targeted.
One value an image, higher where the network is closer to a mistake; none is rescaled to hide where it saturates."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from shconv.errors import InputError

Loss = Literal["cross_entropy", "dlr", "margin"]


def attack_loss(loss: Loss, logits: Tensor, y: Tensor, target: Tensor | None = None) -> Tensor:
    """The loss (N,) of logits (N, K) whose true classes are y (N,), towards the classes `target` (N,) if given.

    cross_entropy: CE(y), or -CE(target). Where p_y rounds to 1 its gradient is exactly zero: that is one of the ways
    in which robustness is only apparent, so nothing here repairs it.
    margin: max_(i != y) z_i - z_y, or z_target - z_y (Carlini and Wagner 2017, their f_6).
    dlr: the margin over z_(1) - z_(3), or the targeted one over z_(1) - (z_(3) + z_(4)) / 2, where z_(j) is the j-th
    largest logit; blind to a scaling of the logits (Croce and Hein 2020, equations 6 and 7).
    Raises InputError for dlr with fewer than 3 classes, or 4 if targeted.
    """
    if loss == "cross_entropy":
        return (
            F.cross_entropy(logits, y, reduction="none")
            if target is None
            else -F.cross_entropy(logits, target, reduction="none")
        )
    rise = margin(logits, y) if target is None else _of(logits, target) - _of(logits, y)
    if loss == "margin":
        return rise
    needed = 3 if target is None else 4
    if logits.shape[1] < needed:
        raise InputError(
            f"loss: {'' if target is None else 'targeted '}dlr needs {needed} classes; got {logits.shape[1]}"
        )
    z = logits.topk(needed, 1).values  # (N, 3 or 4), descending
    return rise / (z[:, 0] - z[:, 2:].mean(1) + 1e-12)


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """max_(i != y) z_i - z_y (N,): above 0 where the network is wrong."""
    return logits.scatter(1, y[:, None], -torch.inf).amax(1) - _of(logits, y)


def likeliest_wrong(logits: Tensor, y: Tensor, k: int) -> list[Tensor]:
    """The min(k, K - 1) classes other than y with the highest logits, the likeliest first, each int64 (N,)."""
    wrong = logits.scatter(1, y[:, None], -torch.inf)
    return list(wrong.topk(min(k, logits.shape[1] - 1), 1).indices.unbind(1))


def gradient_at(x: Tensor, loss: Tensor, keep: bool = False) -> Tensor:
    """That of loss (N,), each image's own, like x (N, C, H, W); 0 where no gradient comes. keep: the graph stays."""
    if not loss.requires_grad:
        return torch.zeros_like(x)
    gradient = torch.autograd.grad(loss.sum(), x, allow_unused=True, retain_graph=keep)[0]
    return torch.zeros_like(x) if gradient is None else gradient


def _of(logits: Tensor, classes: Tensor) -> Tensor:
    return logits.gather(1, classes[:, None])[:, 0]
