"""What of the input gradient passes through filter maps, whether the two routes agree, and how far the loss is linear
along each. Every measure is one number an image. The loss is the log-odds against the label: it does not saturate."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from shconv.attacks.objective import class_gradient, log_odds
from shconv.errors import InputError
from shconv.experiments.network import finite
from shconv.routes import ROUTES, gradient_route, shc_layers

ROUNDING = 16  # of the dtype's epsilon: a share of the gradient below it is the difference of two roundings


def loss_against(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """ln((1 - p_y) / p_y) (N,) of images x (N, C, H, W): above 0 where p_y is below 1/2. Where the model gives NaN,
    that of equal probabilities."""
    with torch.no_grad():
        return -log_odds(finite(model(x)), y)


def loss_gradient(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """The gradient of `loss_against` with respect to x (N, C, H, W)."""
    return -class_gradient(model, x, y, None, "untargeted")[0]


def route_gradients(model: nn.Module, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """The gradient of the loss (N, C, H, W) through each route; "strict" is both less convolution.

    Raises InputError for a network without SHC layers.
    """
    check_has_maps(model)
    found = {}
    for route in ROUTES:
        with gradient_route(model, route):
            found[route] = loss_gradient(model, x, y)
    return {**found, "strict": found["both"] - found["convolution"]}


def check_has_maps(model: nn.Module) -> None:
    """Raises InputError for a network without SHC layers."""
    if not shc_layers(model):
        raise InputError(
            f"{type(model).__name__} has no SHC layer, so it has no filter map to inspect; shconv.to_shc makes its "
            "SHC counterpart"
        )


def compared_routes(gradients: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Of `route_gradients`, each (N,):

    share: of the gradient's norm through filter maps, |strict| / (|strict| + |convolution|), between 0 and 1.
    cosine: between the part through maps and the convolution route; where one is zero but for rounding it is 0.
    agreement: the share of the convolution route's signs that the whole gradient keeps.
    """
    maps, convolution, both = (gradients[route] for route in ("strict", "convolution", "both"))
    part = share(maps, convolution)
    cosine = torch.cosine_similarity(maps.flatten(1), convolution.flatten(1), eps=0.0).nan_to_num(0.0)
    return {
        "share": part,
        "cosine": cosine.where(part > ROUNDING * torch.finfo(part.dtype).eps, 0.0),
        "agreement": kept_signs(convolution, both),
    }


def by_layer(model: nn.Module, x: Tensor, y: Tensor, both: Tensor) -> dict[str, dict[str, Tensor]]:
    """What the map of each SHC layer alone does to the gradient: by layer name, share and agreement (N,).

    The part through a layer's map is the whole gradient `both` less the one with this map held constant; share and
    agreement compare it with that rest. One backward pass a layer.
    """
    found = {}
    for name, layer in shc_layers(model).items():
        with gradient_route(layer, "convolution"):
            rest = loss_gradient(model, x, y)
        found[name] = {"share": share(both - rest, rest), "agreement": kept_signs(rest, both)}
    return found


def share(part: Tensor, rest: Tensor) -> Tensor:
    """|part| / (|part| + |rest|) of each image (N,); 0 where both vanish."""
    a, b = (each.flatten(1).norm(dim=1) for each in (part, rest))
    shares: Tensor = a / (a + b).clamp_min(torch.finfo(a.dtype).tiny)
    return shares


def kept_signs(one: Tensor, whole: Tensor) -> Tensor:
    """Of the entries of `one` that are not zero, the share whose sign `whole` has too (N,); 1 where all are zero."""
    told = (one != 0).flatten(1)
    same = ((one.sign() == whole.sign()).flatten(1) & told).sum(1)
    return torch.where(told.any(1), same / told.sum(1).clamp_min(1), 1.0)


def linearity(model: nn.Module, x: Tensor, y: Tensor, gradient: Tensor, eps: float) -> dict[str, Tensor]:
    """One step of eps along the gradient's signs, inside [0, 1]: what it promises and what comes of it, each (N,).

    promised: <gradient, step>; rise: the loss there less the loss at x; error: |promised - rise| over the larger of
    the two, 0 where the loss is linear along the step and 1 where one of them is nothing, above 1 where signs differ.
    """
    step = (x + eps * gradient.sign()).clamp(0, 1) - x
    promised = (gradient * step).flatten(1).sum(1)
    rise = loss_against(model, x + step, y) - loss_against(model, x, y)
    larger = promised.abs().maximum(rise.abs()).clamp_min(torch.finfo(x.dtype).tiny)
    return {"promised": promised, "rise": rise, "error": (promised - rise).abs() / larger}
