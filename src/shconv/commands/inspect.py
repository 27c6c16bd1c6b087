"""shconv inspect: what do the filter maps of a checkpoint do?"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from shconv import inspection, numbers
from shconv.commands.checkpoints import Checkpoint, as_file
from shconv.commands.options import DeviceOptions, check_least
from shconv.commands.own_data import OwnDataOptions
from shconv.commands.parser import POSITIONAL
from shconv.commands.prepared import prepared_as
from shconv.experiments.progress import ExperimentProgress
from shconv.folders import check_out
from shconv.inspection.gradients import check_has_maps
from shconv.processes import Processes


@dataclass(frozen=True, kw_only=True)
class Inspect(OwnDataOptions, DeviceOptions):
    """Look at the filter maps and gradient routes of a trained SHC network, layer by layer.

    It shows which maps matter and which are dead, how much of the gradient passes through them, and whether an
    attack along one route breaks more images than one along both. It takes about a minute and gives tables and a
    picture.
    """

    checkpoint: Annotated[Path, POSITIONAL]
    """A checkpoint folder, its model.safetensors, or your own network as module:function."""
    eps: str = "8/255"
    """L-infinity budget of every attack: 8/255 or 0.03."""
    images: int | None = None
    """Test images, drawn at random; by default as many as a minute allows, 20 to 200."""
    steps: int = 10
    """Steps of PGD."""
    batch_size: int = 100
    """Largest number of images in a batch."""
    attack_seed: int = 0
    """Seed of the attacks' random numbers and of the choice of images."""
    out: Path | None = None
    """Folder for tables, figure and inspection.json; by default below runs/. What is there is replaced."""

    def check(self) -> None:
        super().check()
        numbers.budget("eps", self.eps, above=True)
        check_least(self, images=2, steps=1, batch_size=1, attack_seed=0)

    @property
    def folder(self) -> Path:
        return self.out or Path("runs") / f"inspection-{as_file(self.checkpoint)}"

    def run(self) -> None:
        self.check()
        check_out(self.folder)
        progress = ExperimentProgress()
        network = Checkpoint.load(self.checkpoint)
        check_has_maps(network.model)
        data = self.load(progress, False, prepared_as(self, [(network.path, network.info)], progress.say))
        network.check_fits(data, progress.say, self.own_data)
        found = inspection.run(
            network.model.to(Processes.found(device=self.device).device),
            data,
            eps=self.eps,
            images=self.images,
            steps=self.steps,
            batch_size=self.batch_size,
            seed=self.attack_seed,
            name=network.name,
        )
        found.print()
        progress.say(f"Tables and picture: {found.save(self.folder)}")
