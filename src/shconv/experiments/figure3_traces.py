"""Figure 3: LocSearchAdv on the image of each pair that it moves most: confidence and RCD at every step, the perturbed
image every fifth of the rounds, and the filter map of the last SHC layer there."""

import numpy as np
import torch

from shconv.attacks import locsearch_columns
from shconv.experiments.network import Network, Pair
from shconv.experiments.run_folder import file_name
from shconv.experiments.study import Study
from shconv.experiments.table3_locsearch import most_moved, searches
from shconv.metrics import is_right, relative_confidence
from shconv.routes import record_filter_maps


def save(study: Study) -> None:
    """arrays/figure3_PAIR-seedS.npz for every pair of two networks."""
    for pair in study.pairs:
        first = pair.members[0]
        name = f"arrays/figure3_{file_name(first.name)}-seed{first.seed}"
        if len(pair.members) == 2 and not (study.folder.path / f"{name}.npz").exists():
            _save_pair(study, pair, name)


def _save_pair(study: Study, pair: Pair, name: str) -> None:
    image = most_moved(study, pair)
    attack = searches(study.data.image_size, study.data.is_demo)["locsearch"]
    marks = locsearch_columns(attack.steps)
    for x, y, places, n in study.batches(image):
        p_y, rcd, images, correct = [], [], [], []
        for network in pair.members:
            result = attack.run(network.attacked, x[:n], y[:n], index=places[:n], seed=study.seed, trace_steps=marks)
            assert result.trace is not None
            rc = relative_confidence(result.trace.logits[0], y[:1].cpu().expand(attack.steps + 1))
            p_y.append(result.trace.confidences[0].numpy())
            rcd.append((rc[0] - rc).numpy())
            current = torch.cat([result.trace.images[mark] for mark in marks])
            images.append(current.numpy())
            logits = study.logits(network, current.to(study.device), len(marks))
            correct.append(is_right(logits, y[0]).cpu().numpy())
        arrays = {
            "models": [member.name for member in pair.members],
            "p_y": p_y,
            "rcd": rcd,
            "marks": marks,
            "images": images,
            "correct": correct,
            "maps": _last_maps(pair.members[1], torch.from_numpy(images[1]).to(study.device)),
            "label": study.data.classes[int(y[0])],
        }
        study.folder.save_arrays(name, arrays)


@torch.no_grad()
def _last_maps(network: Network, images: torch.Tensor) -> np.ndarray:
    """M (K, S, S) of the last SHC layer."""
    with record_filter_maps(network.model) as maps:
        network.model(images)
    return list(maps.values())[-1].cpu().numpy()
