"""Table 2: FGSM, FGSM-Heavy, I-FGSM and RAND+FGSM on pair-selected images.
Both objectives and every gradient route are attacked, so that the worst case of an image can be told from the rows."""

from collections.abc import Iterator
from dataclasses import replace
from typing import get_args

from shconv.attacks import PAPER
from shconv.attacks.gradient import GradientAttack
from shconv.attacks.objective import Objective
from shconv.experiments.network import routes_of
from shconv.experiments.run_folder import Row
from shconv.experiments.study import Study

ATTACKS = {name: attack for name, attack in PAPER.items() if isinstance(attack, GradientAttack)}


def rows(study: Study) -> Iterator[Row]:
    for network, index in study.on_selected(study.counts.table2):
        for name, attack in ATTACKS.items():
            for objective in get_args(Objective):
                for route in routes_of(network):
                    yield study.row("table2", network, name, replace(attack, objective=objective), index, route)
