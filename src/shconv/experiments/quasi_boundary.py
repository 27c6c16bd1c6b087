"""Section 4.1: the quasi decision boundary, that of the network with every kernel fixed at the clean image. Along an
attack: how far image and filter maps move, and how often the frozen and the true network still agree."""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor, nn

from shconv.attacks import FGSM, RandFGSM
from shconv.attacks.base import BatchAttack
from shconv.experiments.network import Network
from shconv.experiments.outcomes import NO_ANSWER, Outcomes, mean, predicted
from shconv.experiments.partial import Columns
from shconv.experiments.question import Images, Question
from shconv.experiments.run_folder import Row
from shconv.experiments.study import Study, row_id
from shconv.routes import frozen_kernels, record_filter_maps

MEASURED = ("image_distance", "map_distance", "agreement")

# LocSearchAdv, the paper's example, is measured where it is run: along the searches of Table 3.
GRADIENT_ATTACKS: dict[str, BatchAttack] = {"fgsm": FGSM(), "rand_fgsm": RandFGSM(), "fgsm_heavy": FGSM(epsilon=0.1)}


def rows(study: Study) -> Iterator[Row]:
    for network, index in study.on_selected(study.counts.table3):
        for name, attack in GRADIENT_ATTACKS.items() if network.is_shc else ():
            question = Question(network, attack, index, min(study.batch_size, len(index)), also="quasi_boundary")
            id = row_id("quasi_boundary", network, name, attack)
            if id not in study.folder.rows:
                columns, seconds = study.collected(question, partial(_measured, study, network, attack))
                outcomes = Outcomes.of(columns, seconds)
                study.add("quasi_boundary", network, name, attack, outcomes, extra=summary(columns))
            study.forget(question)
            yield study.folder.rows[id]


def _measured(
    study: Study, network: Network, attack: BatchAttack, images: Images, advance: Callable[[], None]
) -> Columns:
    adversarial, columns = study.attacked(network, attack, images)
    moved = compare(network.model, images.x, adversarial)
    advance()
    return columns | {name: values[: images.n] for name, values in moved.items()}


@torch.no_grad()
def compare(model: nn.Module, clean: Tensor, moved: Tensor) -> Columns:
    """For each image (N, C, H, W): how far it and its filter maps moved in L2 (the maps' mean over the SHC layers),
    and whether the network frozen at the clean image predicts what the true network predicts for the moved one: not so
    where that has no answer."""
    with record_filter_maps(model) as maps:
        model(clean)
        before = dict(maps)
        true = predicted(model(moved))
        distance = torch.stack([(maps[name] - before[name]).flatten(1).norm(dim=1) for name in maps]).mean(0)
    with frozen_kernels(model, clean):
        frozen = predicted(model(moved))
    measured = (moved - clean).flatten(1).norm(dim=1), distance, ((true == frozen) & (true != NO_ANSWER)).float()
    return {name: values.double().cpu().numpy() for name, values in zip(MEASURED, measured, strict=True)}


def summary(columns: Columns) -> dict[str, float | None]:
    """The means over all images, None where maps moved to NaN; fields that a row of this experiment has beside every
    row's."""
    return {name: mean(columns[name]) if name in columns else None for name in MEASURED}
