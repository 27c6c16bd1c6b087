"""Check 8: is the gradient that attacks follow the slope of the loss?

Slopes measured by finite differences, forward passes alone, meet those that back-propagation tells; exact zeros in the
gradient of the cross-entropy are counted. A gradient that disagrees with the slope over a short distance and a longer
one (the better agreement counts: rounding hides a short one), or is zero where the network still depends on its input,
stops attacks and not adversaries: masking. For SHC networks: how large is the part of the gradient that passes through
filter maps, and does the whole still point where the convolution's part points? A large part that turns the signs is
how the hypernetwork hides the direction that breaks the network (section 4.2 of the paper). Local linearity, how well
the gradient predicts a whole step, is reported beside them.
"""

from collections.abc import Iterator, Mapping
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
from shconv.audit.words import percent
from shconv.experiments.network import routed
from shconv.numbers import radius_text
from shconv.routes import ROUTES

NUMBER = 8
NAME = "gradients"
SOURCE = "Athalye et al. 2018; Qin et al. 2019 (local linearity); Sun et al. 2017, section 4.2"
DIRECTIONS = 8
STEPS = (1e-3, 4e-3)  # of finite differences: a quarter of an 8-bit level, and a whole one, which bfloat16 resolves
WRONG, VANISHED, MOSTLY_ZERO, LARGE, AGREEING = 0.5, 0.05, 0.5, 1.0, 0.75  # ours

Measures = dict[str, NDArray[np.float64]]  # by name, (n,)


def cost(audit: Audit) -> Cost:
    routes = Cost(6, 4) if audit.subject.is_shc else Cost(0)
    return (Cost(2 * len(STEPS) * DIRECTIONS + 5, 3) + routes).times(size(audit, audit.effort.gradient_images))


def run(audit: Audit) -> Finding:
    model, rng = one_function(audit.subject), audit.generator(NAME)

    def measure(batch: Batch) -> Measures:
        routes = route_measures(model, batch.x, batch.y) if audit.subject.is_shc else {}
        return {**measures(model, batch.x, batch.y, audit.setting.eps, rng), **routes}

    found = measured(audit, audit.effort.gradient_images, measure)
    alarms = list(faults(found))
    numbers: dict[str, Any] = {
        "images": len(found["difference"]),
        "finite_difference_error": float(np.median(found["difference"])),
        "wholly_zero": float(found["wholly_zero"].mean()),
        "zeros": float(found["zeros"].mean()),
        "linearity_error": float(np.median(found["linearity"])),
        "faults": alarms,
    }
    said = (
        f"median error against finite differences {numbers['finite_difference_error']:.3f}; "
        f"{percent(numbers['zeros'])} of the gradient's entries and {percent(numbers['wholly_zero'])} of the whole "
        "gradients are exactly zero; median error of the linear prediction of a step of "
        f"{radius_text(audit.setting.eps)} is {numbers['linearity_error']:.2f}"
    )
    if audit.subject.is_shc:
        medians = {name: float(np.median(found[name])) for name in ("through_maps", "hypernetwork", "agreement")}
        numbers |= medians
        said += (
            f"; the part through filter maps has {medians['through_maps']:.2f} times the norm of the convolution "
            f"route's (the hypernetwork route alone {medians['hypernetwork']:.2f}); {percent(medians['agreement'])} of "
            "the full gradient's signs are those of the convolution route"
        )
    verdict = f"Gradients mislead: {'; '.join(alarms)}" if alarms else "Gradients raise no alarm"
    text = f"{verdict}. On {numbers['images']} images: {said}."
    return Finding(bool(alarms), text, numbers, _maps(audit), "gradients")


def faults(found: Mapping[str, NDArray[np.float64]]) -> Iterator[str]:
    """In words, what raises the alarm."""
    if np.median(found["difference"]) > WRONG:
        yield "they disagree with finite differences"
    if found["wholly_zero"].mean() >= VANISHED or found["zeros"].mean() >= MOSTLY_ZERO:
        yield "too many are exactly zero"
    if "agreement" in found and np.median(found["through_maps"]) > LARGE and np.median(found["agreement"]) < AGREEING:
        yield "most of the gradient passes through the filter maps and changes the convolution's signs"


