"""Attacks that a user gives by name, on every network of a study and the same images: no table of the paper."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from shconv.attacks import Attack, Foreign, Standard
from shconv.attacks.losses import gradient_at
from shconv.attacks.objective import log_odds
from shconv.data import ImageData
from shconv.data.splits import in_unit_range
from shconv.errors import InputError
from shconv.experiments.network import (
    Network,
    finite,
    first_logits,
    in_other_company,
    routes_of,
    same_answers,
)
from shconv.experiments.question import Index
from shconv.experiments.run_folder import Row, RunFolder, holds_other, read_facts
from shconv.experiments.study import Study
from shconv.metrics import answered

EXPERIMENT, ATTACKS = "evaluate", "attacks.json"
LOOKED_AT = 8  # images


def run_own(
    study: Study, attacks: Mapping[str, Attack], routes: Sequence[str], *, confident: bool = False, most: int | None
) -> None:
    """Every attack on the images that the study is about, or on the first `most` of them that all networks are sure of.

    Raises InputError where the folder knows one of the names as another attack.
    """
    settle_attacks(study.folder, attacks)
    tell(study, attacks)
    for _ in rows(study, attacks, _index(study, confident, most), routes):
        pass


def tell(study: Study, attacks: Mapping[str, Attack]) -> None:
    """Say what a person should know of each network before its numbers."""
    (first,) = study.batches(np.arange(min(LOOKED_AT, len(study.data.test))), LOOKED_AT)
    for network in study.networks:
        for sentence in told(network.model, first.x[: first.n], first.y[: first.n], attacks, study.batch_size):
            study.progress.say(f"{network.key}{sentence}")


def told(model: nn.Module, x: Tensor, y: Tensor, attacks: Mapping[str, Attack], batch_size: int) -> Iterator[str]:
    """What a person should know of a network before its numbers, after its name, from passes over a few images x
    (n, C, H, W) of classes y (n,)."""
    with torch.random.fork_rng([x.device] if x.is_cuda else []):
        with torch.no_grad():
            first, second = (model(x) for _ in range(2))
            alone = model(in_other_company(x))
        climbs = any(attack.cost is not None and attack.cost.backwards for attack in attacks.values())
        broken, flat = _useless_gradients(model, x, y) if climbs else (0, 0)
    if not same_answers(first, second):
        yield (
            " is random: two passes over the same images differ. It is judged by one pass, so that another run gives "
            "other numbers, and attacks that do not average its passes look weaker than they are. PGD(samples=8) "
            "averages; so does an audit"
        )
    elif not same_answers(first[:1], alone[:1]):
        yield (
            " answers for an image by the other images of its batch too, as batch norm without stored statistics does: "
            f"the numbers are those of batches of {batch_size}"
        )
    if broken:
        yield (
            f" has a gradient with NaN on {broken} of {len(x)} images that were looked at. There it counts as 0, so "
            "that attacks that follow it look weaker than they are"
        )
    if flat:
        yield (
            f" has a gradient of exactly 0 on {flat} of {len(x)} images that were looked at, as under torch.no_grad, "
            "after detach() or rounding: attacks that follow it cannot work there. An audit attacks in other ways too"
        )
    for name, attack in attacks.items():
        if isinstance(attack, Standard):
            yield from (f", {name}: {note}" for note in attack.notes(first.shape[1]))


def _useless_gradients(model: nn.Module, x: Tensor, y: Tensor) -> tuple[int, int]:
    """On how many of the images that it has an answer for the gradient of the log-odds has NaN, and is exactly 0."""
    x = x.clone().requires_grad_()
    logits = model(x)
    slopes = gradient_at(x, log_odds(finite(logits), y)).flatten(1)
    useless = (slopes.isnan().any(1), (slopes == 0).all(1))
    broken, flat = (int((each & answered(logits)).sum()) for each in useless)
    return broken, flat


def settle_attacks(folder: RunFolder, attacks: Mapping[str, Attack]) -> None:
    """Store what each name stands for. Raises InputError where the folder knows it as another attack."""
    if not attacks:
        return
    folder.settle_json(ATTACKS, _said(folder.path, attacks), grows=True)


def holds_other_attacks(folder: Path, attacks: Mapping[str, Attack]) -> bool:
    """Would settle_attacks refuse them?"""
    try:
        return bool(attacks) and holds_other(folder, ATTACKS, _said(folder, attacks))
    except (OSError, InputError):  # its file is damaged
        return True


def _said(folder: Path, attacks: Mapping[str, Attack]) -> dict[str, str]:
    known = read_facts(folder / ATTACKS)
    return {name: _words(attack, known.get(name)) for name, attack in attacks.items()}


def _words(attack: Attack, known: str | None) -> str:
    """The attack in words: the folder's, if they lack only fields of later versions, which are at their defaults.

    Another library's has words of its own, and what it calls itself is not asked: ART's SquareAttack does not end.
    """
    if known is not None and is_dataclass(attack) and not isinstance(attack, Foreign):
        values = {each: getattr(attack, each.name) for each in fields(attack) if each.repr}
        told = {each.name: value for each, value in values.items() if f"{each.name}=" in known or value != each.default}
        said = ", ".join(f"{name}={value!r}" for name, value in told.items())
        if known == f"{type(attack).__qualname__}({said})":
            return known
    return repr(attack)


def rows(study: Study, attacks: Mapping[str, Attack], index: Index, routes: Sequence[str] = ("both",)) -> Iterator[Row]:
    """A row for each network, attack and route that the network has."""
    for network in study.networks:
        for name, attack in attacks.items():
            for route in (route for route in routes if route == "both" or route in routes_of(network)):
                yield study.row(EXPERIMENT, network, name, attack, index, route, size=study.batch_size)


def check_fit(networks: Sequence[Network], data: ImageData, device: torch.device) -> list[str]:
    """A warning for each network with more classes than the data.

    Raises InputError where a network does not give logits for the first image, or has fewer classes than labels.
    """
    image, _ = data.test[0]
    x, labels = in_unit_range(image[None].to(device)), int(data.test.labels.max()) + 1
    warnings = []
    for network in networks:
        classes = first_logits(network.name, network.model, x).shape[1]
        if classes < labels:
            raise InputError(f"{network.name} has {classes} classes, the labels go up to {labels - 1}")
        if classes > len(data.classes) and not data.classes[-1].isdecimal():  # numbers: nobody said how many there are
            warnings.append(
                f"warning: {network.name} has {classes} outputs, {data.name} has {len(data.classes)} classes"
            )
    return warnings


def _index(study: Study, confident: bool, most: int | None) -> Index:
    if not confident:
        return study.clean(study.pairs[0].members[0]).index
    return np.sort(study.selected(study.pairs[0], most or len(study.data.test)))
