"""shconv evaluate: the paper's tables for checkpoints that are there."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from shconv.commands.options import TableOptions, best_device, plain
from shconv.commands.running import TABLES, conclude, describe, run_experiments
from shconv.data import ImageData
from shconv.errors import InputError
from shconv.experiments.progress import ExperimentProgress
from shconv.experiments.run_folder import RunFolder
from shconv.experiments.study import Network, Pair
from shconv.training import load_checkpoint


@dataclass(frozen=True, kw_only=True)
class Evaluate(TableOptions):
    """Attack a trained network, best beside its twin, and write the tables, figures and page.

    With a twin the images of Tables 2 to 4 are those that both classify correctly with confidence above 0.9, as in the
    paper; without one, those that the network alone does.
    """

    checkpoint: Annotated[Path, tyro.conf.Positional]
    """A checkpoint folder, or its model.safetensors."""
    twin: Path | None = None
    """The checkpoint of the vanilla twin (or of the SHC network, where the first is the vanilla one)."""
    tables: tuple[int, ...] = (1, 2, 3, 4)
    """Which tables to run."""

    def run(self) -> None:
        unknown = [table for table in self.tables if table not in TABLES]
        if unknown:
            raise InputError(f"there is no table {unknown[0]}; choose from {', '.join(map(str, TABLES))}")
        progress = ExperimentProgress()
        data = self.load(want_train=False)
        paths = [path for path in (self.checkpoint, self.twin) if path is not None]
        networks = [_network(path, data) for path in paths]
        networks.sort(key=lambda network: network.is_shc)
        if len({network.key for network in networks}) < len(networks):
            raise InputError(
                f"{self.checkpoint} and {self.twin} are both {networks[0].key}; wanted a network and its twin"
            )
        with RunFolder.opened(self.folder) as folder:
            describe(folder, {"command": "evaluate", **plain(self)}, data)
            run_experiments(folder, data, [Pair(tuple(networks))], self, progress, self.tables)
            conclude(folder, progress)


def _network(path: Path, data: ImageData) -> Network:
    model, config, info = load_checkpoint(path)
    if config.num_classes != len(data.classes):
        raise InputError(f"{path} has {config.num_classes} classes, {data.name} has {len(data.classes)}")
    return Network(config.name, int(info.get("seed", 0)), model.to(best_device()))
