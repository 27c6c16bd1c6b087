"""The table's work in its order: prices, trainings, attacks, memory, audits. Each step keeps what it made, so that the
same call continues after a stop; each says how far it is. The audits come last and share the time that is left."""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from shconv import audit
from shconv.attacks import PAPER, Attack, DeepFool, GaussianNoise, create_attack
from shconv.attacks.gradient import GradientAttack
from shconv.audit.clock import minutes
from shconv.data import ImageData
from shconv.errors import InputError
from shconv.experiments import own_attacks
from shconv.experiments.network import Network, Pair
from shconv.experiments.progress import ExperimentProgress
from shconv.experiments.run_folder import RunFolder
from shconv.experiments.study import Study
from shconv.experiments.table3_locsearch import searches
from shconv.rivals import prices
from shconv.rivals.plan import PRICING, Clock, Plan
from shconv.rivals.which import Rival, settings_of
from shconv.terminal import progress_line
from shconv.training import ModelConfig, Recipe, train, with_epochs
from shconv.training.defences import Source

PLAN, PRICES, ROWS, CLOCK = "rivals-plan.json", "rivals-prices.json", "rivals.json", "rivals-clock.json"
NOISE, DEEPFOOL = "gaussian", "deepfool"
ATTACKS: dict[str, Attack] = {
    NOISE: GaussianNoise(sigma=0.1),
    **{name: attack for name, attack in PAPER.items() if isinstance(attack, GradientAttack)},
    DEEPFOOL: DeepFool(),
}
PAST_A_DETECTOR = {"undetected_pgd": create_attack("undetected_pgd")}


@dataclass(frozen=True)
class Asked:
    """What a table is made of. `config` builds a network of this data by its name; the budget is of all rows."""

    rivals: tuple[Rival, ...]
    seeds: tuple[int, ...]
    recipe: Recipe
    config: Callable[[str], ModelConfig]
    images: int
    eps: float | str
    budget: str
    how: Mapping[str, Any] = field(default_factory=dict)  # train's engine, workers and device

    @property
    def trainings(self) -> list[tuple[Rival, int]]:
        return [(rival, seed) for seed in self.seeds for rival in self.rivals]


def place_of(folder: Path, room: str, rival: Rival, seed: int) -> Path:
    return folder / room / f"{rival.name}-seed{seed}"


def priced(
    folder: RunFolder, asked: Asked, data: ImageData, device: torch.device, clock: Clock, progress: ExperimentProgress
) -> Plan:
    """The plan that is kept, or one made of prices measured now; rows without prices are measured first."""
    known = _kept(folder)
    trials = {
        rival.name: prices.Trial.of(
            rival, asked.config(rival.model), data.image_size, asked.recipe.batch_size, str(device)
        )
        for rival in asked.rivals
    }
    for vanilla in dict.fromkeys(rival.vanilla for rival in asked.rivals):
        own = {rival.name: trials[rival.name] for rival in asked.rivals if rival.vanilla == vanilla}
        new = {name: trial for name, trial in own.items() if name == vanilla or name not in known}
        if all(name in known for name in own):
            continue
        progress.say(f"Prices of {len(new)} rows: a training step and inference, each beside {vanilla}'s")
        found = prices.times(new, PRICING * max(clock.left(), 1.0))
        known |= {name: found[name] for name in new if name not in known}
        folder.save_json(PRICES, known)
    if (plan := Plan.read(folder.path / PLAN)) is not None:
        return plan
    steps = [float(known[rival.name]["step"] or 0) for rival, _ in asked.trainings]
    made = Plan.made(asked.budget, asked.recipe, len(data.train or ()), steps, clock.left())
    return made.save(folder.path / PLAN)


def trained(folder: Path, asked: Asked, plan: Plan, data: ImageData, progress: ExperimentProgress) -> list[Network]:
    """Every row's network of every seed, trained where it is not there yet, in eval mode on the CPU."""
    known = _kept(RunFolder(folder, writes=False))
    parts = [float(known[rival.name]["step"] or 0) for rival, _ in asked.trainings]
    recipe = with_epochs(asked.recipe, plan.epochs) if plan.epochs != asked.recipe.epochs else asked.recipe
    if data.train is not None and plan.train_images < len(data.train):
        kept = np.sort(np.random.default_rng(0).permutation(len(data.train))[: plan.train_images])
        data = replace(data, train=data.train.take(kept.tolist()))
    networks = []
    with _agenda(progress, "Training", parts) as begin:
        for rival, seed in asked.trainings:
            begin(f"{rival.name}, seed {seed}")
            networks.append(Network(rival.name, seed, _trained(folder, rival, seed, asked, recipe, data)))
    return networks


def _trained(folder: Path, rival: Rival, seed: int, asked: Asked, recipe: Recipe, data: ImageData) -> nn.Module:
    for source in rival.sources:
        _trained(folder, source, seed, asked, recipe, data)
    sources = [Source.load(place_of(folder, "models", source, seed)) for source in rival.sources]
    defence = settings_of(rival.defence, sources)
    place = place_of(folder, "models", rival, seed)
    return train(asked.config(rival.model), data, recipe, place, defence=defence, seed=seed, **asked.how).model


