"""What an audit's folder says of its networks, in the form in which runs are compared."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from shconv.attacks.budget import Budget
from shconv.experiments.run_folder import RunFolder
from shconv.results.compared import Compared, Worst


def audited(path: Path) -> Iterator[Compared]:
    """Each network of the audit that has a verdict: clean, and the worst case within each radius."""
    held = RunFolder(path, writes=False)
    file = path / "audit.json"
    setting = json.loads(file.read_bytes()) if file.is_file() else {}
    for row in held.rows.values():
        if row["experiment"] != "audit" or row.get("kind") != "verdict":
            continue
        arrays, index = held.outcomes(row["id"]), held.outcomes(row["id"])["index"]
        attacks = [
            each
            for each in held.rows.values()
            if each.get("kind") == "attack" and (each["model"], each["seed"]) == (row["model"], row["seed"])
        ]
        worst = {}
        for threat, radius in (("linf", setting.get("eps")), ("l2", setting.get("eps_l2"))):
            case = row["worst_case"].get(threat)
            if radius is not None and case is not None and case["accuracy"] is not None:
                standing = np.asarray(arrays[f"standing_{threat}"], bool)
                worst[Budget("linf" if threat == "linf" else "l2", float(radius))] = Worst(
                    index, standing, tuple(dict.fromkeys(e["attack"] for e in attacks if e["threat"] == threat)), True
                )
        seconds = sum(each["seconds"] for each in attacks)
        yield Compared(row["model"], row["seed"], str(path), {"clean": (index, arrays["correct"])}, worst, seconds)
