"""shconv evaluate: the paper's tables for checkpoints that are there."""

from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Annotated, Any

from shconv.commands.config_file import plain
from shconv.commands.options import TableOptions
from shconv.commands.parser import POSITIONAL
from shconv.commands.prepared import prepared_as
from shconv.commands.running import TABLES, conclude, describe, load, run_experiments, run_folder
from shconv.data import ImageData
from shconv.errors import InputError
from shconv.experiments.network import Network, Pair
from shconv.experiments.progress import ExperimentProgress
from shconv.experiments.run_folder import RunFolder
from shconv.pretrained import Config, load_network
from shconv.processes import Processes


@dataclass(frozen=True, kw_only=True)
class Evaluate(TableOptions):
    """Attack a trained network, best beside its twin, and write the tables, figures and page.

    With a twin the images of Tables 2 to 4 are those that both classify correctly with confidence above
    --min-confidence (0.9 in the paper); without one, those that the network alone does. Several processes share the
    images and give the rows of one:
    torchrun --nproc-per-node 2 -m shconv evaluate ...
    """

    checkpoint: Annotated[Path, POSITIONAL]
    """A checkpoint folder, or its model.safetensors."""
    twin: Path | None = None
    """The checkpoint of the vanilla twin (or of the SHC network, where the first is the vanilla one)."""
    tables: tuple[int, ...] = (1, 2, 3, 4)
    """Which tables to run: Figure 2 comes with Table 1, Figure 3 with Table 3, Figure 4 with Table 4."""

    @property
    def folder(self) -> Path:
        place = self.checkpoint.parent if self.checkpoint.suffix == ".safetensors" else self.checkpoint
        return self.out or Path("runs") / f"{place.resolve().name}-on-{self.data_name}"

    def check(self) -> None:
        super().check()
        unknown = [table for table in self.tables if table not in TABLES]
        if unknown or not self.tables:
            raise InputError(f"there is no table {[*unknown, 'given'][0]}; choose from {', '.join(map(str, TABLES))}")

    def run(self) -> None:
        self.check()
        processes = Processes.found(patient=True, device=self.device)
        progress = ExperimentProgress(processes.is_first)
        paths = [path for path in (self.checkpoint, self.twin) if path is not None]
        checkpoints = [load_network(path) for path in paths]
        preparation = prepared_as(
            self, [(path, info) for path, (_, _, info) in zip(paths, checkpoints, strict=True)], progress.say
        )
        data = load(self, processes, progress, want_train=False, preparation=preparation)
        for path, (_, config, info) in zip(paths, checkpoints, strict=True):
            check_fits(path, config, info, data)
        networks = [
            Network(config.name, seed_of(path, info), model.to(processes.device))
            for path, (model, config, info) in zip(paths, checkpoints, strict=True)
        ]
        networks.sort(key=lambda network: network.is_shc)
        _check_pair(networks)
        asked: dict[str, Any] = {"command": "evaluate", **plain(self)}
        place = run_folder(self.folder, self.out, asked, processes, progress)
        with RunFolder.opened(place, processes) as folder:
            describe(folder, asked, data, processes)
            workers = self.readers(data, self.batch_size, progress.say)
            how: dict[str, Any] = {"workers": workers, "processes": processes}
            run_experiments(folder, data, [Pair(tuple(networks))], self, progress, self.tables, **how)
            conclude(folder, progress)


def check_fits(path: Path, config: Config, info: dict[str, Any], data: ImageData) -> None:
    """Raises InputError where a checkpoint is not for such images: other classes, or no colours."""
    if config.num_classes != len(data.classes):
        raise InputError(f"{path} has {config.num_classes} classes, {data.name} has {len(data.classes)}")
    if config.in_channels != 3:
        raise InputError(f"{path} takes images of {config.in_channels} channels; those of {data.name} have 3")
    about = info.get("data")
    trained_on = about.get("classes", data.classes) if isinstance(about, dict) else data.classes
    for number, (there, here) in enumerate(zip_longest(trained_on, data.classes)):
        if there != here:
            raise InputError(f"{path} calls class {number} {there!r}, {data.name} calls it {here!r}: wanted the same")


def seed_of(path: Path, info: dict[str, Any]) -> int:
    """Of a checkpoint's training. Raises InputError where its config.json, which may be anybody's, holds none."""
    seed = info.get("seed", 0)
    if type(seed) is not int or seed < 0:
        raise InputError(f"{path} has the seed {seed!r}; wanted an integer of at least 0")
    return seed


def _check_pair(networks: list[Network]) -> None:
    """Raises InputError unless the second network is the SHC twin of the first, trained with the same seed."""
    if len(networks) == 2:
        vanilla, shc = networks
        if vanilla.is_shc or (shc.name, shc.seed) != (f"{vanilla.name}_shc", vanilla.seed):
            raise InputError(f"{vanilla.key} and {shc.key} are no pair: wanted NAME and NAME_shc of the same seed")
