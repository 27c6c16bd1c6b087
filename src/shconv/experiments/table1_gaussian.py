"""Table 1: clean accuracy, and accuracy and RCD under truncated Gaussian noise, on all test images."""

from collections.abc import Iterator

from shconv.attacks import GaussianNoise
from shconv.experiments.run_folder import Row
from shconv.experiments.study import Study

SIGMAS = (0.1, 0.2, 0.4)


def rows(study: Study) -> Iterator[Row]:
    for network in study.networks:
        index = study.clean(network).index
        yield study.folder.rows[f"table1/{network.key}/clean"]
        for sigma in SIGMAS:
            yield study.row("table1", network, "gaussian", GaussianNoise(sigma), index)
