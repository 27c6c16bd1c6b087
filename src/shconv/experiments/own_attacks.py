"""Attacks that a user gives by name, on every network of a study and the same images: no table of the paper."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch

from shconv.attacks import Attack
from shconv.data import ImageData
from shconv.data.splits import in_unit_range
from shconv.errors import InputError
from shconv.experiments.network import Network, routes_of
from shconv.experiments.question import Index
from shconv.experiments.run_folder import Row, RunFolder
from shconv.experiments.study import Study

EXPERIMENT = "evaluate"


def run_own(
    study: Study, attacks: Mapping[str, Attack], routes: Sequence[str], *, confident: bool = False, most: int | None
) -> None:
    """Every attack on the images that the study is about, or on the first `most` of them that all networks are sure of.

    Raises InputError where the folder knows one of the names as another attack.
    """
    settle_attacks(study.folder, attacks)
    for _ in rows(study, attacks, _index(study, confident, most), routes):
        pass


def settle_attacks(folder: RunFolder, attacks: Mapping[str, Attack]) -> None:
    """Store what each name stands for. Raises InputError where the folder knows it as another attack."""
    if not attacks:
        return
    folder.settle_json("attacks.json", {name: repr(attack) for name, attack in attacks.items()}, grows=True)


def rows(study: Study, attacks: Mapping[str, Attack], index: Index, routes: Sequence[str] = ("both",)) -> Iterator[Row]:
    """A row for each network, attack and route that the network has."""
    for network in study.networks:
        for name, attack in attacks.items():
            for route in (route for route in routes if route == "both" or route in routes_of(network)):
                yield study.row(EXPERIMENT, network, name, attack, index, route, size=study.batch_size)


def check_fit(networks: Sequence[Network], data: ImageData, device: torch.device) -> None:
    """Raises InputError where a network does not give logits for the first image, or has fewer classes than labels."""
    image, _ = data.test[0]
    x = in_unit_range(image[None].to(device))
    labels = int(data.test.labels.max()) + 1
    for network in networks:
        try:
            with torch.no_grad():
                logits = network.model(x)
        except (RuntimeError, ValueError) as error:
            reason = str(error).splitlines()[0][:160]
            raise InputError(f"{network.name} cannot take images of shape {tuple(image.shape)}: {reason}") from error
        if not isinstance(logits, torch.Tensor) or logits.dim() != 2:
            got = f"shape {tuple(logits.shape)}" if isinstance(logits, torch.Tensor) else type(logits).__name__
            raise InputError(f"{network.name} returned {got}; want logits of shape (images, classes)")
        if logits.shape[1] < labels:
            raise InputError(f"{network.name} has {logits.shape[1]} classes, the labels go up to {labels - 1}")


def _index(study: Study, confident: bool, most: int | None) -> Index:
    if not confident:
        return study.clean(study.pairs[0].members[0]).index
    return np.sort(study.selected(study.pairs[0], most or len(study.data.test)))
