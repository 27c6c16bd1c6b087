"""What is odd about a network before any attack, each in a sentence: its mode, its outputs, the range it expects,
its gradient."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from shconv.attacks.checks import check_inputs
from shconv.audit.findings import Flags
from shconv.audit.subject import PASSES, Judged, Subject
from shconv.audit.views import Sight, look
from shconv.errors import InputError
from shconv.intervals import wilson
from shconv.paired import Paired, mcnemar

LEAST_IMAGES = 10
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_CIFAR10 = ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
_CLEAR = 0.001  # McNemar's p below which another range is said to fit better


def training_parts(network: nn.Module) -> list[str]:
    """The modules that are in training mode, as "1 Dropout, 3 BatchNorm2d" kinds; to be asked before eval()."""
    kinds = [type(part).__name__ for part in network.modules() if part.training]
    return [f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds)]


def check_images(images: Tensor, labels: Tensor, wanted: int | None = None) -> tuple[Tensor, Tensor]:
    """Copies of the images in [0, 1] and their labels. Raises InputError for anything else, or for too few."""
    images, labels, _ = check_inputs(images, labels, None, 0)
    n = min(len(images), len(images) if wanted is None else wanted)
    if n < LEAST_IMAGES:
        raise InputError(f"images: got {n}; want at least {LEAST_IMAGES}, better some hundreds")
    return images.float(), labels


def preflight(
    subject: Subject,
    images: Tensor,
    labels: Tensor,
    judged: Judged | None = None,
    sight: Sight | None = None,
    most: int | None = None,
) -> list[str]:
    """Sentences on a network as images (N, C, H, W) in [0, 1] and labels (N,) show it.

    judged, sight: what is known of it, else found out. most: images that are tried in other ranges, for lack of time.
    """
    judged = subject.judge(images, labels) if judged is None else judged
    n = min(len(images), subject.batch_size)
    sight = look(subject, images[:n], labels[:n], 0.0) if sight is None else sight
    said = [*_as_it_is(subject, images, judged), *_range(subject, images, labels, judged.right, most)]
    return [f"{subject.name} {sentence}" for sentence in said] + list(_gradient(subject.name, sight))


def spread(n: int, most: int | None) -> slice:
    """At most so many of n images, spread evenly: they may lie class by class."""
    return slice(None, None, 1 if most is None else max(1, -(-n // most)))


def _as_it_is(subject: Subject, images: Tensor, judged: Judged) -> Iterator[str]:
    """What follows the network's name."""
    if subject.training:
        yield (
            f"was in training mode ({', '.join(subject.training)}). It is audited in eval mode: batch norm with its "
            "stored statistics, dropout off."
        )
    if subject.turned_on:
        yield "turns gradients off, as by torch.no_grad. Here they stay on: attacks follow its gradient as it would be."
    if subject.has_detector:
        yield (
            f"has a detector, which rejects {int(subject.rejects(images).sum())} of {len(images)} clean images. The "
            "checks and the worst cases are about its classifier, as if nothing were rejected. One more worst case is "
            "past the detector: there an image is lost if it is rejected when clean, or if an attack fools the "
            "classifier and the detector accepts the example."
        )
    if subject.probabilities:
        yield (
            "returns probabilities, not logits. Attacks get their logarithms; where float32 has rounded a probability "
            "to 0 or 1 their gradient is lost."
        )
    if subject.is_random:
        yield (
            "is random: two passes over the same images differ in eval mode. It is judged and attacked by the mean of "
            f"its logits over {PASSES} passes (expectation over transformation, Athalye et al. 2018), with the same "
            "numbers drawn every time; the accuracy of a single pass may be lower."
        )
    if subject.mixes:
        yield (
            "answers for an image by the other images of its batch too, as batch norm without stored statistics does. "
            "Attacks and judgement see an image in different batches, so the accuracies may be too low or too high."
        )
    if nan := int(judged.nan.sum()):
        yield f"returns NaN or infinity on {nan} of {len(judged.nan)} clean images: they count as misclassified."


def _range(subject: Subject, images: Tensor, labels: Tensor, right: Flags, most: int | None) -> Iterator[str]:
    """Is it right clearly more often on images in another range than [0, 1]? Else, is it better than guessing?

    right (N,): on the images as they are. Other ranges are tried on `most` of them.
    """
    part = spread(len(images), most)
    given = right[part]
    n, most_right, words = len(given), int(given.sum()), ""
    ranges = _ranges(images[part]) if mcnemar(n - most_right, 0) < _CLEAR else {}  # else none could do clearly better
    for candidate, x in ranges.items():
        there = subject.judge(x, labels[part], few=True).right
        if there.sum() > most_right and Paired.of(there, given).p < _CLEAR:
            most_right, words = int(there.sum()), candidate
    if words:
        yield (
            f"classifies {given.mean():.1%} of {n} images in [0, 1] correctly, and {most_right / n:.1%} of them "
            f"{words}: it seems to expect normalised images. Put that step inside the network and audit again; the "
            "numbers below are about the network as given."
        )
    elif wilson(int(right.sum()), len(right))[0] <= 1 / subject.classes:
        yield (
            f"classifies {right.mean():.1%} of {len(right)} clean images correctly, no better than guessing among "
            f"{subject.classes} classes: are these its images and classes, in [0, 1]?"
        )


def _ranges(images: Tensor) -> dict[str, Tensor]:
    ranges = {"in [0, 255]": 255 * images, "in [-1, 1]": 2 * images - 1}
    if images.shape[1] == 3:
        for name, constants in {"ImageNet": _IMAGENET, "CIFAR-10": _CIFAR10}.items():
            mean, std = (torch.tensor(values).to(images).view(-1, 1, 1) for values in constants)
            ranges[f"after (x - mean) / std with {name}'s constants"] = (images - mean) / std
    return ranges


def _gradient(name: str, sight: Sight) -> Iterator[str]:
    """On how many images of the first batch is the cross-entropy's gradient exactly zero?"""
    if sight.clean and sight.blind:
        yield (
            f"The gradient of {name} is exactly 0 on {sight.margin} of {sight.n} images, for any loss"
            f"{', as under torch.no_grad or after detach(): no graph leads from the answer to the image' * sight.cut}. "
            "Gradient attacks cannot work there. The gradient checks use only a few images; the time goes to attacks "
            "without gradients."
        )
    elif sight.clean:
        yield (
            f"The cross-entropy's gradient of {name} is exactly 0 on {sight.clean} of {sight.n} clean images: attacks "
            "with that gradient cannot work there."
        )
