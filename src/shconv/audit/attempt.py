"""One attack as an audit asks for it: under which name it is kept, through which route it sees the network, and what a
person reads when it has ended."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from shconv.attacks import Attack
from shconv.audit.findings import Flags, Outcome
from shconv.audit.ledger import file_slug, question
from shconv.audit.views import INNER_LOGITS, STRAIGHT_THROUGH
from shconv.errors import InputError
from shconv.experiments.network import routed
from shconv.routes import frozen_kernels, gradient_route


@dataclass(frozen=True, eq=False)
class Attempt:
    """`source` names another network, on which the examples are made."""

    label: str
    attack: Attack
    route: str
    threat: str
    source: str | None

    @property
    def own(self) -> bool:
        """On the network itself, through both routes: every network can meet it."""
        return self.route == "both" and self.source is None

    @property
    def slug(self) -> str:
        """Its name in files and rows."""
        usual = ((self.route, "both"), (self.threat, "linf"))
        parts = [self.label, *(part for part, unsaid in usual if part != unsaid)]
        return file_slug("-".join([*parts, *(("from", self.source) if self.source else ())]))

    @property
    def kind(self) -> str:
        """What takes about as long."""
        return f"{type(self.attack).__name__} {getattr(self.attack, 'norm', '')}"

    def question(self, on: Flags) -> str:
        """A digest of what is asked: no other attack, on no other images, has it."""
        return question(self.attack, on, self.route, self.threat, self.source, True, False)  # as folders know it


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


def out_of_patience(outcome: Outcome, places: NDArray[np.int64], patience: int) -> bool:
    """Whether the last of the images tried, in their order, all stand."""
    tried = places[outcome.attempted[places]]
    return 0 < patience <= len(tried) and not outcome.success[tried[-patience:]].any()


def line(row: Mapping[str, Any]) -> str:
    """What a person reads of an attack's row."""
    parts = [row["attack"], *([f"route {row['route']}"] if row["route"] != "both" else []), row["threat"]]
    cut = "" if row["complete"] else ", stopped early by the time budget"
    name = ", ".join([*parts, *([f"made on {row['source']}"] if row["source"] else [])])
    if not row["complete"] and not row["n"]:
        return f"{name}: no time was left for it"
    outside = f", {row['outside']} more lie outside the ball and do not count" if row["outside"] else ""
    spared = f", {row['spared']} further ones left out" if row["spared"] else ""
    return f"{name}: breaks {row['successes']} of {row['n']}{spared}{outside}  {row['seconds']:.1f} s{cut}"
