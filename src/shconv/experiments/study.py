"""What every experiment works on: networks in pairs, a test split, how many images, and the run folder.
`attacked` is the one way a network meets an attack: fixed batch shape, a route, a fresh forward pass as the judge.
`collected` is the one way it meets many images: in units that several processes share and that a stop does not lose."""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from shconv.attacks import Attack, MinimalAttack
from shconv.attacks.budget import Norm
from shconv.attacks.checks import check_images
from shconv.attacks.foreign import ForeignResult
from shconv.data import ImageData, evaluation_batches
from shconv.data.splits import in_unit_range
from shconv.errors import InputError
from shconv.experiments.network import HUGE, LATER, Network, Pair, routed
from shconv.experiments.outcomes import Outcomes, judge, on_host, summary
from shconv.experiments.partial import Columns, Partial
from shconv.experiments.progress import ExperimentProgress
from shconv.experiments.question import Images, Index, Measure, Question, padded
from shconv.experiments.run_folder import Row, RunFolder, file_name
from shconv.experiments.selection import confident, drawn
from shconv.processes import Processes
from shconv.replaying import replaying

PAPER_IMAGES = {"table1": 50_000, "table2": 5_000, "table3": 500, "table4": 5_000, "quasi_boundary": 500}
NETWORKS = "networks.json"
CONFIDENT = 0.9  # pair-selected images: all of a pair right with more than this, unless asked otherwise (section 3.2)


@dataclass(frozen=True)
class Counts:
    """Images an experiment may use; what is wanted beyond the images that there are is not had."""

    table1: int = PAPER_IMAGES["table1"]
    table2: int = PAPER_IMAGES["table2"]
    table3: int = PAPER_IMAGES["table3"]
    min_confidence: float = CONFIDENT  # of the images that Tables 2 to 4 select


