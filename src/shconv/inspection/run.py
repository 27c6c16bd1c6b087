"""`shconv.inspection.run`: what the filter maps of a network do, layer by layer, and what its two gradient routes do to
an attacker. Here is what it accepts and how its parts come together; `gradients`, `maps` and `attacks` measure."""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from shconv import numbers
from shconv.arguments import checked
from shconv.attacks import Attack
from shconv.attacks.base import borrowed
from shconv.attacks.checks import check_count, check_inputs, check_logits, check_logits_shape
from shconv.data.given import as_data
from shconv.data.splits import ImageSplit
from shconv.errors import InputError
from shconv.experiments.network import ALL_ROUTES, Finite, finite
from shconv.experiments.own_attacks import LOOKED_AT, told
from shconv.experiments.progress import ExperimentProgress
from shconv.experiments.selection import drawn, taken
from shconv.inspection import gradients, maps
from shconv.inspection.attacks import attacks_within, examples, judged
from shconv.inspection.records import ALL, Columns, attack_records, layer_records, linearity_records, network_record
from shconv.inspection.result import Inspection
from shconv.metrics import answered
from shconv.routes import ROUTES, shc_layers

MOST, FEWEST = 200, 20  # images, where nobody says how many


@checked
def run(
    model: nn.Module,
    data: Any,
    *,
    eps: float | str = "8/255",
    images: int | None = None,
    steps: int = 10,
    seconds: float = 60.0,
    batch_size: int = 100,
    seed: int = 0,
    name: str = "model",
    progress: bool = True,
) -> Inspection:
    """Measure the filter maps and the gradient routes of a network with SHC layers.

    Args:
        model: from images (N, C, H, W) in [0, 1] to logits (N, K); left in the mode and with the flags that it has.
            A layer that it never calls is left out. Images for which it returns NaN count as wrong, and no more.
        data: (images, labels), a data set, a DataLoader or words such as "demo": see `shconv.data.given.as_data`.
        eps: L-infinity budget of every attack: a number or "8/255".
        images: so many, at least 2, drawn with `seed`; None takes as many as `seconds` allow, 20 to 200.
        steps: of PGD.
        seconds: about what it may take, where `images` is None.
        batch_size: largest number of images in a batch.
        name: how the tables call the network.
        progress: show a bar on standard error.

    Raises:
        InputError: a network without SHC layers, images or labels that do not fit, a budget or count out of range.
    """
    gradients.check_has_maps(model)
    budget = numbers.budget("eps", eps, above=True)
    images, seed = numbers.plain(images), numbers.plain(seed)
    steps, batch_size = numbers.plain(steps), numbers.plain(batch_size)
    for word, value, least in (("steps", steps, 1), ("batch_size", batch_size, 1), ("seed", seed, 0)):
        check_count(word, value, least)
    if images is not None:
        check_count("images", images, 2)
    if not seconds > 0:
        raise InputError(f"seconds must be above 0, got {seconds}")
    split = as_data(data).test
    if len(split) < 2:
        raise InputError("data: got 1 image; want at least 2, since maps are compared between images")
    device = next((each.device for each in model.parameters()), torch.device("cpu"))
    attacks = attacks_within(budget, steps)
    with ExitStack() as stack:
        stack.enter_context(borrowed(model))
        if images is None:
            first = _taken(split, 8, seed, device)
            images = _affordable(model, first[0], first[1], _passes(model, steps), seconds)
        asked = _taken(split, images, seed, device)
        batches = [
            tuple(each[kept] for each in batch)
            for batch in zip(*(each.split(batch_size) for each in asked), strict=True)
            if (kept := _answered(model, *batch[:2])).any()
        ]
        if not batches:
            raise InputError("model: returned logits with NaN or infinity for every image; want logits")
        show = ExperimentProgress(progress)
        for sentence in told(model, asked[0][:LOOKED_AT], asked[1][:LOOKED_AT], attacks, batch_size):
            show.say(f"{name}{sentence}")
        parts = len(batches) * (2 + len(attacks) * len(ALL_ROUTES))
        advance = stack.enter_context(show.task(f"inspecting {name}", parts))
        columns = Columns()
        for x, y, index in batches:
            _measure(columns, model, x, y, index.tolist(), attacks, budget, seed, advance)
        layers = {layer: each for layer, each in shc_layers(model).items() if ("maps", layer) in columns}  # called
        means = maps.mean_maps({layer: columns.whole("maps", layer) for layer in layers})
        for x, _, _ in batches:
            _hold(columns, model, means, x)
            advance()
    right = columns.flags("right")
    return Inspection(
        name=name,
        eps=budget,
        images=len(asked[0]),
        network=network_record(columns, right, len(asked[0])),
        layers=tuple(layer_records(columns, layers, right)),
        attacks=tuple(attack_records(columns, list(attacks), right)),
        linearity=tuple(linearity_records(columns)),
    )


