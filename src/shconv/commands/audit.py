"""shconv audit: is the robustness of a checkpoint real?"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from shconv import numbers, report
from shconv.audit.run import run
from shconv.audit.setting import budget_seconds
from shconv.commands.checkpoints import Checkpoint, as_file, folder_of
from shconv.commands.options import DeviceOptions, check_confidence, check_least
from shconv.commands.own_data import OwnDataOptions
from shconv.commands.parser import POSITIONAL
from shconv.commands.prepared import prepared_as
from shconv.commands.running import asked_of, describe, run_folder
from shconv.errors import InputError
from shconv.experiments.progress import ExperimentProgress
from shconv.experiments.run_folder import RunFolder, taken_back
from shconv.folders import RUN, check_out
from shconv.processes import Processes


@dataclass(frozen=True, kw_only=True)
class AuditCommand(OwnDataOptions, DeviceOptions):
    """Try to break a trained network with many attacks, report what was tried, and give a verdict.

    It runs twelve checks, cheap ones first, within the given time. It reports the worst case per image over all
    attacks, with its 95 % interval, also for a twin. No alarm is no evidence of robustness.
    """

    checkpoint: Annotated[Path, POSITIONAL]
    """A checkpoint folder, its model.safetensors, or your own network as module:function: the function returns a
    torch.nn.Module from images in [0, 1] to logits. --twin, --sources and --seeds take the same."""
    twin: Path | None = None
    """A checkpoint to compare with image by image: the vanilla network of an SHC one, or one without the defence."""
    sources: tuple[Path, ...] = ()
    """Further checkpoints. The audit tests whether examples made on them are stronger than examples made on the
    network."""
    seeds: tuple[Path, ...] = ()
    """Checkpoints of the same network from other training seeds, for mean and spread of the worst case."""
    eps: str = "8/255"
    """L-infinity radius around each image in [0, 1]: 8/255 or 0.03."""
    eps_l2: str | None = None
    """L2 radius. Default: 0.5 for eps 8/255 and images of 32 x 32 pixels, scaled for others."""
    images: int = 200
    """Test images, drawn at random."""
    budget: str = "5m"
    """Time for the whole audit: 90s, 5m, 1h, or full for no limit. It is divided among the checks."""
    batch_size: int = 100
    """Largest number of images in a batch."""
    min_confidence: float = 0.9
    """The worst case is also given for the images classified correctly with more than this probability. Lower it for
    calibrated and adversarially trained networks."""
    attack_seed: int = 0
    """Seed of the attacks' random numbers and of the choice of images."""
    out: Path | None = None
    """Run folder; by default below runs/. The same command continues a stopped run."""

    def check(self) -> None:
        super().check()
        budget_seconds(self.budget)
        if self.twin is not None and folder_of(self.twin) == folder_of(self.checkpoint):
            raise InputError("the twin is the network itself; wanted: another network")
        numbers.budget("eps", self.eps, above=True)
        if self.eps_l2 is not None:
            numbers.budget("eps_l2", self.eps_l2, "l2", above=True)
        check_least(self, images=1, batch_size=1, attack_seed=0)
        check_confidence(self.min_confidence)

    @property
    def folder(self) -> Path:
        return self.out or Path("runs") / f"audit-{as_file(self.checkpoint)}"

    def run(self) -> None:
        self.check()
        check_out(self.folder, RUN)
        processes = Processes(device=Processes.found(device=self.device).device)  # several would each do the whole
        progress = ExperimentProgress()
        given = [self.checkpoint, *([] if self.twin is None else [self.twin]), *self.seeds, *self.sources]
        networks = [*map(Checkpoint.load, given)]
        preparation = prepared_as(self, [(network.path, network.info) for network in networks], progress.say)
        data = self.load(progress, want_train=False, preparation=preparation)
        for network in networks:
            network.check_fits(data, progress.say, self.own_data)
            network.model.to(processes.device)
        first, *others = networks
        twin = others.pop(0) if self.twin is not None else None
        seeds, sources = others[: len(self.seeds)], others[len(self.seeds) :]
        _check_seeds(first, seeds)
        asked = asked_of("audit", self)
        place = run_folder(self.folder, self.out, asked, processes, progress)
        with taken_back(place):
            with RunFolder.opened(place) as folder:
                describe(folder, asked, data, processes)
            result = run(
                first.model,
                data,
                self.eps,
                None if twin is None else twin.model,
                sources={source.name_and_folder: source.model for source in sources},
                seeds={seed.seed: seed.model for seed in seeds},
                eps_l2=self.eps_l2,
                budget=self.budget,
                images=self.images,
                folder=place,
                seed=self.attack_seed,
                min_confidence=self.min_confidence,
                batch_size=self.batch_size,
                name=first.name,
                twin_name="twin" if twin is None else _apart(twin, first),
                training_seed=first.seed,
                twin_seed=0 if twin is None else twin.seed,
            )
        result.print()
        progress.say(f"The report: {report.write(place)}")


def _apart(twin: Checkpoint, first: Checkpoint) -> str:
    """The twin's name: with its folder's where network and twin have one name and seed, as with and without a
    defence."""
    return twin.name_and_folder if (twin.name, twin.seed) == (first.name, first.seed) else twin.name


def _check_seeds(first: Checkpoint, seeds: list[Checkpoint]) -> None:
    """Raises InputError unless the others are the same network from other seeds."""
    numbers = [first.seed]
    for other in seeds:
        if other.config != first.config:
            raise InputError(f"{other.path} is another network than {first.path}: --seeds wants the same")
        if other.seed in numbers:
            raise InputError(f"{other.path} is of training seed {other.seed}, as is another: --seeds wants others")
        numbers.append(other.seed)
