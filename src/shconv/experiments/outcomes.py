"""What became of every image under an attack, judged by a fresh forward pass, and the row that sums it up."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from shconv.metrics import accuracy_interval, relative_confidence, relative_confidence_floored

Floats = NDArray[np.float64]
KINDS: dict[str, Any] = {"index": np.int64, "queries": np.int64, "correct": bool, "floored": bool}  # else float64


@dataclass(frozen=True, eq=False)
class Outcomes:
    """n images; `seconds` is the time that attack and judgement took, summed over the processes that shared them."""

    index: NDArray[np.int64]  # (n,), each image's place in the test split
    correct: NDArray[np.bool_]  # (n,)
    p_y: Floats  # (n,)
    rc: Floats  # (n,), relative confidence
    floored: NDArray[np.bool_]  # (n,), where rc is a bound
    linf: Floats  # (n,), distance from the clean image
    l2: Floats
    queries: NDArray[np.int64]  # (n,), forward passes that the attack spent
    seconds: float

    @classmethod
    def of(cls, columns: Mapping[str, NDArray[Any]], seconds: float) -> "Outcomes":
        """From columns by name, further ones left out; no column at all gives n = 0."""
        names = [name for name in cls.__dataclass_fields__ if name != "seconds"]
        kept = {name: np.asarray(columns.get(name, ()), KINDS.get(name, np.float64)) for name in names}
        return cls(**kept, seconds=seconds)

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {name: value for name, value in vars(self).items() if name != "seconds"}

    def at(self, index: NDArray[np.int64]) -> "Outcomes":
        """The outcomes of these images, in this order; every one must be here."""
        order = np.argsort(self.index)
        places = order[np.searchsorted(self.index, index, sorter=order)]
        return Outcomes(**{name: value[places] for name, value in self.arrays().items()}, seconds=self.seconds)


def judge(logits: Tensor, labels: Tensor) -> dict[str, NDArray[Any]]:
    """correct, p_y, rc and floored, each (n,), from the logits (n, K) of a fresh forward pass."""
    p_y = logits.double().softmax(1).gather(1, labels[:, None])[:, 0]
    judged = {
        "correct": logits.argmax(1) == labels,
        "p_y": p_y,
        "rc": relative_confidence(logits, labels),
        "floored": relative_confidence_floored(logits, labels),
    }
    return {name: value.cpu().numpy() for name, value in judged.items()}


def summary(outcomes: Outcomes, clean: Outcomes | None) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """A row's measured fields and its per-image arrays; RCD (eq 5) against the clean outcomes of the same images."""
    n, correct = len(outcomes.index), int(outcomes.correct.sum())
    fields: dict[str, Any] = {
        "n": n,
        "accuracy": correct / n if n else None,
        "interval": list(accuracy_interval(correct, n)),
        "rcd_mean": None,
        "rcd_median": None,
        "rcd_floored": None,
        "linf": _mean(outcomes.linf),
        "linf_max": float(outcomes.linf.max()) if n else None,
        "l2": _mean(outcomes.l2),
        "queries": _mean(outcomes.queries),
        "seconds": round(outcomes.seconds, 3),
    }
    arrays = outcomes.arrays()
    if clean is not None:
        before = clean.at(outcomes.index)
        rcd, floored = before.rc - outcomes.rc, before.floored | outcomes.floored
        median = float(np.median(rcd)) if n else None
        fields |= {"rcd_mean": _mean(rcd), "rcd_median": median, "rcd_floored": int(floored.sum())}
        arrays |= {"rcd": rcd, "floored": floored}
    return fields, arrays


def _mean(values: NDArray[Any]) -> float | None:
    return float(values.mean()) if len(values) else None
