"""The object every check gets: the network, its images, what was tried on each and what broke it, and the clock."""

import json
import math
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from shconv.attacks import Attack
from shconv.attacks.budget import Budget, Norm
from shconv.audit.clock import Clock, minutes
from shconv.audit.findings import Flags, Outcome
from shconv.audit.ledger import Ledger, file_slug, question
from shconv.audit.probe import Pace, Probe
from shconv.audit.setting import FULL, Effort, Setting
from shconv.audit.subject import AuditedNetwork, Subject, TimeUp, drawing
from shconv.audit.views import INNER_LOGITS, STRAIGHT_THROUGH, Sight, View
from shconv.errors import InputError
from shconv.experiments.network import routed
from shconv.experiments.progress import ExperimentProgress
from shconv.intervals import wilson
from shconv.routes import frozen_kernels, gradient_route

_HELD = 2**28  # values of adversarial images that an outcome holds, a gigabyte
_GRACE = 0.05  # of the whole time


@dataclass(eq=False)
class Audit:
    """One network under audit.

    images (N, C, H, W) float32 in [0, 1] on the network's device, labels and index int64 (N,): classes, and places in
    the data set. `correct` (N,): clean and right; `confident`: and with p_y > min_confidence. Threats are "linf", "l2",
    "pixels" (any change of few pixels) and "undetected" (L-infinity, and a network's detector accepts it).
    """

    subject: Subject
    images: Tensor
    labels: Tensor
    index: Tensor
    setting: Setting
    ledger: Ledger
    clock: Clock
    probe: Probe
    progress: ExperimentProgress
    twin: Subject | None = None
    sources: Mapping[str, Subject] = field(default_factory=dict)
    seeds: Mapping[str, Subject] = field(default_factory=dict)
    effort: Effort = FULL
    until: float = math.inf  # seconds on the clock at which this network's share of the time is used up
    sight: Sight | None = None  # what attacks by gradient see of the network
    view: View | None = None  # what shows them more, where that is little
    said: list[str] = field(default_factory=list)  # what is odd about the network, in sentences
    paces: dict[str, float] = field(default_factory=dict)  # by attack: how much longer it took than estimated

    def __post_init__(self) -> None:
        self.judged = judged = self.subject.judge(self.images, self.labels)
        self.correct: Flags = judged.right
        self.confident: Flags = judged.right & (judged.p_y > self.setting.min_confidence)
        self._accepted: Flags = ~self.subject.rejects(self.images)

    def attack(
        self,
        label: str,
        attack: Attack,
        *,
        on: Flags | None = None,
        route: str = "both",
        model: nn.Module | None = None,
        threat: str = "linf",
        source: str | None = None,
        order: Sequence[int] | None = None,
        patience: int = 0,
    ) -> Outcome:
        """Attack the images `on` (default: those standing), batch by batch until the time is up, for the worst case.

        Shared attacks are those that every network can meet, through both routes and on the network itself, that came
        to every image which the shared ones before them left standing: over these two networks can be compared. They
        pass over an image that a shared attack broke, all others over one that any attack broke.
        The whole network judges, in a fresh forward pass. A success is misclassified, in the box, and in the setting's
        ball. Asked again, or after a stop, the stored result is returned.

        route: gradient_route's, "strict", "frozen" (kernels held at the clean images') or "mixture:W", the
        hypernetwork's gradient times W, or the view's. model: the examples are made on this network, which `source`
        names. order: places of images, in which they are attacked. patience: after so many in a row that stand, where
        it is not 0, the rest are spared; the row says how many.
        Raises InputError where label, route, threat and source were another attack before.
        """
        own = route == "both" and source is None
        on = self.standing(threat, shared=own) if on is None else np.asarray(on, bool)
        parts = [label, *(part for part, usual in ((route, "both"), (threat, "linf")) if part != usual)]
        slug = file_slug("-".join([*parts, *(("from", source) if source else ())]))
        asked = question(attack, on, route, threat, source, True, False)  # the last two as folders know it
        if (stored := self.ledger.attack(slug, asked)) is not None:
            return stored
        if model is None:
            model = self.subject.model if self.view is None or route != self.view.route else self.view.model
        outcome, made = self.ledger.begun(slug, asked), [self.images[:0]]
        held = order is None and not outcome.tried and int(on.sum()) * self.images[0].numel() <= _HELD
        places = np.flatnonzero(on) if order is None else np.array([at for at in order if on[at]], np.int64)
        kind = f"{type(attack).__name__} {getattr(attack, 'norm', '')}"
        todo, pace = places[~outcome.attempted[places]], Pace(self.probe, attack.cost, self.paces.get(kind))
        most = min(self.setting.batch_size, patience or self.setting.batch_size)
        title = f"{self.subject.key}, {label}"
        title += f" ({minutes(self.remaining())} left)" if math.isfinite(self.until) else ""
        with self.progress.count(title) as shown:
            while len(todo) and not _out_of_patience(outcome, places, patience):
                size = pace.next(min(len(todo), most), self.remaining())
                try:
                    if not size:
                        break
                    part = self._batch(attack, model, todo[:size], route, threat, slug)
                except TimeUp:
                    break
                at, todo = todo[:size], todo[size:]
                outcome = outcome.then(at, part)
                pace.took(part.seconds, len(at))
                self.paces[kind] = max(pace.slower, 1.0)
                made += [part.adversarial] if held and part.adversarial is not None else []
                if len(todo):
                    self.ledger.keep(slug, outcome)
                    self.clock.save()
                shown(int(on.sum()) - len(todo), int(on.sum()))
        spared = len(todo) if _out_of_patience(outcome, places, patience) else 0
        outcome.complete = len(todo) == spared
        outcome.adversarial = torch.cat(made) if held else None
        about = {
            "attack": label,
            "parameters": json.loads(json.dumps(attack.about(), default=str)),
            "route": route,
            "threat": threat,
            "epsilon": radius if math.isfinite(radius := self.setting.radius(threat)) else None,
            "source": source,
            "headline": True,  # for readers of folders
            "shared": own and outcome.complete and not spared and bool(on[self.standing(threat, shared=True)].all()),
            "spared": spared,
        }
        if self.subject.is_random and isinstance(model, AuditedNetwork):
            about["parameters"]["draws"] = model.passes
        row = self.ledger.add_attack(slug, outcome, {**about, **self._counts(outcome, threat)})
        self.clock.save()
        self.progress.say(f"  {self.subject.key}, {_line(row)}")
        return outcome

    def sound(self, threat: str = "linf") -> Flags:
        """(N,): right on the clean image; where the threat is to get past a detector, also accepted by it."""
        return self.correct & self._accepted if threat == "undetected" else self.correct

    def standing(self, threat: str = "linf", shared: bool = False) -> Flags:
        """(N,): right on the clean image, and not yet broken under the threat.

        shared: by those of them that every network can meet (see `attack`).
        """
        return self.sound(threat) & ~self.ledger.broken(threat, shared)

    def remaining(self) -> float:
        """Seconds left for this network; infinite without a limit."""
        return self.clock.left(self.until)

    def watch(self) -> None:
        """Raises TimeUp once the time is used up, and a little more, in which a batch that has begun may end."""
        if not self.clock.left(self.until + _GRACE * self.clock.limit):
            raise TimeUp

    @contextmanager
    def within(self, share: float) -> Iterator[None]:
        """Inside, attacks have so much of the time left."""
        before = self.until
        if math.isfinite(self.remaining()):
            self.until = min(before, self.clock.spent + share * self.remaining())
        try:
            yield
        finally:
            self.until = before

    @property
    def blind(self) -> bool:
        """Whether the network has no gradient."""
        return self.sight is not None and self.sight.blind

    @property
    def slower(self) -> float:
        """How much longer attacks take than their passes, from those that have run; at least 1."""
        return max((pace for kind, pace in self.paces.items() if kind.startswith("PGD")), default=1.0)

    def take(self, effort: Effort) -> None:
        """The counts of a plan, as far as they make sense for the network."""
        self.effort = effort.without_gradient() if self.blind else effort

    def sample(self, n: int) -> Flags:
        """(N,): the first n correct images of a seeded shuffle, all of them where there are no more."""
        chosen = np.zeros(len(self.correct), bool)
        shuffled = self.generator("sample").permutation(len(self.correct))
        chosen[shuffled[self.correct[shuffled]][:n]] = True
        return chosen

    def generator(self, *words: object) -> np.random.Generator:
        """Random numbers that depend on the audit's seed and the words alone."""
        entropy = [self.setting.seed, *(zlib.crc32(str(word).encode("utf-8", "backslashreplace")) for word in words)]
        return np.random.Generator(np.random.PCG64(np.random.SeedSequence(entropy)))

    def _batch(
        self, attack: Attack, network: nn.Module, at: NDArray[np.int64], route: str, threat: str, slug: str
    ) -> Outcome:
        """Of the images at these places alone."""
        started = time.monotonic()
        rows = torch.from_numpy(at).to(self.images.device)
        x, y, index = self.images[rows], self.labels[rows], self.index[rows]
        with seen_through(network, route, x) as seen, drawing(True, self.setting.seed, slug, int(at[0])):
            result = attack.run(seen, x, y, index=index, seed=self.setting.seed)
        judged = self.subject.judge(result.images, y)
        norm: Norm = "l2" if threat == "l2" else "linf"
        inside: Flags = Budget(norm, self.setting.radius(threat)).holds(result.images, x).cpu().numpy()
        fooled = ~judged.right
        if threat == "undetected":
            fooled &= ~self.subject.rejects(result.images)
        part = Outcome("", np.ones(len(at), bool), fooled & inside, result.queries.cpu().numpy())
        part.outside, part.nan = int((fooled & ~inside).sum()), int(judged.nan.sum())
        part.adversarial, part.seconds = result.images.detach(), time.monotonic() - started
        return part

    def _counts(self, outcome: Outcome, threat: str) -> dict[str, Any]:
        """Accuracy is over all N images, where all that could be broken were attempted."""
        sound = self.sound(threat)
        n, left = len(sound), int((sound & ~outcome.success).sum())
        whole = bool(outcome.attempted[sound].all())
        accuracy = {"accuracy": left / n, "interval": list(wilson(left, n))}
        counts = {"n": outcome.tried, "successes": outcome.broken}
        return {**counts, **(accuracy if whole else {"accuracy": None, "interval": None})}


