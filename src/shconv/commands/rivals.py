"""shconv compare --defences: the options of the table of every defence and relative, and what they start."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, Literal

from shconv import numbers
from shconv.audit.setting import budget_seconds
from shconv.commands.options import EngineOptions, TableOptions, check_least
from shconv.commands.reproduce import model_config, recipe_for
from shconv.commands.running import asked_of, describe, load, run_folder, study_of
from shconv.errors import InputError
from shconv.experiments.network import Pair
from shconv.experiments.progress import ExperimentProgress
from shconv.experiments.run_folder import RunFolder
from shconv.experiments.study import Counts
from shconv.models import all_models, vanilla_of
from shconv.processes import Processes
from shconv.rivals.page import save
from shconv.rivals.plan import Clock
from shconv.rivals.run import attacked, audited
from shconv.rivals.table import RivalTable
from shconv.rivals.training import priced, remembered, trained
from shconv.rivals.wanted import CLOCK, Wanted, settle_rows
from shconv.rivals.which import Rival, rivals
from shconv.terminal import console

IMAGES, EPS = 200, "8/255"  # unless asked otherwise


@dataclass(frozen=True, kw_only=True)
class RivalOptions(EngineOptions):
    """What --defences trains, and for how long."""

    defences: tuple[str, ...] = ()
    """Train and compare these instead: all, or names of defences (pgd), of layers (shc, matched, condconv), or both
    (shc+pgd), each beside the vanilla network, under the paper's attacks, DeepFool and an audit."""
    networks: tuple[str, ...] = ("plain10",)
    """--defences: vanilla networks: plain10, resnet18, resnet50."""
    seeds: tuple[int, ...] = (0,)
    """--defences: seeds of training; the table then has means."""
    budget: str = "30m"
    """--defences: time for everything, such as 30m or 4h: it sets epochs, audits and LocSearchAdv's images. full: the
    recipe's epochs and no limit."""
    width: int = 16
    """--defences: channels of the first stage; 64 in the paper."""
    stem: Literal["auto", "small", "imagenet"] = "auto"
    """--defences: auto is small (3x3, no pool) for images up to 64 px."""
    recipe: str = "short"
    """--defences: short, cifar, paper or he2016; the same for all networks."""
    epochs: int | None = None
    """--defences: number of epochs, instead of what the budget allows up to the recipe's."""

    def rows(self) -> tuple[Rival, ...]:
        """Raises InputError for options out of range."""
        for name in self.networks:
            if name not in all_models() or vanilla_of(name) != name:
                known = ", ".join(dict.fromkeys(map(vanilla_of, all_models())))
                raise InputError(f"unknown vanilla network {name!r}; choose from {known}")
        if not self.networks or not self.seeds or min(self.seeds) < 0 or len({*self.seeds}) < len(self.seeds):
            raise InputError(f"--defences wants networks, and different seeds of at least 0, got {list(self.seeds)}")
        check_least(self, width=1)
        budget_seconds(self.budget)
        recipe_for(self.recipe, self.epochs)
        self.engine()
        return rivals(self.networks, self.defences)

    def check_alone(self) -> None:
        """Raises InputError where an option of --defences is given without it."""
        own = set(vars(RivalOptions).get("__annotations__", ()))
        for field in fields(RivalOptions):
            if field.name in own and getattr(self, field.name) != field.default:
                raise InputError(f"--{field.name} goes with --defences")


def run(options: Any, table_options: TableOptions, usual: Path, images: int | None, eps: str | None) -> None:
    """Make the table: options are a command's RivalOptions, table_options the same as TableOptions."""
    rows, recipe = options.rows(), recipe_for(options.recipe, options.epochs)
    radius = numbers.budget("eps", EPS if eps is None else eps, above=True)
    processes = Processes(device=Processes.found(device=options.device).device)
    progress = ExperimentProgress()
    settings = asked_of("compare --defences", options)
    place = run_folder(usual, table_options.out, settings, processes, progress)
    clock = Clock(place / CLOCK, options.budget)
    data = load(table_options, processes, progress, want_train=True)
    workers = table_options.readers(data, recipe.batch_size, progress.say)
    config: Callable[[str], Any] = partial(_config, data, options.width, options.stem)
    wanted = min(IMAGES if images is None else images, len(data.test))
    how = {"engine": options.engine(), "workers": workers, "device": options.device}
    asked = Wanted(rows, tuple(options.seeds), recipe, config, wanted, radius, options.budget, how)
    with RunFolder.opened(place) as folder:
        describe(folder, settings, data, processes)
        plan = priced(folder, asked, data, processes, clock, progress)
        progress.say(plan.said(options.budget, len(asked.trainings), recipe, len(data.train or ())))
        networks = trained(place, asked, plan, data, processes, progress)
        clock.left()
        for network in networks:
            network.model.to(processes.device)
        settle_rows(folder, asked)
        counts = Counts(wanted, wanted, wanted, table_options.min_confidence)
        pairs = [Pair((network,)) for network in networks]
        study = study_of(folder, data, pairs, counts, table_options, progress, workers=workers, processes=processes)
        for _ in attacked(study, networks, asked, plan, clock):
            save(RivalTable.load(place), place)
        remembered(folder, asked, data, processes.device, progress)
        for _ in audited(study, networks, asked, plan, clock):
            save(RivalTable.load(place), place)
        table = RivalTable.load(place)
        page = save(table, place)
    table.print(console())
    progress.say(f"The table: {page}")


def _config(data: Any, width: int, stem: str, name: str) -> Any:
    return model_config(name, data, width, stem, "none")
