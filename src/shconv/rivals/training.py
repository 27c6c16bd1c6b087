"""The table's trainings: what each row costs, for how many epochs all may train, and the networks, where the machine
allows it several at a time."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from shconv.audit.clock import minutes
from shconv.data import ImageData
from shconv.experiments.network import Network
from shconv.experiments.progress import ExperimentProgress
from shconv.experiments.run_folder import RunFolder
from shconv.experiments.selection import drawn
from shconv.processes import Processes
from shconv.rivals import prices
from shconv.rivals.plan import PRICING, Clock, Plan
from shconv.rivals.wanted import PLAN, PRICES, Training, Wanted, kept_prices, place_of
from shconv.rivals.which import Rival, settings_of
from shconv.terminal import without_repeats
from shconv.training import train, with_epochs
from shconv.training.defences import Source
from shconv.training.side_by_side import can_be_side_by_side, train_side_by_side
from shconv.training.stored import is_finished


def priced(
    folder: RunFolder, asked: Wanted, data: ImageData, processes: Processes, clock: Clock, progress: ExperimentProgress
) -> Plan:
    """The plan that is kept, or one made of prices measured now; rows without prices are measured first. Where
    networks train several at a time, a step is measured on one thread, as each of them then has it."""
    known, threads = kept_prices(folder.path), torch.get_num_threads()
    together = can_be_side_by_side(data, processes)
    for vanilla, trials in _trials(asked, data, processes.device).items():
        new = {name: trial for name, trial in trials.items() if name == vanilla or name not in known}
        if all(name in known for name in trials):
            continue
        progress.say(f"Prices of {len(new)} rows: a training step and inference, each beside {vanilla}'s")
        try:
            torch.set_num_threads(1 if together else threads)
            found = prices.times(new, PRICING * max(clock.left(), 1.0))
        finally:
            torch.set_num_threads(threads)
        known |= {name: found[name] for name in new if name not in known}
        folder.save_json(PRICES, known)
    if (plan := Plan.read(folder.path / PLAN)) is not None:
        return plan
    steps = [_price(known, rival) for rival, _ in asked.trainings]
    at_a_time = min(len(steps), threads) if together else 1
    made = Plan.made(asked.budget, asked.recipe, len(data.train or ()), steps, clock.left(), at_a_time)
    return made.save(folder.path / PLAN)


def remembered(
    folder: RunFolder, asked: Wanted, data: ImageData, device: torch.device, progress: ExperimentProgress
) -> None:
    """The peak memory of every row's training step, measured once."""
    known = kept_prices(folder.path)
    for trials in _trials(asked, data, device).values():
        if all("memory_over" in known[name] for name in trials):
            continue
        progress.say(f"Memory of a training step, for {len(trials)} rows")
        known |= prices.memories(trials, known)
        folder.save_json(PRICES, known)


def _trials(asked: Wanted, data: ImageData, device: torch.device) -> dict[str, dict[str, prices.Trial]]:
    """By vanilla network, those of its rows by their names; the vanilla row is the first."""
    found: dict[str, dict[str, prices.Trial]] = {}
    for rival in asked.rivals:
        trial = prices.Trial.of(rival, asked.config(rival.model), data.image_size, asked.recipe.batch_size, str(device))
        found.setdefault(rival.vanilla, {})[rival.name] = trial
    return found


def trained(
    folder: Path, asked: Wanted, plan: Plan, data: ImageData, processes: Processes, progress: ExperimentProgress
) -> list[Network]:
    """Every row's network of every seed, trained where it is not there yet, in eval mode on the CPU."""
    recipe = with_epochs(asked.recipe, plan.epochs) if plan.epochs != asked.recipe.epochs else asked.recipe
    if data.train is not None and plan.train_images < len(data.train):
        kept = drawn(len(data.train), plan.train_images, 0)
        data = replace(data, train=data.train.take(kept.tolist()))

    def task(training: Training) -> dict[str, Any]:
        rival, seed = training
        sources = [Source.load(place_of(folder, "models", source, seed)) for source in rival.sources]
        return {
            **asked.how, "config": asked.config(rival.model), "data": data, "recipe": recipe, "seed": seed,
            "folder": place_of(folder, "models", rival, seed), "defence": settings_of(rival.defence, sources),
        }  # fmt: skip

    known = kept_prices(folder)
    report = _reporting(folder, asked, known, progress)
    with without_repeats():
        for some in asked.in_turn:
            dearest_first = sorted(some, key=lambda training: -_price(known, training[0]))
            tasks = [task(training) for training in dearest_first]
            if can_be_side_by_side(data, processes):
                train_side_by_side(tasks, progress, report)
            for each in tasks:
                if not is_finished(each["folder"]):
                    train(**each)
                    report()
            report()
        return [Network(rival.name, seed, train(**task((rival, seed))).model) for rival, seed in asked.trainings]


def _reporting(folder: Path, asked: Wanted, known: prices.Prices, progress: ExperimentProgress) -> Callable[[], None]:
    """What says how many networks are trained, and about how long the others take."""
    left = {place_of(folder, "models", *each): _price(known, each[0]) for some in asked.in_turn for each in some}
    count, began = len(left), time.monotonic()
    left = {place: price for place, price in left.items() if not is_finished(place)}
    all_work = sum(left.values())

    def report() -> None:
        rest = {place: price for place, price in left.items() if not is_finished(place)}
        done, spent = all_work - sum(rest.values()), time.monotonic() - began
        when = f", about {minutes(spent / done * sum(rest.values()))} left" if rest and done > 0 else ""
        progress.say(f"{count - len(rest)} of {count} networks are trained{when}")

    return report


def _price(known: prices.Prices, rival: Rival) -> float:
    """Seconds of a training step; of a network that is no row, none are known."""
    return float(known.get(rival.name, {}).get("step") or 0)