def _taken(split: ImageSplit, wanted: int, seed: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Images (n, C, H, W) in [0, 1], labels (n,) and places (n,). Raises InputError where they do not fit."""
    chosen = drawn(len(split), wanted, seed)
    images, labels = (each.to(device) for each in taken(split, chosen))
    x, y, _ = check_inputs(images, labels, chosen.tolist(), 0)
    return x, y, torch.from_numpy(chosen)


@torch.no_grad()
def _answered(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """bool (N,): for which images x (N, C, H, W) it gives logits; that the labels y (N,) fit them."""
    logits = check_logits_shape(model(x), len(x))
    check_logits(finite(logits), y)
    return answered(logits)


def _passes(model: nn.Module, steps: int) -> int:
    """Gradient passes that an image costs, about: a layer's own, the routes', those of attacks ("strict" costs two)."""
    layers = len(shc_layers(model))
    return 3 * layers + 12 + (steps + 3) * (len(ALL_ROUTES) + 1)


def _affordable(model: nn.Module, x: Tensor, y: Tensor, passes: int, seconds: float) -> int:
    """How many images the time is enough for, by one timed pass on a few."""
    gradients.loss_gradient(Finite(model), x, y)  # the first pass chooses kernels
    began = time.perf_counter()
    gradients.loss_gradient(Finite(model), x, y)
    if x.is_cuda:
        torch.cuda.synchronize(x.device)
    each = (time.perf_counter() - began) / len(x)
    return max(FEWEST, min(MOST, int(seconds / (passes * each))))


def _measure(
    columns: Columns,
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    index: Sequence[int],
    attacks: dict[str, Attack],
    eps: float,
    seed: int,
    advance: Callable[[], None],
) -> None:
    """Add a batch's numbers: of the clean images, of their gradients, and of what each attack makes of them."""
    with torch.no_grad():
        columns.add(model(x), "logits")
    columns.add(y, "labels")
    right, loss = judged(model, x, y)
    columns.add(right, "right")
    columns.add(loss, "loss")
    clean = maps.recorded(model, x)
    layers = shc_layers(model)
    for name, held in clean.items():
        hyper = layers[name].hyper
        columns.add(held.M, "maps", name)
        columns.add(maps.sensitivity(hyper, held.x), "sensitivity", name)
        if (active := maps.active_neurons(hyper, held.x)) is not None:
            columns.add(active[None], "active", name)
    by_route = gradients.route_gradients(model, x, y)
    columns.add_all(gradients.compared_routes(by_route), "routes")
    columns.add((by_route["both"] == 0).flatten(1).all(1), "flat")
    for route, gradient in by_route.items():
        columns.add_all(gradients.linearity(model, x, y, gradient, eps), "linearity", route)
    for name, measured in gradients.by_layer(model, x, y, by_route["both"]).items():
        columns.add_all(measured, "layer", name)
    advance()
    for attack_name, attack in attacks.items():
        for route in ALL_ROUTES:
            adversarial = examples(model, attack, x, y, index, seed, route)
            right, loss = judged(model, adversarial, y)
            columns.add(right, "attacked", attack_name, route, "right")
            columns.add(loss, "attacked", attack_name, route, "loss")
            if attack_name == next(iter(attacks)) and route in ROUTES:  # where a step takes the maps
                for name, moved in maps.shifts(model, clean, adversarial).items():
                    columns.add(moved, "shift", name, route)
            advance()


def _hold(columns: Columns, model: nn.Module, means: dict[str, Tensor], x: Tensor) -> None:
    """Add what becomes of a batch where each layer's map, and all of them, are held at their mean."""
    with torch.no_grad():
        logits = model(x)
    for name, chosen in {ALL: means, **{each: {each: M} for each, M in means.items()}}.items():
        moved, predicted = maps.without(model, chosen, x, logits)
        columns.add(moved, "held", name, "moved")
        columns.add(predicted, "held", name, "predicted")
