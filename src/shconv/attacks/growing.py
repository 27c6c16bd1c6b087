"""The smallest amount of a disturbance that fools: a scan from little to much, then halving before the first hit."""

from collections.abc import Callable

import torch
from torch import Tensor

from shconv.attacks.base import Model
from shconv.attacks.checks import check_logits
from shconv.attacks.cost import Cost

HALVINGS = 5  # after the scan

Disturb = Callable[[Tensor], Tensor]  # amounts (N,) -> the clean images (N, C, H, W), each disturbed by its amount


def least(
    model: Model, x: Tensor, y: Tensor, disturb: Disturb, largest: float, levels: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Of each image the least disturbed that is misclassified, or x; its amount, or infinity; forward passes (N,).

    The amounts largest / levels, 2 largest / levels, ... are tried until the first that fools, and the gap below it is
    halved five times. An image need not stay misclassified as the amount grows, so this is the first hit of the scan.
    """

    def wrong(z: Tensor) -> Tensor:
        with torch.no_grad():
            return check_logits(model(z), y).argmax(1) != y

    done, images, queries = wrong(x), x, torch.ones_like(y)
    standing = ~done
    low = torch.zeros(len(y), dtype=torch.float64, device=x.device)
    high = torch.where(done, low, torch.inf)
    for level in range(1, levels + 1):
        if bool(done.all()):
            break
        amount = torch.full_like(low, largest * level / levels)
        z = disturb(amount)
        queries += ~done
        hit = wrong(z) & ~done
        images, high, done = (
            torch.where(hit[:, None, None, None], z, images),
            torch.where(hit, amount, high),
            done | hit,
        )
        low = torch.where(done, low, amount)
    halving = done & standing
    for _ in range(HALVINGS if bool(halving.any()) else 0):
        amount = torch.where(halving, (low + high) / 2, 0.0)
        z = disturb(amount)
        queries += halving
        hit = wrong(z) & halving
        images, high = torch.where(hit[:, None, None, None], z, images), torch.where(hit, amount, high)
        low = torch.where(halving & ~hit, amount, low)
    return images, high, queries


def least_cost(levels: int) -> Cost:
    return Cost(1 + levels + HALVINGS)