@contextmanager
def seen_through(network: nn.Module, route: str, x: Tensor) -> Iterator[nn.Module]:
    """The network as an attack on the clean images x (n, C, H, W) sees it. Raises InputError for an unknown route."""
    kind, _, weight = route.partition(":")
    if kind == "frozen":
        with frozen_kernels(network, x):
            yield network
    elif kind == "mixture":
        try:
            factor = float(weight)
        except ValueError:
            raise InputError(f"route: got {route!r}; want mixture:W with a number W") from None
        with gradient_route(network, "both", factor):
            yield network
    else:
        plain = route in ("both", STRAIGHT_THROUGH, INNER_LOGITS)
        with nullcontext(network) if plain else routed(network, route) as seen:
            yield seen


def _out_of_patience(outcome: Outcome, places: NDArray[np.int64], patience: int) -> bool:
    """Whether the last of the images tried, in their order, all stand."""
    tried = places[outcome.attempted[places]]
    return 0 < patience <= len(tried) and not outcome.success[tried[-patience:]].any()


def _line(row: Mapping[str, Any]) -> str:
    """What a person reads when an attack has ended."""
    parts = [row["attack"], *([f"route {row['route']}"] if row["route"] != "both" else []), row["threat"]]
    cut = "" if row["complete"] else ", stopped early by the time budget"
    outside = f", {row['outside']} more lie outside the ball and do not count" if row["outside"] else ""
    name = ", ".join([*parts, *([f"made on {row['source']}"] if row["source"] else [])])
    spared = f", {row['spared']} further ones left out" if row["spared"] else ""
    return f"{name}: breaks {row['successes']} of {row['n']}{spared}{outside}  {row['seconds']:.1f} s{cut}"