def measures(model: nn.Module, x: Tensor, y: Tensor, epsilon: float, rng: np.random.Generator) -> Measures:
    """Of images x (n, C, H, W): error against finite differences, zeros, error of the linear prediction; each (n,)."""
    inside = x.clamp(max(STEPS), 1 - max(STEPS))  # a network may clip its input: differences lie in the box
    slope, entropy = gradient(model, inside, y, margin), gradient(model, x, y, cross_entropy)
    told = []
    seen: dict[float, list[NDArray[np.float64]]] = {step: [] for step in STEPS}
    for _ in range(DIRECTIONS):
        d = torch.from_numpy(2 * rng.integers(0, 2, tuple(x.shape)) - 1).to(x)
        for step, slopes in seen.items():
            ends = [loss_at(model, inside + sign * step * d, y, margin) for sign in (1, -1)]
            slopes.append((ends[0] - ends[1]) / (2 * step))
        told.append((slope * d).flatten(1).sum(1).double().cpu().numpy())
    move = (x + epsilon * slope.sign()).clamp(0, 1) - x
    predicted = (slope * move).flatten(1).sum(1).double().cpu().numpy()
    rise = loss_at(model, x + move, y, margin) - loss_at(model, x, y, margin)
    zeros = (entropy == 0).flatten(1).double().mean(1).cpu().numpy()
    return {
        "difference": np.min([_relative(np.array(told), np.array(slopes)) for slopes in seen.values()], axis=0),
        "zeros": zeros,
        "wholly_zero": (zeros == 1).astype(np.float64),
        "linearity": _relative(predicted[None], rise[None]),
    }


def route_measures(model: nn.Module, x: Tensor, y: Tensor) -> Measures:
    """Of an SHC network, each (n,): norms of the parts of the gradient over the convolution route's, and the share of
    the convolution route's signs that the whole gradient keeps."""
    g = by_route(model, x, y)
    norm = {route: each.flatten(1).norm(dim=1).double() for route, each in g.items()}
    through = (g["both"] - g["convolution"]).flatten(1).norm(dim=1).double()
    unit = norm["convolution"].clamp_min(torch.finfo(torch.float32).tiny)
    told = (g["convolution"] != 0).flatten(1)
    same = ((g["both"].sign() == g["convolution"].sign()).flatten(1) & told).sum(1).double() / told.sum(1).clamp_min(1)
    values = {"through_maps": through / unit, "hypernetwork": norm["hypernetwork"] / unit, "agreement": same}
    return {name: value.cpu().numpy() for name, value in values.items()}


def by_route(model: nn.Module, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """The gradient of the margin (n, C, H, W) through each route."""
    found = {}
    for route in ROUTES:
        with routed(model, route) as seen:
            found[route] = gradient(seen, x, y, margin)
    return found


def _relative(told: NDArray[np.float64], seen: NDArray[np.float64]) -> NDArray[np.float64]:
    """|told - seen| over the larger of the two, for vectors (k, n): 0 where both vanish, 1 where one does; (n,)."""
    larger = np.maximum(np.linalg.norm(told, axis=0), np.linalg.norm(seen, axis=0))
    errors: NDArray[np.float64] = np.linalg.norm(told - seen, axis=0) / np.where(larger > 0, larger, 1.0)
    return errors


def _maps(audit: Audit) -> dict[str, NDArray[Any]]:
    """One image and its gradients, summed over the channels."""
    at = int(np.flatnonzero(audit.correct)[0])
    x, y = audit.images[at : at + 1], audit.labels[at : at + 1]
    model = audit.subject.model
    g = by_route(model, x, y) if audit.subject.is_shc else {"both": gradient(model, x, y, margin)}
    return {"image": x[0].cpu().numpy(), **{route: each[0].sum(0).cpu().numpy() for route, each in g.items()}}
