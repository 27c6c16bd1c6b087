"""What an audit's folder says of its networks, in the form in which runs are compared."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from shconv.attacks.budget import Budget
from shconv.errors import InputError
from shconv.experiments.run_folder import outcomes_in, read_facts
from shconv.report.folder.audits import read_audits
from shconv.report.folder.fields import measured
from shconv.results.compared import Compared, Worst


def audited(path: Path) -> Iterator[Compared]:
    """Each network of the audit that has a verdict: clean, and the worst case within each radius."""
    setting = read_facts(path / "audit.json")
    for audit in read_audits(path / "rows.jsonl")[0]:
        if audit.verdict is None:
            continue
        id = f"audit/{audit.model}/seed{audit.seed}/verdict"
        arrays, worst = outcomes_in(path, id), {}
        for threat, radius in (("linf", measured(setting, "eps")), ("l2", measured(setting, "eps_l2"))):
            case, name = audit.worst_cases.get(threat), f"standing_{threat}"
            if radius is not None and case is not None and case.accuracy is not None:
                if name not in arrays:
                    raise InputError(f"{path} is damaged: the outcomes of {id} have no {name}")
                attacks = dict.fromkeys(each.attack for each in audit.tried if each.threat == threat)
                budget = Budget("linf" if threat == "linf" else "l2", radius)
                worst[budget] = Worst(arrays["index"], np.asarray(arrays[name], bool), tuple(attacks), True)
        taken = [each.seconds for each in audit.tried]
        seconds = None if None in taken else sum(each or 0 for each in taken)
        clean = {"clean": (arrays["index"], arrays["correct"])}
        yield Compared(audit.model, audit.seed, str(path), clean, worst, seconds)
