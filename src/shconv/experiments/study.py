"""What every experiment works on: networks in pairs, a test split, how many images, and the run folder.
`measure` is the one way a network meets an attack: fixed batch shape, a route, a fresh forward pass as the judge."""

import hashlib
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from shconv.attacks import Attack
from shconv.data import ImageData, evaluation_batches
from shconv.experiments.outcomes import Outcomes, concatenate, judge, summary
from shconv.experiments.progress import ExperimentProgress
from shconv.experiments.run_folder import Row, RunFolder
from shconv.routes import HypernetworkPaths, gradient_route, shc_layers

Index = NDArray[np.int64]

PAPER_IMAGES = {"table1": 50_000, "table2": 5_000, "table3": 500, "table4": 5_000, "quasi_boundary": 500}
CONFIDENT = 0.9  # pair-selected images: both networks right with more than this (section 3.2)


@dataclass(frozen=True)
class Counts:
    """Images an experiment may use; what is wanted beyond the images that there are is not had."""

    table1: int = PAPER_IMAGES["table1"]
    table2: int = PAPER_IMAGES["table2"]
    table3: int = PAPER_IMAGES["table3"]


@dataclass(frozen=True, eq=False)
class Network:
    """A trained network, in eval mode on the study's device."""

    name: str
    seed: int
    model: nn.Module

    @property
    def is_shc(self) -> bool:
        return bool(shc_layers(self.model))

    @property
    def key(self) -> str:
        return f"{self.name}/seed{self.seed}"

    @property
    def digest(self) -> str:
        """Of all weights and buffers: tells a network from another one of its name."""
        sha = hashlib.sha256()
        for name, tensor in self.model.state_dict().items():
            sha.update(name.encode())
            sha.update(tensor.cpu().reshape(-1).view(torch.uint8).numpy())
        return sha.hexdigest()[:16]


@dataclass(frozen=True, eq=False)
class Pair:
    """A vanilla network and its SHC twin, trained with one seed; or one network alone."""

    members: tuple[Network, ...]

    @property
    def key(self) -> str:
        return "+".join(member.name for member in self.members) + f"-seed{self.members[0].seed}"


