"""Table 4: RAND+FGSM with the gradient of both routes (SHC), the hypernetwork route (SHC-T) and the convolution route
(SHC-W); "strict" leaves only the paths through at least one filter map. The whole network judges every example."""

from collections.abc import Iterator
from dataclasses import replace
from typing import get_args

from shconv.attacks import RandFGSM
from shconv.attacks.objective import Objective
from shconv.experiments.network import WITH_STRICT
from shconv.experiments.run_folder import Row
from shconv.experiments.study import Study


def rows(study: Study) -> Iterator[Row]:
    for network, index in study.on_selected(study.counts.table2):
        for objective in get_args(Objective):
            for route in WITH_STRICT[network.is_shc]:
                attack = replace(RandFGSM(), objective=objective)
                yield study.row("table4", network, "rand_fgsm", attack, index, route, as_in="table2")
