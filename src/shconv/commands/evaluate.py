"""shconv evaluate: the paper's tables, or any attacks, for checkpoints and networks that are there."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from shconv.attacks import Attack, create_attack
from shconv.commands.checkpoints import as_file, folder_of
from shconv.commands.networks import NetworkOptions, networks_and_data
from shconv.commands.options import PaperOptions
from shconv.commands.own_objects import named
from shconv.commands.parser import POSITIONAL
from shconv.commands.running import asked_of, conclude, describe, others_than, run_experiments, run_folder, study_of
from shconv.errors import InputError, near
from shconv.experiments.network import ALL_ROUTES, Network, Pair
from shconv.experiments.own_attacks import run_own, settle_attacks
from shconv.experiments.paper import TABLES
from shconv.experiments.progress import ExperimentProgress
from shconv.experiments.run_folder import RunFolder
from shconv.experiments.study import Counts
from shconv.folders import RUN, check_out
from shconv.processes import Processes
from shconv.results import Results
from shconv.results.robustbench import STANDARD, save_standard
from shconv.terminal import console


@dataclass(frozen=True, kw_only=True)
class Evaluate(PaperOptions, NetworkOptions):
    """Attack trained networks, print tables, and write the outcome of every image.

    Without --attack it makes the paper's tables, figures and a page, best for a network and its --twin. The images
    of Tables 2 to 4 are those that both classify correctly with confidence above --min-confidence (0.9 in the
    paper); without a twin, those that the network classifies so.

    With --attack it runs the same attacks on the same images for every network:
    shconv evaluate runs/a runs/b --attack fgsm pgd mine=my_file:my_attack

    Several processes can share the images; the results are the same:
    torchrun --nproc-per-node 2 -m shconv evaluate ...
    """

    checkpoint: Annotated[tuple[Path, ...], POSITIONAL] = ()
    """Checkpoint folders, their model.safetensors, or your own networks as module:function: the function returns a
    torch.nn.Module from images in [0, 1] to logits. NAME=PATH gives one another name in the tables."""
    twin: Path | None = None
    """The checkpoint of the vanilla twin, or of the SHC network if the first is the vanilla one."""
    tables: tuple[int, ...] = (1, 2, 3, 4)
    """Which tables to run: Figure 2 comes with Table 1, Figure 3 with Table 3, Figure 4 with Table 4."""
    selection: Literal["random", "confident"] = "random"
    """Images for --attack: drawn at random, or those that all networks classify correctly with confidence above
    --min-confidence."""
    routes: tuple[str, ...] = ("both",)
    """Gradient routes for --attack through SHC networks: both, convolution, hypernetwork, strict."""
    standard: bool = False
    """Run AutoAttack's standard version within --eps, without a time limit. Gives the number that RobustBench
    prints, and a file in the form of its model_info."""
    norm: Literal["linf", "l2"] = "linf"
    """For --standard: linf (by default within 8/255) or l2 (0.5)."""
    keep: bool = False
    """Store the adversarial images of --attack too, as arrays and as PNG files."""

    @property
    def folder(self) -> Path:
        first = as_file(Path(named(str(([*self.checkpoint, *self.model] or [""])[0]))[1]))
        others = len(self.checkpoint) + len(self.model) - 1
        more = f"-and-{others}-more" if others else ""
        word = re.sub(r"[^\w.-]+", "-", first)
        return self.out or Path("runs") / f"{word}{more}-on-{self.data_name}"

    def check(self) -> None:
        super().check()
        if not self.checkpoint and not self.model:
            raise InputError("evaluate wants CHECKPOINT or --model; `shconv evaluate --help` says what they are")
        unknown = [table for table in self.tables if table not in TABLES]
        if unknown or not self.tables:
            raise InputError(f"there is no table {[*unknown, 'given'][0]}; choose from {', '.join(map(str, TABLES))}")
        if unknown_routes := [route for route in self.routes if route not in ALL_ROUTES]:
            hint = near(unknown_routes[0], ALL_ROUTES, listed=True)
            raise InputError(f"there is no route {unknown_routes[0]}; {hint}")
        if self.twin is not None and len(self.checkpoint) + len(self.model) > 1:
            raise InputError("--twin goes with one network; give several as CHECKPOINT ...")
        own = {folder_of(Path(named(str(each))[1])) for each in self.checkpoint}
        if self.twin is not None and folder_of(self.twin) in own:
            raise InputError("the twin is the network itself: wanted NAME and NAME_shc of the same seed")
        if self.norm != "linf" and not self.standard:
            raise InputError("--norm goes with --standard")
        if not self.attack and not self.standard:
            given = [f"--{name}" for name in ("images", "eps") if getattr(self, name) is not None]
            given += ["--keep"] if self.keep else []
            given += ["--selection"] if self.selection != "random" else []
            given += ["--routes"] if self.routes != ("both",) else []
            if given:
                raise InputError(f"{given[0]} goes with --attack; the paper's tables have options of their own")
        elif self.attacks != "paper":
            raise InputError(
                f"--attacks {self.attacks} adds to the paper's Table 2, which --attack and --standard replace"
            )

    @property
    def least_classes(self) -> int:
        return 2 if self.attack or self.standard else 3

    def named_attacks(self) -> dict[str, Attack]:
        found = super().named_attacks()
        if self.standard:
            if STANDARD in found:
                raise InputError(f"--attack {STANDARD} is what --standard runs; leave one of them out")
            preset = "autoattack" if self.norm == "linf" else "autoattack_l2"
            found[STANDARD] = create_attack(preset, **({} if self.eps is None else {"epsilon": self.eps}))
        return found

    def run(self) -> None:
        self.check()
        check_out(self.folder, RUN)
        processes = Processes.found(patient=True, device=self.device)
        progress = ExperimentProgress(processes.is_first)
        attacks = self.named_attacks()
        networks, data = networks_and_data(self, self._given(), processes, progress)
        if self.twin is not None:
            networks.sort(key=lambda network: network.is_shc)
            _check_pair(networks)
        asked = asked_of(f"evaluate{' --attack' if attacks else ''}", self)
        is_other = others_than(networks, attacks, data)
        place = run_folder(self.folder, self.out, asked, processes, progress, is_other)
        with RunFolder.opened(place, processes) as folder:
            settle_attacks(folder, attacks)  # before config.toml is written: it names what was run
            describe(folder, asked, data, processes)
            pairs = [Pair(tuple(networks))]
            workers = self.readers(data, self.batch_size, progress.say)
            how: dict[str, Any] = {"workers": workers, "processes": processes}
            if not attacks:
                run_experiments(folder, data, pairs, self, progress, self.tables, **how)
                conclude(folder, progress)
                return
            n = self.images or len(data.test)
            counts = Counts(n, n, n, self.min_confidence)
            study = study_of(folder, data, pairs, counts, self, progress, **how, keep=self.keep)
            run_own(study, attacks, self.routes, confident=self.selection == "confident", most=self.images)
            conclude_own(folder, progress, png=self.keep, standard=self.standard)

    def _given(self) -> list[Path]:
        return [*self.checkpoint, *([] if self.twin is None else [self.twin])]


def conclude_own(folder: RunFolder, progress: ExperimentProgress, *, png: bool = False, standard: bool = False) -> None:
    """Print the accuracies, and write rows.csv and outcomes.csv beside; with `standard` RobustBench's files."""
    if not folder.writes:
        return
    results = Results.load(folder.path)
    results.write_csv(folder.path, png=png)
    results.print(console())
    for said in save_standard(results, folder.path) if standard else ():
        print(said)
    progress.say(f"A line for each row and image: {folder.path / 'rows.csv'}, {folder.path / 'outcomes.csv'}")
    progress.say(f"A page of it: shconv report {folder.path}")


def _check_pair(networks: list[Network]) -> None:
    """Raises InputError unless the second network is the SHC twin of the first, trained with the same seed."""
    vanilla, shc = networks
    if vanilla.is_shc or (shc.name, shc.seed) != (f"{vanilla.name}_shc", vanilla.seed):
        raise InputError(f"{vanilla.key} and {shc.key} are no pair: wanted NAME and NAME_shc of the same seed")
