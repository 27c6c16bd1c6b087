"""The table's work on trained networks: attacks, then audits, which share the time that is left. Each step keeps what
it made, so that the same call continues after a stop; each says how far it is."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
from torch import nn

from shconv import audit
from shconv.attacks import PAPER, Attack, DeepFool, GaussianNoise, create_attack
from shconv.attacks.gradient import GradientAttack
from shconv.audit.clock import minutes
from shconv.errors import InputError
from shconv.experiments import own_attacks
from shconv.experiments.network import Network, Pair
from shconv.experiments.progress import ExperimentProgress
from shconv.experiments.run_folder import RunFolder
from shconv.experiments.study import Study
from shconv.experiments.table3_locsearch import searches
from shconv.rivals.plan import Clock, Plan
from shconv.rivals.wanted import PLAN, Wanted, kept_prices, place_of
from shconv.terminal import progress_line

NOISE, DEEPFOOL = "gaussian", "deepfool"
ATTACKS: dict[str, Attack] = {
    NOISE: GaussianNoise(sigma=0.1),
    **{name: attack for name, attack in PAPER.items() if isinstance(attack, GradientAttack)},
    DEEPFOOL: DeepFool(),
}
PAST_A_DETECTOR = {"undetected_pgd": create_attack("undetected_pgd")}


def attacked(study: Study, networks: Sequence[Network], asked: Wanted, plan: Plan, clock: Clock) -> Iterator[Network]:
    """Each network, once it has met the paper's attacks and DeepFool on all images of the study, and LocSearchAdv on
    the first of a seeded shuffle."""
    found = searches(study.data.image_size, study.data.is_demo)
    search = {name: found[name] for name in ("locsearch", "locsearch_cyclic")}
    if plan.searched is None:
        known = kept_prices(study.folder.path)
        batch = sum(float(known[rival.name]["inference"] or 0) for rival, _ in asked.trainings)
        queries = sum(each.cost.forwards for each in search.values() if each.cost)
        plan = plan.with_searches(asked.budget, asked.images, queries, batch / asked.recipe.batch_size, clock.left())
        plan.save(study.folder.path / PLAN)
        said = f"takes {plan.searched} of {asked.images} images" if plan.searched else "is left out: there is no time"
        study.progress.say(f"LocSearchAdv {said}")
    own_attacks.settle_attacks(study.folder, {**ATTACKS, **PAST_A_DETECTOR, **search})
    with _agenda(study.progress, "Attacks on", len(networks)) as begin:
        for network in networks:
            begin(network)
            own = replace(study, pairs=(Pair((network,)),))
            index = own.clean(network).index
            few = np.sort(np.random.default_rng(study.seed).permutation(index)[: plan.searched])
            for attack_set, places in ((_attacks(network), index), (search if len(few) else {}, few)):
                for _ in own_attacks.rows(own, attack_set, places):
                    pass
            clock.left()
            yield network


def audited(study: Study, networks: Sequence[Network], asked: Wanted, plan: Plan, clock: Clock) -> Iterator[Network]:
    """Each network, once it is audited. Every audit has an equal part of the time that is left before the first."""
    folder = study.folder.path
    plan = Plan.read(folder / PLAN) or plan
    if plan.audit_budget is None:
        plan = plan.with_audits(asked.budget, len(networks), clock.left()).save(folder / PLAN)
        study.progress.say(f"An audit takes {plan.audit_budget}")
    known = {(network.name, network.seed): network for network in networks}
    with _agenda(study.progress, "Audit of", len(networks)) as begin:
        for (rival, seed), network in zip(asked.trainings, networks, strict=True):
            begin(network)
            first = known[rival.vanilla, seed]
            sources = {} if first is network else {rival.vanilla: first.model}
            _audited(place_of(folder, "audits", rival, seed), network, sources, asked, plan, study)
            clock.left()
            yield network


def _attacks(network: Network) -> dict[str, Attack]:
    return ATTACKS | (PAST_A_DETECTOR if hasattr(network.model, "joint") else {})


def _audited(
    place: Path, network: Network, sources: Mapping[str, nn.Module], asked: Wanted, plan: Plan, study: Study
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


@contextmanager
def _agenda(progress: ExperimentProgress, title: str, count: int) -> Iterator[Callable[[Network], None]]:
    """Yield what to call before each part: it says which of how many begins, and about how long the rest takes."""
    began, done = time.monotonic(), 0

    def begin(network: Network) -> None:
        nonlocal done
        spent = time.monotonic() - began
        left = f", about {minutes(spent / done * (count - done))} left" if done and spent > 1 else ""
        done += 1
        progress.say(f"{title} {network.name}, seed {network.seed} ({done} of {count}{left})")

    yield begin
