"""Check 11: does the "robustness" of an SHC network need its statistics?

With the same weights, the filter maps are made to ignore the image: M held at its mean over the images, or taken from
another image. One step and PGD attack each such network. A defence by statistics should lose what it gained, more
images right than its vanilla twin. Where as many stay right without statistics, whatever protects them is not what the
network is said to be defended by. Without a twin no gain is known, and the numbers are shown alone. The same holds for
a vanilla network with as many parameters, if one is given. Maps that see only the mean or only the standard deviation
(the other held at its mean over the images) are shown beside them. Clean accuracy is stated: a network that the
ablation ruins proves nothing.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from shconv.attacks import Attack
from shconv.attacks.cost import Cost
from shconv.audit.audit import Audit
from shconv.audit.checks.ablated import Means, layer_means, only, shuffled_maps
from shconv.audit.checks.comparison import one_step, pgd
from shconv.audit.checks.side import Batch, batches, cost_of, made_by, right, size
from shconv.audit.findings import Finding
from shconv.audit.subject import Subject
from shconv.audit.words import percent
from shconv.paired import Paired
from shconv.routes import constant_maps, shc_layers

NUMBER = 11
NAME = "ablations"
SOURCE = "Carlini et al. 2019; Tramer et al. 2020 (find the part that defends)"
WHOLE, TWIN = "whole", "twin"
SHARED = ("mean only", "std only")  # these keep some of the statistics: shown, no alarm
SAME = 0.05
RUINED = 0.5  # of the images still right when clean
MATCHED = 0.03  # of the parameters

Ablation = tuple[nn.Module, AbstractContextManager[None]]  # a network, and inside of what
Rights = NDArray[np.bool_]  # (1 + attacks, n), right when clean and under each attack


def applies(audit: Audit) -> str:
    return "" if audit.subject.is_shc else "it has no SHC layer"


def cost(audit: Audit) -> Cost:
    n = size(audit, audit.effort.ablation_images)
    once = sum((cost_of(attack, n) + Cost(n) for attack in _attacks(audit).values()), Cost(2 * n))
    return once.times(5 + (audit.twin is not None) + len(_matched(audit))) + Cost(n)


def run(audit: Audit) -> Finding:
    on = audit.sample(audit.effort.ablation_images)
    means = layer_means(audit.subject.network, batches(audit, on))
    parts: dict[str, list[Rights]] = {}
    for batch in batches(audit, on):
        for name, (network, inside) in _ablations(audit, batch, means):
            with inside:
                made = [made_by(audit, attack, network, batch) for attack in _attacks(audit).values()]
                rights = [right(network, x, batch.y) for x in (batch.x, *made)]
            parts.setdefault(name, []).append(np.array(rights))
    flags = {name: np.concatenate(each, axis=1) for name, each in parts.items()}
    rows = {name: _row(audit, flags, each) for name, each in flags.items()}
    same = [
        f"{name}, {attack}"
        for name, row in rows.items()
        for attack in _attacks(audit)
        if name not in (WHOLE, TWIN, *SHARED) and row[attack]["same"]
    ]
    ruined = [name for name, row in rows.items() if row["clean"] < RUINED]
    gains = [attack for place, attack in enumerate(_attacks(audit), start=1) if _gains(flags, place)]
    verdict = text(gains, same) if TWIN in flags else "No twin was given, so no gain is known that could be explained"
    n, shown = flags[WHOLE].shape[1], "; ".join(_words(name, row) for name, row in rows.items())
    note = f" No evidence, because ruined by the ablation: {', '.join(ruined)}." if ruined else ""
    said = f"{verdict}. Accuracy on {n} images that the whole network classifies correctly. {shown}.{note}"
    numbers = {"images": n, "gains": gains, "same": same, "ruined": ruined, **rows}
    return Finding(bool(same) if TWIN in flags else None, said, numbers)


def _words(name: str, row: Mapping[str, Any]) -> str:
    attacks = (f"{attack} {percent(beside['accuracy'])}" for attack, beside in row.items() if attack != "clean")
    return f"{name}: clean {percent(row['clean'])}, {', '.join(attacks)}"


def text(gains: Sequence[str], same: Sequence[str]) -> str:
    """gains: attacks under which the whole network is significantly above its twin; same: of the ablations without
    statistics those that keep it."""
    if same:
        return f"The gain stays without statistics ({'; '.join(same)})"
    if not gains:
        return "No gain to explain: the network is not significantly more accurate than its twin under any attack"
    return f"No ablation without statistics keeps the gain over its twin under {' and '.join(gains)}"


def _attacks(audit: Audit) -> dict[str, Attack]:
    return {"one step": one_step(audit), f"PGD-{audit.effort.usual_steps}": pgd(audit)}


def _ablations(audit: Audit, batch: Batch, means: dict[str, Means]) -> Iterator[tuple[str, Ablation]]:
    model, network = audit.subject.model, audit.subject.network
    yield WHOLE, (model, nullcontext())
    if audit.twin is not None:
        yield TWIN, (audit.twin.model, nullcontext())
    yield "M constant", (model, constant_maps(network, {name: each.map for name, each in means.items()}))
    if all(getattr(layer.hyper, "statistics", ()) == ("mean", "std") for layer in shc_layers(network).values()):
        for name in SHARED:
            yield name, (model, only(network, name.split()[0], means))
    if len(batch.x) > 1:
        yield "M shuffled", (model, shuffled_maps(network, batch.x))
    for name, other in _matched(audit).items():
        yield f"{name}, vanilla with as many parameters", (other.model, nullcontext())


def _matched(audit: Audit) -> dict[str, Subject]:
    """Of the networks given, the vanilla ones of this one's size."""
    own = audit.subject.parameters
    vanilla = {name: each for name, each in audit.sources.items() if not each.is_shc}
    return {name: each for name, each in vanilla.items() if abs(each.parameters - own) <= MATCHED * own}


def _row(audit: Audit, flags: Mapping[str, Rights], own: Rights) -> dict[str, Any]:
    """A network beside the whole one."""
    whole = flags[WHOLE][:, : own.shape[1]]  # a last image alone has no neighbour's maps to take
    row: dict[str, Any] = {"clean": float(own[0].mean())}
    for place, attack in enumerate(_attacks(audit), start=1):
        paired = _beside(whole, own, place)
        kept = paired.difference <= SAME and paired.interval[0] <= 0 and row["clean"] >= RUINED
        row[attack] = {
            "accuracy": float(own[place].mean()),
            "n": paired.n,
            "lost": paired.difference,
            "interval": paired.interval,
            "same": kept and _gains(flags, place),
        }
    return row


def _gains(flags: Mapping[str, Rights], place: int) -> bool:
    """Whether under an attack the whole network keeps more images right than its twin, where there is one."""
    return TWIN in flags and _beside(flags[WHOLE], flags[TWIN], place).interval[0] > 0


def _beside(whole: Rights, other: Rights, place: int) -> Paired:
    """Who is right under an attack, on the images that both classify correctly."""
    both = whole[0] & other[0]
    return Paired.of(whole[place][both], other[place][both])
