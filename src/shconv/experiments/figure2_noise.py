"""Figure 2: one image under Gaussian noise of growing sigma, its confidence and RCD in every network."""

from pathlib import Path

import numpy as np

from shconv.attacks import GaussianNoise
from shconv.experiments.study import Study

SIGMAS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25)


def save(study: Study) -> None:
    """arrays/figure2.npz, for the networks of the first pair's seed and that pair's first selected image."""
    first = study.pairs[0]
    image = study.selected(first, study.counts.table3)[:1]
    networks = [network for network in study.networks if network.seed == first.members[0].seed]
    if not len(image) or _drawn(study.folder.path / "arrays" / "figure2.npz") == [each.name for each in networks]:
        return
    p_y, rcd, images = [], [], []
    for network in networks:
        noisy = [study.measure(network, GaussianNoise(sigma), image) for sigma in SIGMAS]
        p_y.append([each.p_y[0] for each in noisy])
        rcd.append([noisy[0].rc[0] - each.rc[0] for each in noisy])
    for x, y, places, _ in study.batches(image):
        for sigma in SIGMAS:
            attacked = GaussianNoise(sigma)(networks[0].model, x[:1], y[:1], index=places[:1], seed=study.seed)
            images.append(attacked[0].cpu().numpy())
    arrays = {"sigma": SIGMAS, "images": images, "models": [each.name for each in networks], "p_y": p_y, "rcd": rcd}
    label = study.data.classes[int(study.data.test.labels[image[0]])]
    study.folder.save_arrays(
        "arrays/figure2", {name: np.asarray(each) for name, each in arrays.items()} | {"label": np.array(label)}
    )


def _drawn(path: Path) -> list[str]:
    """The networks that the file is about; another command may have added some since."""
    if not path.exists():
        return []
    with np.load(path, allow_pickle=False) as arrays:
        return [str(name) for name in arrays["models"]]
