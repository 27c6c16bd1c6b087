"""Networks with a detector: what their rows say of rejections, and that other networks say nothing of them."""

import numpy as np
import torch
from torch import Tensor, nn

from shconv.attacks import FGSM
from shconv.experiments import own_attacks
from shconv.experiments.study import Counts
from shconv.results import Results
from toys import colour_data, colour_networks


class Guarded(nn.Module):
    """Rejects by how near to each other its pixels are."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.inner(x)
        return logits

    def score(self, x: Tensor) -> Tensor:
        return -x.flatten(1).std(1)

    def joint(self, x: Tensor, y: int) -> Tensor:
        return self(x)


class Headed(nn.Module):
    """Has a score, which is something else, and no detector."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.score = inner, nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.inner(x)
        return logits


def test_rejections_are_counted_from_the_clean_images_threshold(make_study) -> None:
    vanilla, _ = colour_networks()
    study = make_study((Guarded(vanilla).eval(),), data=colour_data(60), counts=Counts(60, 60, 60))
    own_attacks.run_own(study, {"fgsm": FGSM(0.1, objective="untargeted")}, ("both",), most=60)
    clean, attacked = (study.folder.outcomes(id) for id in study.folder.rows)
    rows = list(study.folder.rows.values())
    images = torch.stack([study.data.test[i][0] for i in clean["index"]])
    np.testing.assert_allclose(clean["score"], -(images.flatten(1) / 255).std(1).numpy(), atol=1e-5)
    threshold = np.sort(clean["score"])[-4]  # 3 of 60 images are above it
    held = clean["correct"] & (clean["score"] <= threshold)
    assert rows[0]["accuracy_rejecting"] == held.mean() <= rows[0]["accuracy"]
    assert (clean["score"] > threshold).sum() == 3
    assert (~attacked["correct"] & (attacked["score"] > threshold)).any()
    kept = attacked["correct"] | (attacked["score"] > threshold)
    assert rows[1]["accuracy_rejecting"] == kept.mean() > rows[1]["accuracy"]
    pairs = (attacked["score"][:, None] > clean["score"]) + (attacked["score"][:, None] == clean["score"]) / 2
    np.testing.assert_allclose(rows[1]["detection_auc"], pairs.mean())
    summary = Results.load(study.folder.path).summary().iloc[0]
    assert summary["clean, right and not rejected"] == held.mean()
    assert summary["fgsm, untargeted, right or rejected"] == kept.mean()


def test_of_a_network_without_one_nothing_is_said(make_study) -> None:
    vanilla, _ = colour_networks()
    study = make_study((Headed(vanilla).eval(),), data=colour_data(12), counts=Counts(12, 12, 12))
    (network,) = study.networks
    study.clean(network)
    (row,) = study.folder.rows.values()
    assert "accuracy_rejecting" not in row
    assert "score" not in study.folder.outcomes(row["id"])
