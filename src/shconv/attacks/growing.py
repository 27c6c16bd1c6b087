"""The smallest amount of a disturbance that fools: a scan from little to much, then halving before the first hit."""

from collections.abc import Callable

import torch
from torch import Tensor

from shconv.attacks.base import Model
from shconv.attacks.checks import check_logits
from shconv.attacks.cost import Cost

HALVINGS = 5  # after the scan

Disturb = Callable[[Tensor], Tensor]  # amounts (N,) -> the clean images (N, C, H, W), each disturbed by its amount


def disturbed(
    model: Model, x: Tensor, y: Tensor, disturb: Disturb, amount: float | None, largest: float, levels: int
) -> tuple[Tensor, None, Tensor]:
    """What `nearest` of an attack returns: all images disturbed by the amount, without a look; None: of each image the
    least disturbed that is misclassified, or x.

    The amounts largest / levels, 2 largest / levels, ... are tried until the first that fools, and the gap below it is
    halved five times. An image need not stay misclassified as the amount grows, so this is the first hit of the scan.
    """

    def wrong(z: Tensor) -> Tensor:
        with torch.no_grad():
            return check_logits(model(z), y).argmax(1) != y

    if amount is not None:
        return disturb(torch.full((len(x),), amount, dtype=torch.float64, device=x.device)), None, y * 0
    done, images, queries = wrong(x), x, torch.ones_like(y)
    standing = ~done
    low = torch.zeros(len(y), dtype=torch.float64, device=x.device)
    high = torch.where(done, low, torch.inf)
    for level in range(1, levels + 1):
        if bool(done.all()):
            break
        now = torch.full_like(low, largest * level / levels)
        z = disturb(now)
        queries += ~done
        hit = wrong(z) & ~done
        images, high = torch.where(hit[:, None, None, None], z, images), torch.where(hit, now, high)
        done = done | hit
        low = torch.where(done, low, now)
    halving = done & standing
    for _ in range(HALVINGS if bool(halving.any()) else 0):
        now = torch.where(halving, (low + high) / 2, 0.0)
        z = disturb(now)
        queries += halving
        hit = wrong(z) & halving
        images, high = torch.where(hit[:, None, None, None], z, images), torch.where(hit, now, high)
        low = torch.where(halving & ~hit, now, low)
    return images, None, queries


def cost_of(amount: float | None, levels: int) -> Cost:
    return Cost(1 + levels + HALVINGS) if amount is None else Cost(0)
