"""Check 9: does the loss rise more steeply where another network's gradient points?

From each image the margin is measured over a square: one axis along the sign of the network's own gradient, the other
along that of its twin's, or along random signs where there is no twin. Own gradients should point where the loss rises
most. If it rises higher along the twin's axis, or along a random one, the network's own gradient does not know where
its loss rises: the flat picture it paints is masking (Tramer et al. 2017, figure 1).
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from shconv.attacks.cost import Cost
from shconv.attacks.losses import margin
from shconv.audit.audit import Audit
from shconv.audit.checks.side import Batch, cross_entropy, gradient, loss_at, measured, one_function, size
from shconv.audit.findings import Finding
from shconv.audit.words import of
from shconv.intervals import wilson
from shconv.numbers import radius_text

NUMBER = 9
NAME = "loss surface"
SOURCE = "Tramer et al. 2017, figure 1"
SURFACES = 8  # images whose mean cross-entropy is drawn: the alarm needs the axes alone


def cost(audit: Audit) -> Cost:
    n, points = size(audit, audit.effort.surface_images), audit.effort.surface_points
    both = 1 if audit.twin is None else 2
    return Cost(2, 2).times(n) + Cost(2 * points).times(n) + Cost(both * points**2).times(min(n, SURFACES))


def run(audit: Audit) -> Finding:
    model, rng = one_function(audit.subject), audit.generator(NAME)
    reach = audit.setting.eps * np.linspace(-1, 1, audit.effort.surface_points | 1)
    arrays: dict[str, NDArray[Any]] = {}

    def measure(batch: Batch) -> dict[str, NDArray[Any]]:
        x, y, _ = batch
        a, b = gradient(model, x, y, cross_entropy).sign(), _axis(audit, x, y, rng)
        own = rise(model, x, y, a, reach[reach > 0])
        other = rise(model, x, y, b, reach[reach > 0] if audit.twin else reach[reach != 0])
        if not arrays:
            arrays.update(_surfaces(audit, x[:SURFACES], y[:SURFACES], a[:SURFACES], b[:SURFACES], reach))
        return {"own": own, "other": other}

    along, across = measured(audit, audit.effort.surface_images, measure).values()
    n, steeper = len(along), int((across > along + 1e-6 * np.abs(across)).sum())
    axis = f"the sign of the {audit.twin.as_twin}'s gradient" if audit.twin else "random signs or their opposite"
    numbers = {
        "images": n,
        "axis": "twin" if audit.twin else "random",
        "steeper": steeper,
        "interval": wilson(steeper, n),
        "own_rise": float(np.median(along)),
        "other_rise": float(np.median(across)),
    }
    medians = f"{numbers['other_rise']:.2f} against {numbers['own_rise']:.2f} within {radius_text(audit.setting.eps)}"
    said = f"{text(steeper, n, axis)} (median rise {medians})."
    return Finding(wilson(steeper, n)[0] > 0.5, said, numbers, arrays, "surface")


def text(steeper: int, n: int, axis: str) -> str:
    """On how many of n images the margin rises higher along the other axis, and what the interval says of that."""
    low, high = wilson(steeper, n)
    verdict = f"{n} images are too few to say along which axis the loss rises higher"
    if low > 0.5:
        verdict = f"On most images the loss rises higher along {axis} than along the network's own gradient"
    elif high < 0.5:
        verdict = f"On most images the loss rises no higher along {axis} than along the network's own gradient"
    return f"{verdict}: higher on {of(steeper, n)} images"


def rise(model: nn.Module, x: Tensor, y: Tensor, axis: Tensor, reach: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far the margin of each image (n, C, H, W) rises within reach along its axis; (n,), at least 0."""
    start = loss_at(model, x, y, margin)
    there = [loss_at(model, (x + a * axis).clamp(0, 1), y, margin) for a in reach.tolist()]
    best: NDArray[np.float64] = np.maximum(np.max(there, axis=0) - start, 0.0)
    return best


def _axis(audit: Audit, x: Tensor, y: Tensor, rng: np.random.Generator) -> Tensor:
    if audit.twin is not None:
        return gradient(audit.twin.model, x, y, cross_entropy).sign()
    return torch.from_numpy(2 * rng.integers(0, 2, tuple(x.shape)) - 1).to(x)


def _surfaces(
    audit: Audit, x: Tensor, y: Tensor, a: Tensor, b: Tensor, reach: NDArray[np.float64]
) -> dict[str, NDArray[Any]]:
    """The images' mean cross-entropy over the square (A, B), of the network and of its twin."""
    networks = {"loss": audit.subject.model, **({"twin_loss": audit.twin.model} if audit.twin else {})}

    def loss(model: nn.Module, i: float, j: float) -> float:
        return float(loss_at(model, (x + i * a + j * b).clamp(0, 1), y, cross_entropy).mean())

    steps = reach.tolist()
    surfaces = {name: np.array([[loss(model, i, j) for j in steps] for i in steps]) for name, model in networks.items()}
    return {"a": reach, "b": reach, **surfaces}
