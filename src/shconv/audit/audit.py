"""The object every check gets: the network, its images, what was tried on each and what broke it, and the clock."""

import math
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from shconv.attacks import Attack
from shconv.attacks.budget import Budget, Norm
from shconv.attacks.cost import Cost
from shconv.audit.attempt import Attempt, line, out_of_patience, seen_through
from shconv.audit.clock import Clock, minutes
from shconv.audit.findings import Flags, Outcome
from shconv.audit.ledger import Ledger
from shconv.audit.probe import Pace, Probe
from shconv.audit.setting import FULL, Effort, Setting
from shconv.audit.subject import AuditedNetwork, Subject, TimeUp, drawing
from shconv.audit.views import Sight, View
from shconv.experiments.progress import ExperimentProgress
from shconv.experiments.run_folder import as_json
from shconv.intervals import wilson

_HELD = 2**28  # values of adversarial images that an outcome holds, a gigabyte
_GRACE = 0.05  # of the whole time
_PADDING = 0.02  # of the time left, for what fills a judged batch up to its one shape


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
        asked = Attempt(label, attack, route, threat, source)
        on = self.standing(threat, shared=asked.own) if on is None else np.asarray(on, bool)
        if (stored := self.ledger.attack(asked.slug, asked.question(on))) is not None:
            return stored
        if model is None:
            model = self.subject.model if self.view is None or route != self.view.route else self.view.model
        places = np.flatnonzero(on) if order is None else np.array([at for at in order if on[at]], np.int64)
        outcome, spared = self._carried_out(asked, on, places, model, patience, keep=order is None)
        shared = asked.own and outcome.complete and not spared
        about: dict[str, Any] = {
            "attack": label,
            "parameters": as_json(attack.about()),
            "route": route,
            "threat": threat,
            "epsilon": radius if math.isfinite(radius := self.setting.radius(threat)) else None,
            "source": source,
            "headline": True,  # for readers of folders
            "shared": shared and bool(on[self.standing(threat, shared=True)].all()),
            "spared": spared,
            "blind": self._is_blind(asked),
        }
        if self.subject.is_random and isinstance(model, AuditedNetwork):
            about["parameters"]["draws"] = model.passes
        row = self.ledger.add_attack(asked.slug, outcome, {**about, **self._counts(outcome, threat)})
        self.clock.save()
        self.progress.say(f"  {self.subject.key}, {line(row)}")
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

    def _is_blind(self, asked: Attempt) -> bool:
        """Does the attack follow the network's own gradient, where it has none?"""
        by_gradient = asked.source is None and asked.attack.cost is not None and asked.attack.cost.backwards > 0
        return self.blind and by_gradient and (self.view is None or asked.route != self.view.route)

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

    def _carried_out(
        self, asked: Attempt, on: Flags, places: NDArray[np.int64], model: nn.Module, patience: int, keep: bool
    ) -> tuple[Outcome, int]:
        """An attack on the images at these places, in their order, from where a stopped run left it, until the time or
        the patience is up; and how many images are spared. keep: hold its examples, where there is room for them."""
        outcome, made = self.ledger.begun(asked.slug, asked.question(on)), [self.images[:0]]
        count, known = len(places), self.paces.get(asked.kind)
        held = keep and not outcome.tried and count * self.images[0].numel() <= _HELD
        todo, pace = places[~outcome.attempted[places]], Pace(self.probe, asked.attack.cost, known)
        most = min(self.setting.batch_size, patience or self.setting.batch_size)
        title = f"{self.subject.key}, {asked.label}"
        title += f" ({minutes(self.remaining())} left)" if math.isfinite(self.until) else ""
        with self.progress.count(title) as shown:
            while len(todo) and not out_of_patience(outcome, places, patience):
                at = todo[: pace.next(min(len(todo), most), self.remaining())]
                try:
                    if not len(at):
                        break
                    part = self._batch(asked, model, at)
                except TimeUp:
                    break
                outcome, todo = outcome.then(at, part), todo[len(at) :]
                pace.took(part.seconds, len(at))
                self.paces[asked.kind] = max(pace.slower, 1.0)
                made += [part.adversarial] if held and part.adversarial is not None else []
                if len(todo):
                    self.ledger.keep(asked.slug, outcome)
                    self.clock.save()
                shown(count - len(todo), count)
        spared = len(todo) if out_of_patience(outcome, places, patience) else 0
        outcome.complete = len(todo) == spared
        outcome.adversarial = torch.cat(made) if held else None
        return outcome, spared

    def _batch(self, asked: Attempt, network: nn.Module, at: NDArray[np.int64]) -> Outcome:
        """Of the images at these places alone."""
        started, threat = time.monotonic(), asked.threat
        rows = torch.from_numpy(at).to(self.images.device)
        x, y, index = self.images[rows], self.labels[rows], self.index[rows]
        draws = drawing(True, self.setting.seed, asked.slug, int(at[0]))
        with seen_through(network, asked.route, x) as seen, draws:
            result = asked.attack.run(seen, x, y, index=index, seed=self.setting.seed)
        fills_up = self.probe.batch(Cost(1), self.subject.batch_size - len(x))
        judged = self.subject.judge(result.images, y, few=fills_up > _PADDING * self.remaining())
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
