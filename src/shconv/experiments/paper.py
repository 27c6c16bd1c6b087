"""The paper's experiments in their order: which make each table, and which figure comes with it."""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from types import MappingProxyType, ModuleType

from shconv.attacks import Attack
from shconv.attacks.presets import PAPER
from shconv.experiments import (
    figure2_noise,
    figure3_traces,
    figure4_gradients,
    quasi_boundary,
    table1_gaussian,
    table2_gradient,
    table2_others,
    table3_locsearch,
    table4_routes,
)
from shconv.experiments.own_attacks import tell
from shconv.experiments.study import Study

TABLES: dict[int, tuple[ModuleType, ...]] = {
    1: (table1_gaussian,),
    2: (table2_gradient,),
    3: (table3_locsearch, quasi_boundary),
    4: (table4_routes,),
}
STAGES = {  # a plan's names for them
    table1_gaussian: "Table 1",
    table2_gradient: "Table 2",
    table3_locsearch: "Table 3",
    quasi_boundary: "quasi boundary",
    table4_routes: "Table 4",
}
OTHERS = "Table 2, other attacks"
FIGURES: dict[int, ModuleType] = {1: figure2_noise, 3: figure3_traces, 4: figure4_gradients}  # beside their tables


def run_paper(
    study: Study,
    tables: Iterable[int] = tuple(TABLES),
    announced: Mapping[str, str] = MappingProxyType({}),
    others: Mapping[str, Attack] = MappingProxyType({}),
) -> None:
    """Every table asked for and its figure, the quasi decision boundary with Table 3; rows appended as they come.

    announced: by a stage's name in STAGES, what to say before it. others: further attacks on the images of Table 2, at
    the end, as some take long.
    """
    asked = sorted(set(tables))
    tell(study, {} if asked == [1] else PAPER)
    for experiment in (module for table in asked for module in TABLES[table]):
        if said := announced.get(STAGES[experiment]):
            study.progress.say(said)
        for _ in experiment.rows(study):
            pass
    if 2 in asked and others:
        if said := announced.get(OTHERS):
            study.progress.say(said)
        for _ in table2_others.rows(study, others):
            pass
    if study.folder.writes:
        for figure in (FIGURES[table] for table in asked if table in FIGURES):
            figure.save(study)
        with suppress(OSError):  # another command's partial outcomes stay for it
            (study.folder.path / "partial").rmdir()
