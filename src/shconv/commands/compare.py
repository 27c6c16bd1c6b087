"""shconv compare: networks, runs and audits on the same images, in one table and on one page."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from shconv.attacks import Attack
from shconv.commands.checkpoints import is_checkpoint
from shconv.commands.networks import NetworkOptions, networks_and_data
from shconv.commands.own_objects import named
from shconv.commands.parser import HIDDEN, POSITIONAL
from shconv.commands.rivals import RivalOptions
from shconv.commands.rivals import run as run_rivals
from shconv.commands.running import asked_of, describe, others_than, run_folder, study_of
from shconv.comparing import common_places, default_attacks, is_run
from shconv.errors import InputError
from shconv.experiments.network import Pair
from shconv.experiments.own_attacks import run_own, settle_attacks
from shconv.experiments.progress import ExperimentProgress
from shconv.experiments.run_folder import RunFolder
from shconv.experiments.study import Counts
from shconv.folders import COMPARISON, RUN, check_out, what_is_at
from shconv.processes import Processes
from shconv.results.comparison import Comparison
from shconv.terminal import console


@dataclass(frozen=True, kw_only=True)
class Compare(NetworkOptions, RivalOptions):
    """Compare networks on the same images: clean, under each attack, in the worst case, in one table and page.

    Folders of reproduce, evaluate and audit are read. Checkpoints and networks of --model are attacked first, on
    the images of those runs, or else on --images of --data. --attack chooses the attacks; by default FGSM and PGD with
    50 steps, both untargeted, within --eps (8/255). The table is sorted by worst case.

    With --defences it trains the networks first: without a defence, with other layers and with every defence. The
    table then shows their cost too: shconv compare --defences all --networks plain10 --data demo
    """

    what: Annotated[tuple[Path, ...], POSITIONAL] = ()
    """Folders of runs and audits, checkpoints, and your own networks as module:function; NAME=PATH gives a network
    another name."""
    attack: tuple[str, ...] = ()
    """Attacks for checkpoints and --model, by default FGSM and PGD-50: names such as fgsm, pgd or square, or your own
    as module:object or NAME=module:object."""
    eps: str | None = None
    """Budget of the attacks given by name; by default 8/255 without --attack and with --defences, else each attack's
    own."""
    images: int | None = None
    """Images to attack, drawn at random; by default those of the runs, else all. With --defences 200."""
    out: Path | None = None
    """Folder of the table and page; by default runs/comparison, or with --defences runs/defences-on- and the data. A
    run with other options gets a new number there."""
    table1_images: Annotated[int, HIDDEN] = 2_000
    table2_images: Annotated[int, HIDDEN] = 250
    table3_images: Annotated[int, HIDDEN] = 8
    full: Annotated[bool, HIDDEN] = False
    baseline: str | None = None
    """Name of the network in the table that the others are tested against, image by image."""

    @property
    def folder(self) -> Path:
        return self.out or Path("runs") / (f"defences-on-{self.data_name}" if self.defences else "comparison")

    @property
    def least_classes(self) -> int:
        return 2

    def named_attacks(self) -> dict[str, Attack]:
        return super().named_attacks() or default_attacks("8/255" if self.eps is None else self.eps)

    def run(self) -> None:
        self.check()
        check_out(self.folder, RUN, COMPARISON)
        if self.defences:
            if self.what or self.model or self.attack or self.baseline is not None:
                raise InputError("--defences trains its own networks: give no folders, --model, --attack or --baseline")
            run_rivals(self, self, self.folder, self.images, self.eps)
            return
        self.check_alone()
        if len(self.what) + len(self.model) < 1:
            raise InputError("compare wants folders of runs or checkpoints; `shconv compare --help` says what they are")
        runs = [path for path in self.what if is_run(path)]
        checkpoints = [path for path in self.what if not is_run(path)]
        self._check_given(runs, checkpoints)
        progress = ExperimentProgress()
        place = self.folder
        if checkpoints or self.model:
            place = self._evaluated(runs, checkpoints, progress)
        comparison = Comparison.of([*runs, *([place] if checkpoints or self.model else [])], self.baseline)
        page = comparison.save(place)
        comparison.print(console())
        progress.say(f"The comparison: {page}")

    def _check_given(self, runs: list[Path], checkpoints: list[Path]) -> None:
        """Raises InputError for one network, and for options that nothing here uses, before anything is attacked."""
        for path in checkpoints:
            if not is_checkpoint(rest := Path(named(str(path))[1])):
                raise InputError(f"{rest} {what_is_at(rest)}; want folders of runs or audits, and checkpoints")
        fresh = len(checkpoints) + len(self.model)
        if not runs and fresh < 2:
            raise InputError(f"compare: got {fresh} network; want at least two")
        used = {"attack": (), "eps": None, "images": None, "data": "demo"}
        given = [f"--{name}" for name, usual in used.items() if getattr(self, name) != usual]
        if given and not fresh:
            raise InputError(f"{given[0]} is for checkpoints and --model; the rows of a run's folder are there already")

    def _evaluated(self, runs: list[Path], checkpoints: list[Path], progress: ExperimentProgress) -> Path:
        """The run folder of the networks that have to be attacked first."""
        processes = Processes(device=Processes.found(device=self.device).device)
        attacks = self.named_attacks()
        networks, data = networks_and_data(self, checkpoints, processes, progress)
        chosen = common_places(runs) if self.images is None else None
        if chosen is not None and chosen[-1] >= len(data.test):
            raise InputError(f"{runs[0]} is about {chosen[-1] + 1} images or more, {data.name} has {len(data.test)}")
        asked = asked_of("compare", self)
        is_other = others_than(networks, attacks, data)
        place = run_folder(self.folder, self.out, asked, processes, progress, is_other)
        with RunFolder.opened(place) as folder:
            settle_attacks(folder, attacks)
            describe(folder, asked, data, processes)
            n = self.images or len(data.test)
            places = None if chosen is None else np.asarray(chosen, np.int64)
            counts = Counts(n, n, n, self.min_confidence)
            workers = self.readers(data, self.batch_size, progress.say)
            how: dict[str, Any] = {"workers": workers, "processes": processes, "chosen": places}
            study = study_of(folder, data, [Pair(tuple(networks))], counts, self, progress, **how)
            run_own(study, attacks, ("both",), most=self.images)
        return place