class Images(NamedTuple):
    """A batch in the study's fixed shape; only the first `n` images count, the rest repeat the first."""

    x: Tensor  # float32 (B, 3, H, W) in [0, 1]
    y: Tensor  # int64 (B,)
    places: Tensor  # int64 (B,), of each image in the test split
    n: int


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
    _measured: dict[tuple[str, str, str, bytes], Outcomes] = field(default_factory=dict)
    _clean: dict[str, Outcomes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises InputError where the folder's rows are about other networks, or about other pairs of them."""
        networks = {}
        for pair in self.pairs:
            for member in pair.members:
                networks[member.key] = {"weights": member.digest, "pair": [other.key for other in pair.members]}
        self.folder.settle_json("networks.json", networks, grows=True)

    @property
    def networks(self) -> Iterator[Network]:
        return (member for pair in self.pairs for member in pair.members)

    def batches(self, index: Index) -> Iterator[Images]:
        """The test images at `index`, in that order, always batch_size at a time."""
        for batch in evaluation_batches(self.data.test, index.tolist(), self.batch_size, workers=self.workers):
            n = len(batch.labels)
            fill = torch.cat([torch.arange(n), torch.zeros(self.batch_size - n, dtype=torch.int64)])
            x = batch.images[fill].to(self.device).float().div(255)
            yield Images(x, batch.labels[fill].to(self.device), batch.index[fill], n)

    def measure(self, network: Network, attack: Attack | None, index: Index, route: str = "both") -> Outcomes:
        """Attack the images at `index` through one gradient route; the whole network judges. No attack: clean images.

        Route "strict" takes grad(both) - grad(convolution). The same question asked twice is computed once.
        """
        question = network.key, repr(attack), route, index.tobytes()
        if question not in self._measured:
            started = time.perf_counter()
            parts = []
            title = f"{type(attack).__name__ if attack else 'clean'} on {network.key}, route {route}"
            with self.progress.task(title, -(-len(index) // self.batch_size)) as advance:
                for images in self.batches(index):
                    parts.append(self._outcomes(network, attack, images, route))
                    advance()
            self._measured[question] = concatenate(parts, time.perf_counter() - started)
        return self._measured[question]

    def _outcomes(self, network: Network, attack: Attack | None, images: Images, route: str) -> dict[str, NDArray[Any]]:
        x, y, places, n = images
        zero = torch.zeros(len(x))
        adversarial, linf, l2, queries = x, zero, zero, torch.zeros(len(x), dtype=torch.int64)
        if attack is not None:
            with routed(network.model, route) as model:
                result = attack.run(model, x, y, index=places, seed=self.seed)
            adversarial, queries = result.images, result.queries
            linf, l2 = result.distances["linf"], result.distances["l2"]
        judged = judge(self.logits(network, adversarial[:n]), y[:n])
        reached = {"linf": linf, "l2": l2, "queries": queries, "index": places}
        return judged | {name: value[:n].cpu().numpy() for name, value in reached.items()}

    @torch.no_grad()
    def logits(self, network: Network, x: Tensor) -> Tensor:
        """Logits (n, K) of n images, computed in the fixed batch shape."""
        parts = []
        for part in x.split(self.batch_size):
            padded = torch.cat([part, part[:1].expand(self.batch_size - len(part), *part.shape[1:])])
            parts.append(network.model(padded)[: len(part)])
        return torch.cat(parts)

    def clean(self, network: Network) -> Outcomes:
        """Every test image that Table 1 may use, unattacked: a row of Table 1, and what all RCDs are measured from.

        Fewer than there are: the first of a seeded shuffle, since files in folders come class by class.
        """
        id = f"table1/{network.key}/clean"
        if id not in self.folder.rows:
            shuffled = np.random.default_rng(self.seed).permutation(len(self.data.test))
            index = np.sort(shuffled[: self.counts.table1])
            self.add("table1", network, "clean", None, self.measure(network, None, index))
        if id not in self._clean:
            self._clean[id] = Outcomes(**self.folder.outcomes(id), seconds=self.folder.rows[id]["seconds"])
        return self._clean[id]

    def selected(self, pair: Pair, wanted: int) -> Index:
        """The first `wanted` images of a seeded shuffle that all of the pair get right with confidence above 0.9."""
        clean = [self.clean(member) for member in pair.members]
        confident = np.logical_and.reduce([each.correct & (each.p_y > CONFIDENT) for each in clean])
        shuffled = np.random.default_rng(self.seed).permutation(len(confident))
        index: Index = clean[0].index[shuffled[confident[shuffled]]][:wanted]
        about = {"pair": [member.name for member in pair.members], "seed": pair.members[0].seed}
        found = {"wanted": wanted, "found": len(index), "index": index.tolist()}
        self.folder.save_json(f"selection/{pair.key}-{wanted}.json", about | found)
        return index

    def row(
        self, experiment: str, network: Network, name: str, attack: Attack, index: Index, route: str | None = None
    ) -> Row:
        """One network under one attack as a row, computed unless the folder has it."""
        id = row_id(experiment, network, name, attack, route)
        if id in self.folder.rows:
            return self.folder.rows[id]
        outcomes = self.measure(network, attack, index, route or "both")
        return self.add(experiment, network, name, attack, outcomes, route=route)

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
            "parameters": {} if attack is None else asdict(attack),
            "objective": getattr(attack, "objective", None),
            "route": route,
            "step": step,
            "wanted": PAPER_IMAGES.get(experiment),
            "attack_seed": self.seed,
        }
        row = self.folder.add({**about, **fields, **(extra or {})}, arrays)
        self.progress.row(row)
        return row


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


def routes_of(network: Network) -> tuple[str, ...]:
    """The gradient routes that a network has."""
    return ("both", "convolution", "hypernetwork") if network.is_shc else ("both",)


@contextmanager
def routed(model: nn.Module, route: str) -> Iterator[nn.Module]:
    """The model as an attack sees it through a route: one of gradient_route's, or "strict"."""
    if route == "strict":
        yield HypernetworkPaths(model).eval()
    else:
        with gradient_route(model, route):
            yield model
