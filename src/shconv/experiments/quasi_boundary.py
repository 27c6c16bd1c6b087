"""Section 4.1: the quasi decision boundary, that of the network with every kernel fixed at the clean image. Along an
attack: how far image and filter maps move, and how often the frozen and the true network still agree."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from shconv.attacks import FGSM, RandFGSM
from shconv.attacks.base import BatchAttack
from shconv.experiments.run_folder import Row
from shconv.experiments.study import Study, row_id
from shconv.routes import frozen_kernels, record_filter_maps

Arrays = dict[str, NDArray[Any]]

# LocSearchAdv, the paper's example, is measured where it is run: along the searches of Table 3.
GRADIENT_ATTACKS: dict[str, BatchAttack] = {"fgsm": FGSM(), "rand_fgsm": RandFGSM(), "fgsm_heavy": FGSM(epsilon=0.1)}


def rows(study: Study) -> Iterator[Row]:
    for pair in study.pairs:
        index = study.selected(pair, study.counts.table3)
        for network in (member for member in pair.members if member.is_shc):
            for name, attack in GRADIENT_ATTACKS.items():
                id = row_id("quasi_boundary", network, name, attack)
                if id not in study.folder.rows:
                    parts = []
                    for x, y, places, n in study.batches(index):
                        adversarial = attack(network.model, x, y, index=places, seed=study.seed)
                        parts.append(compare(network.model, x[:n], adversarial[:n]))
                    outcomes = study.measure(network, attack, index)
                    study.add("quasi_boundary", network, name, attack, outcomes, extra=summary(parts))
                yield study.folder.rows[id]


@torch.no_grad()
def compare(model: nn.Module, clean: Tensor, moved: Tensor) -> Arrays:
    """For each image (N, C, H, W): how far it and its filter maps moved in L2 (the maps' mean over the SHC layers),
    and whether the network frozen at the clean image predicts what the true network predicts for the moved one."""
    with record_filter_maps(model) as maps:
        model(clean)
        before = dict(maps)
        predicted = model(moved).argmax(1)
        distance = torch.stack([(maps[name] - before[name]).flatten(1).norm(dim=1) for name in maps]).mean(0)
    with frozen_kernels(model, clean):
        frozen = model(moved).argmax(1)
    measured = {
        "image_distance": (moved - clean).flatten(1).norm(dim=1),
        "map_distance": distance,
        "agreement": (predicted == frozen).float(),
    }
    return {name: values.cpu().numpy() for name, values in measured.items()}


def summary(parts: list[Arrays]) -> dict[str, float | None]:
    """The means over all images, the fields that a row of this experiment has beside every row's."""
    names = ("image_distance", "map_distance", "agreement")
    return {name: float(np.concatenate([part[name] for part in parts]).mean()) if parts else None for name in names}
