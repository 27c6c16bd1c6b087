"""What became of every image under an attack, judged by a fresh forward pass, and the row that sums it up."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shconv.attacks.budget import Norm
from shconv.errors import InputError
from shconv.metrics import (
    accuracy_interval,
    alarm_threshold,
    answered,
    detection_auc,
    relative_confidence,
    relative_confidence_floored,
)

Floats = NDArray[np.float64]
FALSE_ALARMS = 0.05  # of clean images that a detector may reject
KINDS: dict[str, Any] = {
    **dict.fromkeys(("index", "queries", "prediction"), np.int64),
    **dict.fromkeys(("correct", "floored", "outside"), bool),
    "adversarial": np.float32,
}  # else float64
OPTIONAL = ("adversarial", "score")  # arrays that are there or are None
NO_ANSWER = -1  # in the place of a class
LATER = {  # columns that results of earlier versions, and those that others made, may lack
    **dict.fromkeys(("p_y", "rc", "linf", "l2"), np.nan),
    "prediction": NO_ANSWER,
    "outside": False,
    "floored": False,
    "queries": 0,
}


@dataclass(frozen=True, eq=False)
class Outcomes:
    """n images; `seconds` is the time that attack and judgement took, summed over the processes that shared them."""

    index: NDArray[np.int64]  # (n,), each image's place in the test split
    prediction: NDArray[np.int64]  # (n,), the class, -1 without an answer and in results that did not store it
    correct: NDArray[np.bool_]  # (n,)
    p_y: Floats  # (n,)
    rc: Floats  # (n,), relative confidence
    floored: NDArray[np.bool_]  # (n,), where rc is a bound
    linf: Floats  # (n,), distance from the clean image
    l2: Floats
    queries: NDArray[np.int64]  # (n,), forward passes that the attack spent
    outside: NDArray[np.bool_]  # (n,), where an attack's image broke its budget and the clean one stands for it
    seconds: float
    adversarial: NDArray[np.float32] | None = None  # (n, C, H, W), where they were to be kept
    score: Floats | None = None  # (n,), of the network's detector, where it has one: higher for an attacked image

    @classmethod
    def of(cls, columns: Mapping[str, NDArray[Any]], seconds: float) -> "Outcomes":
        """From columns by name, further ones left out; no column at all gives n = 0."""
        index = columns.get("index", ())
        known = {name: np.full(len(index), value) for name, value in LATER.items()} | dict(columns)
        names = [name for name in cls.__dataclass_fields__ if name != "seconds"]
        names = [name for name in names if name not in OPTIONAL or name in known]
        kept = {name: np.asarray(known.get(name, ()), KINDS.get(name, np.float64)) for name in names}
        return cls(**kept, seconds=seconds)

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {name: value for name, value in vars(self).items() if isinstance(value, np.ndarray)}

    def at(self, index: NDArray[np.int64]) -> "Outcomes":
        """The outcomes of these images, in this order. Raises InputError where one is not here."""
        if len(absent := np.setdiff1d(index, self.index)):
            raise InputError(f"outcomes are damaged: there are none of image {absent[0]}, which other rows are about")
        order = np.argsort(self.index)
        places = order[np.searchsorted(self.index, index, sorter=order)]
        return Outcomes(**{name: value[places] for name, value in self.arrays().items()}, seconds=self.seconds)

    def median_distance(self, norm: Norm) -> float | None:
        """To the nearest image that fools, for attacks that look for it: 0 where the network is wrong already, and no
        end where it stays right. None where that is half of the images or more."""
        reached = np.where(self.correct, np.inf, self.linf if norm == "linf" else self.l2)
        median = float(np.median(reached)) if len(reached) else np.inf
        return median if np.isfinite(median) else None


def judge(logits: Tensor, labels: Tensor) -> dict[str, NDArray[Any]]:
    """prediction, correct, p_y, rc and floored, each (n,), from the logits (n, K) of a fresh forward pass.

    An image without an answer (`metrics.answered`) is wrong: prediction -1, p_y 0.
    rc is NaN where there is no relative confidence: with two classes (eq 5 needs others to compare), or where a logit
    is not finite.
    """
    logits, labels = on_host(logits, labels)
    prediction = predicted(logits)
    p_y = logits.double().softmax(1).gather(1, labels[:, None])[:, 0].nan_to_num(0.0)
    judged = {"prediction": prediction, "correct": prediction == labels, "p_y": p_y}
    judged |= {"rc": torch.full_like(p_y, torch.nan), "floored": torch.zeros_like(prediction, dtype=torch.bool)}
    if logits.shape[1] > 2:
        whole = logits.isfinite().all(1)
        judged["rc"][whole] = relative_confidence(logits[whole], labels[whole])
        judged["floored"][whole] = relative_confidence_floored(logits[whole], labels[whole])
    return {name: value.numpy() for name, value in judged.items()}


def predicted(logits: Tensor) -> Tensor:
    """The class of each image (n,) by logits (n, K), -1 without an answer."""
    return torch.where(answered(logits), logits.argmax(1), NO_ANSWER)


def on_host(*tensors: Tensor) -> list[Tensor]:
    """The tensors on the CPU; a GPU is waited for once, not for each."""
    moved = [each.detach().to("cpu", non_blocking=each.is_cuda) for each in tensors]
    for device in {each.device for each in tensors if each.is_cuda}:
        torch.cuda.synchronize(device)
    return moved


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
        "linf": mean(outcomes.linf),
        "linf_max": float(outcomes.linf.max()) if n else None,
        "l2": mean(outcomes.l2),
        "queries": mean(outcomes.queries),
        "seconds": round(outcomes.seconds, 3),
    }
    if outcomes.outside.any():
        fields["outside"] = int(outcomes.outside.sum())
    if nan := int(((outcomes.prediction == NO_ANSWER) & (outcomes.p_y == 0)).sum()):
        fields["nan"] = nan
    arrays = outcomes.arrays()
    fields |= detected(outcomes, clean)
    if clean is not None:
        before = clean.at(outcomes.index)
        rcd, floored = before.rc - outcomes.rc, before.floored | outcomes.floored
        median = float(np.median(rcd)) if n and not np.isnan(rcd).any() else None
        fields |= {"rcd_mean": mean(rcd), "rcd_median": median, "rcd_floored": int(floored.sum())}
        arrays |= {"rcd": rcd, "floored": floored}
    return fields, arrays


def detected(outcomes: Outcomes, clean: Outcomes | None) -> dict[str, float]:
    """Of a network with a detector that rejects 5 % of its clean images. Clean images: the share that is right and not
    rejected. Attacked ones: the share that is right or rejected, and how well the detector tells them (AUC)."""
    reference = outcomes if clean is None else clean
    if outcomes.score is None or reference.score is None or not len(outcomes.index):
        return {}
    found = {"accuracy_rejecting": float(right_with_rejection(outcomes, clean).mean())}
    if clean is not None:
        found["detection_auc"] = detection_auc(torch.from_numpy(reference.score), torch.from_numpy(outcomes.score))
    return found


def right_with_rejection(outcomes: Outcomes, clean: Outcomes | None) -> NDArray[np.bool_]:
    """Bool (n,), as `detected` counts; for outcomes with scores."""
    reference = outcomes if clean is None else clean
    assert outcomes.score is not None
    assert reference.score is not None
    rejected = outcomes.score > alarm_threshold(torch.from_numpy(reference.score), FALSE_ALARMS)
    return outcomes.correct & ~rejected if clean is None else outcomes.correct | rejected


def mean(values: NDArray[Any]) -> float | None:
    return float(values.mean()) if len(values) and not np.isnan(values).any() else None
