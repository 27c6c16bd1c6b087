"""Figure 2: one image under Gaussian noise of growing sigma, its confidence and RCD in every network."""

from pathlib import Path

import numpy as np

from shconv.attacks import GaussianNoise
from shconv.experiments.study import Study
from shconv.experiments.table3_locsearch import most_moved

SIGMAS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25)


def save(study: Study) -> None:
    """arrays/figure2.npz, for the networks of the first pair's seed and that pair's image that the search of Table 3
    moves most."""
    first = study.pairs[0]
    image = most_moved(study, first)
    networks = [network for network in study.networks if network.seed == first.members[0].seed]
    if not len(image) or _drawn(study.folder.path / "arrays" / "figure2.npz") == [each.name for each in networks]:
        return
    p_y, rcd, images = [], [], []
    for batch in study.batches(image, size=1):  # of which there is one
        for network in networks:
            noisy = [study.attacked(network, GaussianNoise(sigma), batch) for sigma in SIGMAS]
            p_y.append([columns["p_y"][0] for _, columns in noisy])
            rcd.append([noisy[0][1]["rc"][0] - columns["rc"][0] for _, columns in noisy])
            images = [adversarial[0].cpu().numpy() for adversarial, _ in noisy]  # the same for every network
    label = study.data.classes[int(study.data.test.labels[image[0]])]
    about = {"sigma": SIGMAS, "images": images, "models": [each.name for each in networks], "label": label}
    study.folder.save_arrays("arrays/figure2", {**about, "p_y": p_y, "rcd": rcd})


def _drawn(path: Path) -> list[str]:
    """The networks that the file is about; another command may have added some since."""
    if not path.exists():
        return []
    with np.load(path, allow_pickle=False) as arrays:
        return [str(name) for name in arrays["models"]]
