"""The scores: accuracy with its interval, Relative Confidence and Relative Confidence Diminution (RCD, eq 5), and those
of a detector. Per image, in float64 and in log space, so that a confident prediction neither under- nor overflows."""

import math

import torch
from torch import Tensor

from shconv.arguments import checked
from shconv.errors import InputError
from shconv.intervals import Z, wilson

_RELATIVE_SD_FLOOR = 1e-12


@checked
def accuracy_interval(correct: int, n: int, z: float = Z) -> tuple[float, float]:
    """The Wilson score interval of correct / n, 95 % by default: (low, high) in [0, 1]. n = 0 gives (0, 1)."""
    if not 0 <= correct <= n:
        raise InputError(f"correct must lie in 0..n, got correct={correct}, n={n}")
    return wilson(correct, n, z)


@checked
def answered(logits: Tensor) -> Tensor:
    """bool (N,): whether logits (N, K) give a probability to every class: no NaN, and no infinity but minus infinity of
    classes that are ruled out. Other images are wrong, though argmax finds a class."""
    return logits.amax(1).isfinite()


@checked
def is_right(logits: Tensor, labels: Tensor) -> Tensor:
    """bool (N,) of logits (N, K) and classes (N,): never where they are no answer."""
    right: Tensor = (logits.argmax(1) == labels) & answered(logits)
    return right


@checked
def relative_confidence(logits: Tensor, labels: Tensor) -> Tensor:
    """RC = ln(p_y / SD of the other classes' probabilities), natural logarithm, population SD (eq 5).

    Args:
        logits: (N, K), K at least 3. labels: true classes (N,).

    Returns:
        float64 (N,). Where all other probabilities are equal the SD is 0; it is floored at 1e-12 of the largest
        of them, see relative_confidence_floored.

    Raises:
        InputError: fewer than 3 classes, wrong shapes, labels out of range, logits not finite.
    """
    log_p_y, log_largest, relative_sd = _parts(logits, labels)
    return log_p_y - log_largest - relative_sd.clamp(min=_RELATIVE_SD_FLOOR).log()


@checked
def relative_confidence_floored(logits: Tensor, labels: Tensor) -> Tensor:
    """True (N,) for the images whose SD was floored: their relative confidence is a bound, not a measurement."""
    return _parts(logits, labels)[2] < _RELATIVE_SD_FLOOR


@checked
def rcd(clean_logits: Tensor, adversarial_logits: Tensor, labels: Tensor) -> Tensor:
    """RCD = RC(clean) - RC(adversarial), float64 (N,): positive means damage (the sign printed in eq 5 is reversed).

    It measures confidence and can improve while accuracy falls: never the only robustness number.
    """
    if clean_logits.shape != adversarial_logits.shape:
        raise InputError(
            f"wanted logits of one shape, got clean {tuple(clean_logits.shape)} and "
            f"adversarial {tuple(adversarial_logits.shape)}"
        )
    return relative_confidence(clean_logits, labels) - relative_confidence(adversarial_logits, labels)


@checked
def detection_auc(clean: Tensor, attacked: Tensor) -> float:
    """The area under the ROC curve of a detector: how often an attacked image's score (M,) is above a clean one's (N,),
    ties counted half. 1 is a detector without a mistake, 0.5 one that guesses."""
    for name, scores in (("clean", clean), ("attacked", attacked)):
        _check_scores(name, scores)
    ranked = clean.double().sort().values
    below = torch.searchsorted(ranked, attacked.double())
    ties = torch.searchsorted(ranked, attacked.double(), right=True) - below
    return float((below + ties / 2).double().mean() / len(clean))


@checked
def alarm_threshold(clean: Tensor, false_alarms: float = 0.05) -> float:
    """The lowest score that at most this share of clean images' scores (N,) lie above."""
    _check_scores("clean", clean)
    if not 0 <= false_alarms < 1:
        raise InputError(f"false_alarms must be at least 0 and below 1, got {false_alarms}")
    return float(clean.double().sort(descending=True).values[math.floor(false_alarms * len(clean))])


def _check_scores(name: str, scores: Tensor) -> None:
    if scores.dim() != 1 or not len(scores) or not torch.isfinite(scores).all():
        raise InputError(f"{name}: wanted finite scores (N,), at least one, got shape {tuple(scores.shape)}")


def _parts(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """ln p_y, ln of the largest other probability, and the others' SD relative to that largest one."""
    if logits.dim() != 2 or labels.shape != logits.shape[:1]:
        raise InputError(f"wanted logits (N, K) and labels (N,), got {tuple(logits.shape)} and {tuple(labels.shape)}")
    if logits.shape[1] < 3:
        raise InputError(f"relative confidence needs at least 3 classes, got {logits.shape[1]}")
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise InputError(f"labels must be integers, got {labels.dtype}")
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < logits.shape[1]:
        raise InputError(f"labels must lie in 0..{logits.shape[1] - 1}, got {int(labels.min())} to {int(labels.max())}")
    if not torch.isfinite(logits).all():
        raise InputError("logits must be finite, got NaN or infinity")
    log_p = logits.double().log_softmax(dim=1)
    is_label = torch.zeros_like(log_p, dtype=torch.bool).scatter_(1, labels[:, None].long(), True)
    log_others = log_p[~is_label].view(len(log_p), log_p.shape[1] - 1)  # (N, K - 1)
    log_largest = log_others.amax(dim=1)
    relative = (log_others - log_largest[:, None]).exp()
    relative_sd = (relative - relative.mean(1, keepdim=True)).square().mean(1).sqrt()  # population SD
    return log_p[is_label], log_largest, relative_sd