@dataclass(eq=False)
class Study:
    """Networks, images, and where the results go."""

    folder: RunFolder
    data: ImageData
    pairs: tuple[Pair, ...]
    counts: Counts
    batch_size: int
    device: torch.device
    progress: ExperimentProgress
    seed: int = 0  # of the attacks' randomness and of the selection
    workers: int = 0
    processes: Processes = Processes()  # noqa: RUF009 (frozen)
    keep: bool = False  # the adversarial images among the outcomes
    chosen: Index | None = None  # the images to use; None: `counts` says how many of a seeded shuffle
    _clean: dict[str, Outcomes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises InputError where the folder's rows are about other networks, or about other pairs of them."""
        self.folder.settle_json(NETWORKS, as_stored(self.pairs), grows=True, later=LATER)
        sizes = {network.key: {"parameters": network.parameters} for network in self.networks}
        self.folder.settle_json("sizes.json", sizes, grows=True)
        self.folder.save_images(self.data.test.names, self.data.test.labels.numpy())

    @property
    def networks(self) -> Iterator[Network]:
        return (member for pair in self.pairs for member in pair.members)

    def batches(self, index: Index, size: int | None = None) -> Iterator[Images]:
        """The test images at `index`, in that order, always `size` (default: batch_size) at a time."""
        size = size or self.batch_size
        for batch in evaluation_batches(self.data.test, index.tolist(), size, workers=self.workers):
            if batch.images.is_floating_point():  # a user's own
                check_images(batch.images)
            x, y, places = (padded(part, size) for part in (batch.images, batch.labels, batch.index))
            x, y = (part.to(self.device, non_blocking=True) for part in (x, y))
            yield Images(in_unit_range(x), y, places, len(batch.labels))

    def collected(self, question: Question, measure: Measure, parts: int = 1) -> tuple[Columns, float]:
        """What `measure` says of every image of a question, and the seconds that took; kept until it is forgotten.

        Unit u is the work of process u % (number of processes), whatever was done of it before. An image's unit, its
        place in it and the unit's shape hang on the question alone, so its outcome does too.
        """
        partial, processes = self._partial(question), self.processes
        done = partial.done()
        mine = [unit for unit in range(processes.rank, partial.units, processes.count) if unit not in done]
        chosen = [question.index[partial.places(unit)] for unit in mine]
        if mine:
            batches = self.batches(np.concatenate(chosen), question.size)
            title, clock = question.title, time.perf_counter()
            with self.progress.task(title, len(mine) * parts) as advance:
                for unit, images in zip(mine, batches, strict=True):
                    columns = measure(images, advance)
                    clock, before = time.perf_counter(), clock
                    partial.add(unit, columns, clock - before)
        processes.wait()
        return partial.joined()

    def _partial(self, question: Question) -> Partial:
        folder = self.folder.path / "partial" / question.place(self.seed)
        return Partial(folder, question.index, question.size)

    def forget(self, question: Question) -> None:
        """What is left of a row that is in, now or since a run that was stopped: once every process has read it."""
        self.processes.wait()
        if self.processes.is_first:
            self._partial(question).remove()

    def question(
        self, network: Network, attack: Attack | None, index: Index, route: str = "both", size: int | None = None
    ) -> Question:
        """size: of a unit at most, cut to the images that there are, so that no copies are attacked. By default the
        batch size, however few there are."""
        kept = "adversarial images" if self.keep and attack is not None else ""
        unit = self.batch_size if size is None else min(size, len(index)) or self.batch_size
        unit = min(unit, getattr(attack, "together", None) or unit)
        return Question(network, attack, index, unit, route, kept)

    def measure(self, question: Question) -> Outcomes:
        """The whole network judges the images that an attack makes of it through one route; no attack: clean images."""

        def measure(images: Images, advance: Callable[[], None]) -> Columns:
            columns = self.attacked(question.network, question.attack, images, question.route)[1]
            advance()
            return columns

        return Outcomes.of(*self.collected(question, measure))

    def attacked(
        self, network: Network, attack: Attack | None, images: Images, route: str = "both"
    ) -> tuple[Tensor, Columns]:
        """One batch: the adversarial images, all of its shape, and the outcomes of those that count, each (n,)."""
        x, y, places, n = images
        adversarial, zero = x, torch.zeros(len(x))
        reached = {"linf": zero, "l2": zero, "queries": zero.long(), "outside": zero.bool(), "index": places}
        if attack is not None:
            with routed(network.attacked, route) as model:
                result = attack.run(model, x, y, index=places, seed=self.seed)
            adversarial = result.images
            reached |= {**result.distances, "queries": result.queries}
            reached |= {"outside": result.outside} if isinstance(result, ForeignResult) else {}
            reached |= {"adversarial": adversarial} if self.keep else {}
        if hasattr(network.model, "joint"):  # it has a detector
            with torch.no_grad():
                scores: Tensor = network.model.score(adversarial)  # type: ignore[operator]
                reached["score"] = scores.nan_to_num(-HUGE, HUGE, -HUGE)  # of NaN no alarm
        asked = self.logits(network, adversarial[:n], len(x)), y[:n], *(value[:n] for value in reached.values())
        logits, labels, *values = on_host(*asked)
        columns = {name: value.numpy() for name, value in zip(reached, values, strict=True)}
        return adversarial, judge(logits, labels) | columns

    @torch.no_grad()
    def logits(self, network: Network, x: Tensor, size: int) -> Tensor:
        """Logits (n, K) of n images, computed in batches of `size`, which is that of the question's units."""
        parts, model = [], replaying(network.model)
        for part in x.split(size):
            parts.append(model(padded(part, size))[: len(part)])
        return torch.cat(parts)

    def clean(self, network: Network) -> Outcomes:
        """Every test image that Table 1 may use, unattacked: a row of Table 1, and what all RCDs are measured from."""
        id = f"table1/{network.key}/clean"
        if id not in self._clean:
            index = drawn(len(self.data.test), self.counts.table1, self.seed) if self.chosen is None else self.chosen
            question = self.question(network, None, index)
            if id not in self.folder.rows:
                self.add("table1", network, "clean", None, self.measure(question))
            self.forget(question)
            self._clean[id] = self._stored(id)
        return self._clean[id]

    def selected(self, pair: Pair, wanted: int) -> Index:
        """`wanted` images of a seeded shuffle that all of the pair get right with more than min_confidence."""
        clean, least = [self.clean(member) for member in pair.members], self.counts.min_confidence
        index, chosen = confident(pair, clean, self.data, wanted, least, self.seed)
        path = f"selection/{file_name(pair.key)}-{wanted}.json"
        if not len(index) and not [*(self.folder.path / "selection").glob(f"{file_name(pair.key)}-*.json")]:
            self.progress.say(
                f"{' and '.join(chosen['pair'])}, seed {chosen['seed']}: no image is classified correctly with "
                f"confidence above {least:g} (the highest is {chosen['highest_confidence']:.2f}), so Tables 2 to 4 "
                "have no images; --min-confidence lowers the limit"
            )
        self.folder.save_json(path, chosen)
        return index

    def on_selected(self, wanted: int) -> Iterator[tuple[Network, Index]]:
        """Each network of the pairs for which images were found, with `selected`'s."""
        for pair in self.pairs:
            if len(index := self.selected(pair, wanted)):
                yield from ((member, index) for member in pair.members)

    def row(
        self,
        experiment: str,
        network: Network,
        name: str,
        attack: Attack,
        index: Index,
        route: str | None = None,
        as_in: str | None = None,
        size: int | None = None,
    ) -> Row:
        """One network under one attack as a row, computed unless the folder has it.

        as_in: another experiment whose row, where it is there and about the same images, holds the same outcomes.
        size: of a unit of work, as in `question`.
        """
        id = row_id(experiment, network, name, attack, route)
        question = self.question(network, attack, index, route or "both", size)
        other = None if as_in is None else row_id(as_in, network, name, attack, route)
        if id in self.folder.rows and self.keep and not self.folder.kept(id):
            raise InputError(
                f"{self.folder.path} has {id} without its adversarial images; take another folder to keep these"
            )
        if id not in self.folder.rows:
            if other in self.folder.rows and np.array_equal((known := self._stored(other)).index, index):
                return self.add(experiment, network, name, attack, known, route=route)
            outcomes, extra = self.measure(question), dict[str, Any]()
            if isinstance(attack, MinimalAttack):
                extra = {f"median_{norm}": outcomes.median_distance(norm) for norm in get_args(Norm)}
            self.add(experiment, network, name, attack, outcomes, route=route, extra=extra)
        self.forget(question)
        return self.folder.rows[id]

    def _stored(self, id: str) -> Outcomes:
        return Outcomes.of(self.folder.outcomes(id), self.folder.rows[id].get("seconds") or 0.0)

    def add(
        self,
        experiment: str,
        network: Network,
        name: str,
        attack: Attack | None,
        outcomes: Outcomes,
        *,
        route: str | None = None,
        step: int | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> Row:
        """Append the row of these outcomes; `extra` holds further fields of the experiment."""
        clean = None if attack is None else self.clean(network)
        fields, arrays = summary(outcomes, clean)
        about = {
            "id": row_id(experiment, network, name, attack, route, step),
            "experiment": experiment,
            "model": network.name,
            "seed": network.seed,
            "attack": name,
            "parameters": {} if attack is None else attack.about(),
            "threat": None if attack is None else _threat(attack),
            "objective": getattr(attack, "objective", None),
            "route": route,
            "step": step,
            "wanted": PAPER_IMAGES.get(experiment) if self.data.is_imagenet else None,
            "attack_seed": self.seed,
        }
        row = self.folder.add({**about, **fields, **(extra or {})}, arrays)
        self.progress.row(row)
        return row


def as_stored(pairs: Iterable[Pair]) -> dict[str, Any]:
    """What networks.json holds of them: tells a network, and its pair, from another one of its name."""
    return {
        member.key: {**member.identity, "pair": [other.key for other in pair.members]}
        for pair in pairs
        for member in pair.members
    }


def _threat(attack: Attack) -> dict[str, Any]:
    """The attack's budget as JSON has it: a radius of None is any change."""
    norm, radius = attack.budget
    return {"norm": norm, "radius": radius if math.isfinite(radius) else None}


def row_id(
    experiment: str,
    network: Network,
    name: str,
    attack: Attack | None,
    route: str | None = None,
    step: int | None = None,
) -> str:
    """table2/resnet18_shc/seed0/fgsm/least_likely/both, or what of it there is."""
    sigma = getattr(attack, "sigma", None)
    parts = [experiment, network.key, name, getattr(attack, "objective", None), route]
    parts += [f"sigma{sigma:g}" if sigma is not None else None, f"step{step}" if step is not None else None]
    return "/".join(part for part in parts if part is not None)
