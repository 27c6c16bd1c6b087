"""Beside Table 2: the attacks of others that the paper names, and stronger ones, on the same pair-selected images.
As each is published, with the gradient of both routes."""

from collections.abc import Iterator, Mapping
from importlib.util import find_spec

from shconv.attacks import RIVALS, STRONG, VARIANTS, Attack, HardLabel, LocSearchAdv, Standard, Undetected
from shconv.experiments.network import Network
from shconv.experiments.run_folder import Row
from shconv.experiments.study import Study

PACKAGES = {HardLabel: "foolbox", Standard: "pyautoattack"}  # without which an attack is not there
LONG = ("boundary", "hop_skip_jump", "autoattack", "autoattack_l2")  # at the end


def others() -> dict[str, Attack]:
    """Every attack by name that Tables 1 to 4 do not take, those that take longest at the end."""
    known = {**VARIANTS, **RIVALS, **STRONG}
    known = {name: attack for name, attack in known.items() if not isinstance(attack, LocSearchAdv)}
    return {name: known[name] for name in (*(name for name in known if name not in LONG), *LONG)}


def missing(attacks: Mapping[str, Attack]) -> dict[str, str]:
    """Of these attacks, those that cannot be run here, and the package that each would need."""
    needed = {name: PACKAGES[type(attack)] for name, attack in attacks.items() if type(attack) in PACKAGES}
    return {name: package for name, package in needed.items() if find_spec(package) is None}


def rows(study: Study, attacks: Mapping[str, Attack]) -> Iterator[Row]:
    for network, index in study.on_selected(study.counts.table2):
        for name, attack in attacks.items():
            if _concerns(attack, network):
                yield study.row("table2", network, name, attack, index, "both", size=study.batch_size)


def _concerns(attack: Attack, network: Network) -> bool:
    """Past a detector there is no way where there is none."""
    return hasattr(network.model, "joint") or not isinstance(attack, Undetected)
