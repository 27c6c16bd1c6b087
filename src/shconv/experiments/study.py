"""What every experiment works on: networks in pairs, a test split, how many images, and the run folder.
`attacked` is the one way a network meets an attack: fixed batch shape, a route, a fresh forward pass as the judge.
`collected` is the one way it meets many images: in units that several processes share and that a stop does not lose."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shconv.attacks import Attack, MinimalAttack
from shconv.attacks.budget import Norm
from shconv.attacks.foreign import ForeignResult
from shconv.data import ImageData, evaluation_batches
from shconv.data.splits import in_unit_range
from shconv.experiments.network import Network, Pair, routed
from shconv.experiments.outcomes import Outcomes, judge, on_host, summary
from shconv.experiments.partial import Columns, Partial
from shconv.experiments.progress import ExperimentProgress
from shconv.experiments.question import Images, Index, Measure, Question, padded
from shconv.experiments.run_folder import Row, RunFolder, file_name
from shconv.processes import Processes
from shconv.replaying import replaying

PAPER_IMAGES = {"table1": 50_000, "table2": 5_000, "table3": 500, "table4": 5_000, "quasi_boundary": 500}
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
        networks = {}
        for pair in self.pairs:
            for member in pair.members:
                networks[member.key] = {"weights": member.digest, "pair": [other.key for other in pair.members]}
        self.folder.settle_json("networks.json", networks, grows=True)
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
            x, y, places = (padded(part, size) for part in (batch.images, batch.labels, batch.index))
            x, y = (part.to(self.device, non_blocking=True) for part in (x, y))
            yield Images(in_unit_range(x), y, places, len(batch.labels))

    @contextmanager
    def collected(self, question: Question, measure: Measure, parts: int = 1) -> Iterator[tuple[Columns, float]]:
        """What `measure` says of every image of a question, and the seconds that took; kept until the block ends well.

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
            with self.progress.task(title, len(mine) * parts) as advance, partial.appending(processes.rank) as append:
                for unit, images in zip(mine, batches, strict=True):
                    columns = measure(images, advance)
                    clock, before = time.perf_counter(), clock
                    append(unit, columns, clock - before)
        processes.wait()
        yield partial.joined()
        self.forget(question)

    def _partial(self, question: Question) -> Partial:
        folder = self.folder.path / "partial" / question.place(self.seed)
        return Partial(folder, question.index, question.size)

    def forget(self, question: Question) -> None:
        """What is left of a row that is in: once every process has read it, or of a run that was stopped before."""
        self.processes.wait()
        if self.processes.is_first:
            self._partial(question).remove()

    def measure(self, network: Network, attack: Attack | None, index: Index, route: str = "both") -> Outcomes:
        """Attack the images at `index` through one gradient route; the whole network judges. No attack: clean images.

        Route "strict" takes grad(both) - grad(convolution).
        """
        with self._outcomes(self.question(network, attack, index, route)) as outcomes:
            return outcomes

    def question(
        self, network: Network, attack: Attack | None, index: Index, route: str = "both", size: int | None = None
    ) -> Question:
        """size: of a unit at most, cut to the images that there are, so that no copies are attacked. By default the
        batch size, however few there are."""
        kept = "adversarial images" if self.keep and attack is not None else ""
        unit = self.batch_size if size is None else min(size, len(index)) or self.batch_size
        unit = min(unit, getattr(attack, "together", None) or unit)
        return Question(network, attack, index, unit, route, kept)

    @contextmanager
    def _outcomes(self, question: Question) -> Iterator[Outcomes]:
        def measure(images: Images, advance: Callable[[], None]) -> Columns:
            columns = self.attacked(question.network, question.attack, images, question.route)[1]
            advance()
            return columns

        with self.collected(question, measure) as (columns, seconds):
            yield Outcomes.of(columns, seconds)

    def attacked(
        self, network: Network, attack: Attack | None, images: Images, route: str = "both"
    ) -> tuple[Tensor, Columns]:
        """One batch: the adversarial images, all of its shape, and the outcomes of those that count, each (n,)."""
        x, y, places, n = images
        zero = torch.zeros(len(x))
        adversarial, linf, l2, queries = x, zero, zero, torch.zeros(len(x), dtype=torch.int64)
        outside = torch.zeros(len(x), dtype=torch.bool)
        if attack is not None:
            with routed(network.model, route) as model:
                result = attack.run(model, x, y, index=places, seed=self.seed)
            adversarial, queries = result.images, result.queries
            linf, l2 = result.distances["linf"], result.distances["l2"]
            outside = result.outside if isinstance(result, ForeignResult) else outside
        reached = {"linf": linf, "l2": l2, "queries": queries, "outside": outside, "index": places}
        reached |= {"adversarial": adversarial} if self.keep and attack is not None else {}
        if hasattr(network.model, "joint"):  # it has a detector
            with torch.no_grad():
                reached["score"] = network.model.score(adversarial)  # type: ignore[operator]
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
        """Every test image that Table 1 may use, unattacked: a row of Table 1, and what all RCDs are measured from.

        Fewer than there are: the first of a seeded shuffle, since files in folders come class by class.
        """
        id = f"table1/{network.key}/clean"
        if id not in self._clean:
            shuffled = np.random.default_rng(self.seed).permutation(len(self.data.test))
            index = np.sort(shuffled[: self.counts.table1]) if self.chosen is None else self.chosen
            question = self.question(network, None, index)
            if id in self.folder.rows:
                self.forget(question)
            else:
                with self._outcomes(question) as outcomes:
                    self.add("table1", network, "clean", None, outcomes)
            self._clean[id] = self._stored(id)
        return self._clean[id]

    def selected(self, pair: Pair, wanted: int) -> Index:
        """The first `wanted` images of a seeded shuffle that all of the pair get right with more than min_confidence.

        Stored with how they spread over the classes: a few images, or one class, say nothing about a data set.
        """
        clean, least = [self.clean(member) for member in pair.members], self.counts.min_confidence
        confident = np.logical_and.reduce([each.correct & (each.p_y > least) for each in clean])
        shuffled = np.random.default_rng(self.seed).permutation(len(confident))
        index: Index = clean[0].index[shuffled[confident[shuffled]]][:wanted]
        about = {"pair": [member.name for member in pair.members], "seed": pair.members[0].seed}
        found = {"wanted": wanted, "found": len(index), "index": index.tolist()}
        labels = self.data.test.labels[torch.from_numpy(index)].tolist()
        chosen = {
            "min_confidence": least,
            "highest_confidence": max((float(p) for p in self._shared_confidence(clean)), default=0.0),
            "candidates": len(confident),
            "classes": {self.data.classes[label]: labels.count(label) for label in sorted(set(labels))},
        }
        path = f"selection/{file_name(pair.key)}-{wanted}.json"
        if not len(index) and not [*(self.folder.path / "selection").glob(f"{file_name(pair.key)}-*.json")]:
            names = " and ".join(member.name for member in pair.members)
            self.progress.say(
                f"{names}, seed {pair.members[0].seed}: no image is classified correctly with confidence above "
                f"{least:g} (the highest is {chosen['highest_confidence']:.2f}), so Tables 2 to 4 have no images; "
                "--min-confidence lowers the limit"
            )
        self.folder.save_json(path, about | found | chosen)
        return index

    def on_selected(self, wanted: int) -> Iterator[tuple[Network, Index]]:
        """Each network of the pairs for which images were found, with `selected`'s."""
        for pair in self.pairs:
            if len(index := self.selected(pair, wanted)):
                yield from ((member, index) for member in pair.members)

    @staticmethod
    def _shared_confidence(clean: Sequence[Outcomes]) -> NDArray[np.float64]:
        """Of the images that all get right, the confidence of the less confident network."""
        right = np.logical_and.reduce([each.correct for each in clean])
        lowest: NDArray[np.float64] = np.minimum.reduce([each.p_y for each in clean])[right]
        return lowest

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
        if id in self.folder.rows:
            self.forget(question)
            return self.folder.rows[id]
        other = None if as_in is None else row_id(as_in, network, name, attack, route)
        if other in self.folder.rows and np.array_equal((outcomes := self._stored(other)).index, index):
            return self.add(experiment, network, name, attack, outcomes, route=route)
        with self._outcomes(question) as outcomes:
            extra: dict[str, Any] = {}
            if isinstance(attack, MinimalAttack):
                extra = {f"median_{norm}": outcomes.median_distance(norm) for norm in get_args(Norm)}
            return self.add(experiment, network, name, attack, outcomes, route=route, extra=extra)

    def _stored(self, id: str) -> Outcomes:
        return Outcomes.of(self.folder.outcomes(id), self.folder.rows[id]["seconds"])

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
