"""Studies of hand-made networks on coloured images."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from shconv.experiments.network import Network, Pair
from shconv.experiments.progress import ExperimentProgress
from shconv.experiments.run_folder import RunFolder
from shconv.experiments.study import Counts, Study
from shconv.routes import shc_layers
from toys import colour_data, colour_networks

MakeStudy = Callable[..., Study]


@pytest.fixture
def make_study(tmp_path: Path) -> MakeStudy:
    """A study of plain10 and plain10_shc, or of one network under the one name that fits it."""

    def make(
        networks: tuple[nn.Module, ...] | None = None,
        data: Any = None,
        counts: Counts = Counts(),  # noqa: B008 (frozen)
        batch_size: int = 8,
        folder: str = "run",
        seed: int = 0,
    ) -> Study:
        networks = colour_networks() if networks is None else networks
        pair = Pair(tuple(Network("plain10_shc" if shc_layers(each) else "plain10", 0, each) for each in networks))
        (tmp_path / folder).mkdir(exist_ok=True)
        place = RunFolder(tmp_path / folder)
        data = colour_data() if data is None else data
        return Study(place, data, (pair,), counts, batch_size, torch.device("cpu"), ExperimentProgress(False), seed)

    return make
