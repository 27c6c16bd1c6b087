"""Which way is up: the class an attack steps towards or away from, and the gradient of its log-odds.
The sign of that gradient is the sign of the cross-entropy's, without its underflow."""

from typing import Literal

import torch
from torch import Tensor

from shconv.attacks.base import Model
from shconv.attacks.checks import check_logits
from shconv.attacks.losses import gradient_at
from shconv.errors import InputError

Objective = Literal["least_likely", "untargeted"]
Sign = Literal["consistent", "literal"]


def log_odds(logits: Tensor, classes: Tensor) -> Tensor:
    """ln(p_c / (1 - p_c)) (N,) of one class for each image, from logits (N, K) and classes int64 (N,).

    It orders images as p_c does, and does not saturate where p_c rounds to 1.
    """
    c = classes[:, None]
    return logits.gather(1, c)[:, 0] - logits.scatter(1, c, -torch.inf).logsumexp(1)


def direction(objective: Objective, sign: Sign) -> int:
    """+1 where the attack raises the probability of its class (y_t or y), -1 where it lowers it.

    Consistent reading of eqs 2 to 4: least_likely steps down CE(y_t), untargeted steps up CE(y). Literal, as printed:
    plus the gradient of CE(y_t), and plus the gradient of p_y, both of which step the other way.
    """
    towards = 1 if objective == "least_likely" else -1
    return towards if sign == "consistent" else -towards


def class_gradient(
    model: Model, x: Tensor, y: Tensor, y_t: Tensor | None, objective: Objective
) -> tuple[Tensor, Tensor | None]:
    """One forward and backward pass at x (N, C, H, W): the gradient of the log-odds of the attack's class, and y_t.

    With "least_likely" and no y_t yet, y_t (N,) is the argmin of these very logits, which the gradient then uses.
    grad CE(c) = -(1 - p_c) grad log-odds(c) and grad p_c = p_c (1 - p_c) grad log-odds(c): the positive factors
    left out change no sign, and are what underflows for a confident network. Zero where the model passes no gradient.
    """
    x = x.detach().requires_grad_()
    logits = check_logits(model(x), y)
    if objective == "least_likely" and y_t is None:
        y_t = logits.detach().argmin(1)
    elif y_t is not None:
        check_logits(logits, y_t)
    odds = log_odds(logits, y if y_t is None else y_t)
    gradient = gradient_at(x, odds)
    if bool(gradient.isnan().any()):
        raise InputError("model: its gradient with respect to the images has NaN; want a gradient for every image")
    return gradient, y_t


def least_likely_class(model: Model, x: Tensor, y: Tensor) -> Tensor:
    """y_t = argmin of the logits at x, int64 (N,), from a forward pass without a graph."""
    with torch.no_grad():
        return check_logits(model(x), y).argmin(1)