def attacked(study: Study, networks: Sequence[Network], asked: Asked, plan: Plan, clock: Clock) -> Iterator[Network]:
    """Each network, once it has met the paper's attacks and DeepFool on all images of the study, and LocSearchAdv on
    the first of a seeded shuffle."""
    if plan.searched is None:
        slowest = max(float(each["inference"] or 0) for each in _kept(study.folder).values()) / asked.recipe.batch_size
        plan = plan.with_searches(asked.budget, asked.images, slowest, len(networks), clock.left())
        plan.save(study.folder.path / PLAN)
        said = f"takes {plan.searched} of {asked.images} images" if plan.searched else "is left out: there is no time"
        study.progress.say(f"LocSearchAdv {said}")
    found = searches(study.data.image_size, study.data.is_demo)
    search = {name: found[name] for name in ("locsearch", "locsearch_cyclic")}
    own_attacks.settle_attacks(study.folder, {**ATTACKS, **PAST_A_DETECTOR, **search})
    with _agenda(study.progress, "Attacks on", [1.0] * len(networks)) as begin:
        for network in networks:
            begin(f"{network.name}, seed {network.seed}")
            own = replace(study, pairs=(Pair((network,)),))
            index = own.clean(network).index
            few = np.sort(np.random.default_rng(study.seed).permutation(index)[: plan.searched])
            for attack_set, places in ((_attacks(network), index), (search if len(few) else {}, few)):
                for _ in own_attacks.rows(own, attack_set, places):
                    pass
            clock.left()
            yield network


def audited(study: Study, networks: Sequence[Network], asked: Asked, plan: Plan, clock: Clock) -> Iterator[Network]:
    """Each network, once it is audited. Every audit has an equal part of the time that is left before the first."""
    folder = study.folder.path
    plan = Plan.read(folder / PLAN) or plan
    if plan.audit_budget is None:
        plan = plan.with_audits(asked.budget, len(networks), clock.left()).save(folder / PLAN)
        study.progress.say(f"An audit takes {plan.audit_budget}")
    known = {(network.name, network.seed): network for network in networks}
    with _agenda(study.progress, "Audit of", [1.0] * len(networks)) as begin:
        for (rival, seed), network in zip(asked.trainings, networks, strict=True):
            begin(f"{network.name}, seed {seed}")
            first = known[rival.vanilla, seed]
            sources = {} if first is network else {rival.vanilla: first.model}
            _audited(place_of(folder, "audits", rival, seed), network, sources, asked, plan, study)
            clock.left()
            yield network


def _attacks(network: Network) -> dict[str, Attack]:
    return ATTACKS | (PAST_A_DETECTOR if hasattr(network.model, "joint") else {})


def _audited(
    place: Path, network: Network, sources: Mapping[str, nn.Module], asked: Asked, plan: Plan, study: Study
) -> None:
    """An audit on the images of the study; where the network is right on none there is none, and that is said."""
    if any(row.get("kind") == "verdict" for row in RunFolder(place, writes=False).rows.values()):
        return
    title, began = f"audit of {network.key}", time.monotonic()
    with study.progress.alive(lambda: progress_line(title, 0, None, time.monotonic() - began)):
        try:
            audit.run(
                network.model, study.data, asked.eps, sources=sources, budget=str(plan.audit_budget),
                images=asked.images, folder=place, seed=study.seed, min_confidence=study.counts.min_confidence,
                batch_size=study.batch_size, name=network.name, training_seed=network.seed, progress=False,
            )  # fmt: skip
        except InputError as error:
            study.progress.say(f"no audit of {network.key}: {error}")


def remembered(
    folder: RunFolder, asked: Asked, data: ImageData, device: torch.device, progress: ExperimentProgress
) -> None:
    """The peak memory of every row's training step, measured once."""
    known = _kept(folder)
    for vanilla in dict.fromkeys(rival.vanilla for rival in asked.rivals):
        own = [rival for rival in asked.rivals if rival.vanilla == vanilla]
        if all("memory_over" in known[rival.name] for rival in own):
            continue
        progress.say(f"Memory of a training step, for {len(own)} rows")
        size, batch = data.image_size, asked.recipe.batch_size
        trials = {r.name: prices.Trial.of(r, asked.config(r.model), size, batch, str(device)) for r in own}
        known |= prices.memories(trials, known)
        folder.save_json(PRICES, known)


def settle_rows(folder: RunFolder, asked: Asked) -> None:
    """Add the rows to those that the folder's table has."""
    stored = _json(folder.path / ROWS) or {}
    folder.save_json(ROWS, {**stored, **{rival.name: asdict(rival) for rival in asked.rivals}})


def _kept(folder: RunFolder) -> prices.Prices:
    return dict(_json(folder.path / PRICES) or {})


def _json(path: Path) -> Any:
    return json.loads(path.read_bytes()) if path.exists() else None


@contextmanager
def _agenda(progress: ExperimentProgress, title: str, parts: Sequence[float]) -> Iterator[Callable[[str], None]]:
    """Yield what to call before each part: it says which of how many begins, and about how long the rest takes.

    parts: how long each takes beside the others.
    """
    began, place = time.monotonic(), 0

    def begin(what: str) -> None:
        nonlocal place
        spent, done = time.monotonic() - began, sum(parts[:place])
        left = minutes(spent / done * sum(parts[place:])) if done and spent > 1 else ""
        progress.say(f"{title} {what} ({place + 1} of {len(parts)}{f', about {left} left' if left else ''})")
        place += 1

    yield begin
