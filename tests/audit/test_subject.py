"""What a network is recognised as before it is attacked, and that it is given back as it was."""

import random
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from core_toys import EPS, Brightest, attacking, colour_images
from torch import Tensor, nn

from shconv import audit
from shconv.attacks import PGD
from shconv.attacks.base import borrowed
from shconv.audit.preflight import preflight, training_parts
from shconv.audit.subject import Subject
from shconv.errors import InputError
from shconv.models import DetectorNetwork, create_model
from tape import Tape


class Around(nn.Module):
    """A network with something done to its images or to its output."""

    def __init__(
        self,
        before: Callable[[Tensor], Tensor] = lambda x: x,
        after: Callable[[Tensor], Tensor] = lambda logits: logits,
        scale: float = 20.0,
    ) -> None:
        super().__init__()
        self.inside, self.before, self.after = Brightest(scale), before, after

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.inside(self.before(x)))


def said(network: nn.Module, n: int = 48) -> str:
    x, y = colour_images(n)
    training = training_parts(network)
    with borrowed(network):
        subject = Subject("Net", network, x, y, batch_size=16, training=training)
        return " ".join(preflight(subject, x, y))


def nan_where_bright(logits: Tensor) -> Tensor:
    return torch.where(logits.amax(1, keepdim=True) > 10, torch.nan, logits)


def noisy(x: Tensor) -> Tensor:
    return x + 0.3 * torch.rand_like(x)


class Lazy(nn.Module):
    """Dropout that does not listen to eval()."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(x, 0.3, training=True)


def expects_minus_one_to_one(x: Tensor) -> Tensor:
    """Images in [0, 1] all look bright in every channel to it."""
    return x.clamp_max(0.0) if float(x.min()) < 0 else torch.ones_like(x) * x.mean()


RECOGNISED = {
    "probabilities": (lambda: Around(after=lambda z: z.softmax(1)).eval(), "returns probabilities, not logits"),
    "training mode": (lambda: nn.Sequential(Brightest(), nn.Dropout(0.1)), r"1 Sequential, 1 Brightest, 1 Dropout"),
    "dropout alone": (
        lambda: nn.Sequential(Brightest(), nn.Dropout(0.1).train()).eval().append(nn.Dropout(0.1)),
        r"training mode \(1 Dropout\)",
    ),
    "dropout for ever": (lambda: nn.Sequential(Lazy(), Brightest()).eval(), "is random: two passes .* differ"),
    "random": (lambda: Around(before=noisy).eval(), "is random: two passes .* 8 passes"),
    "batch statistics": (
        lambda: Around(after=lambda z: (z - z.mean(0)) / (z.std(0) + 1e-3)).eval(),
        "answers for an image by the other images of its batch too",
    ),
    "NaN": (
        lambda: Around(after=nan_where_bright).eval(),
        r"NaN or infinity on \d+ of 48 clean images: they count as misclass",
    ),
    "normalised outside": (
        lambda: Around(before=lambda x: torch.where(x < 0, x, x * 0)).eval(),
        "seems to expect normalised images",
    ),
    "no gradient": (lambda: Around(before=Tensor.detach).eval(), "16 of 16 images, for any loss, as under torch.no_"),
    "zero gradient": (
        lambda: Around(before=lambda x: x.mul(255).round() / 255).eval(),
        r"16 of 16 images, for any loss\.",
    ),
    "saturated": (lambda: Around(scale=1e6).eval(), "exactly 0 on 16 of 16"),
    "other classes": (lambda: Around(after=lambda z: z.roll(1, 1)).eval(), "no better than guessing among 3 classes"),
}


@pytest.mark.parametrize("case", RECOGNISED)
def test_it_is_recognised_and_said(case: str) -> None:
    make, words = RECOGNISED[case]
    assert re.search(words, said(make())), said(make())


def test_of_a_detector_it_is_said_how_many_clean_images_it_rejects_and_what_the_worst_cases_count() -> None:
    network = DetectorNetwork(create_model("plain10", num_classes=3, stem="small", width=2)).eval()
    network.threshold.fill_(torch.inf)
    assert "Net has a detector, which rejects 0 of 48 clean images. The checks and the worst cases" in said(network)
    network.threshold.fill_(-torch.inf)
    assert "rejects 48 of 48 clean images" in said(network)


def test_nothing_is_said_of_an_ordinary_network() -> None:
    assert said(Brightest().eval()) == ""


def test_the_parts_in_training_mode_are_those_found_before_eval() -> None:
    network = nn.Sequential(nn.BatchNorm2d(3), nn.Dropout(), nn.Dropout()).eval()
    assert training_parts(network) == []
    network[1].train()
    network[2].train()
    assert training_parts(network) == ["2 Dropout"]


def test_probabilities_become_logits_with_the_same_softmax() -> None:
    x, y = colour_images()
    plain, soft = Brightest().eval(), Around(after=lambda z: z.softmax(1)).eval()
    subject = Subject("Net", soft, x, y)
    assert torch.allclose(subject.model(x).softmax(1), plain(x).softmax(1), atol=1e-6)
    gradients = []
    for model in (plain, subject.model):
        at = x.clone().requires_grad_()
        gradients.append(torch.autograd.grad(nn.functional.cross_entropy(model(at), y, reduction="sum"), at)[0])
    assert torch.allclose(gradients[0], gradients[1], atol=1e-5)


def test_nan_counts_as_misclassified_whatever_argmax_makes_of_it() -> None:
    x, y = colour_images()
    network = Around(after=nan_where_bright).eval()
    subject = Subject("Net", network, x, y)
    nan = network(x).isnan().any(1).numpy()
    judged = subject.judge(x, y)
    assert 0 < nan.sum() < len(y)
    assert (judged.nan == nan).all()
    assert not judged.right[nan].any()
    assert judged.right[~nan].all()
    assert (judged.p_y[nan] == 0).all()


def test_attacks_see_neither_nan_nor_infinity() -> None:
    x, y = colour_images()
    broken = Around(after=lambda z: torch.cat([z[:, :1] / 0, z[:, 1:2] * torch.nan, z[:, 2:]], 1)).eval()
    subject = Subject("Net", broken, x, y)
    at = x.clone().requires_grad_()
    logits = subject.model(at)
    assert logits.isfinite().all()
    assert torch.autograd.grad(logits.sum(), at)[0].isfinite().all()


def test_predictions_come_in_one_batch_shape_and_depend_on_no_neighbour() -> None:
    x, y = colour_images()
    shapes = []
    network = Around(before=lambda x: (shapes.append(len(x)), x)[1]).eval()
    subject = Subject("Net", network, x, y, batch_size=10)
    shapes.clear()
    p_y = Brightest()(x).softmax(1).gather(1, y[:, None])[:, 0]
    assert subject.judge(x, y).p_y == pytest.approx(p_y.tolist())
    assert shapes == [10, 10, 10]


def by_numpy(x: Tensor) -> Tensor:
    return x + 0.3 * torch.from_numpy(np.random.random(x.shape)).to(x)


def by_python(x: Tensor) -> Tensor:
    return x + 0.3 * random.random()


@pytest.mark.parametrize("before", [noisy, by_numpy, by_python])
def test_a_random_network_is_judged_alike_every_time_and_leaves_the_global_numbers_alone(before: Any) -> None:
    x, y = colour_images()
    subject = Subject("Net", Around(before=before).eval(), x, y)
    state = repr((torch.random.get_rng_state().tolist(), np.random.get_state()[1:], random.getstate()))
    first, second = subject.judge(x, y), subject.judge(x, y)
    assert subject.is_random
    assert (first.p_y == second.p_y).all()
    assert state == repr((torch.random.get_rng_state().tolist(), np.random.get_state()[1:], random.getstate()))


def test_a_random_network_s_gradient_is_that_of_its_mean_over_eight_passes() -> None:
    """Noise on the image shifts its gradient not at all; noise on the logits' scale averages."""
    x, y = colour_images(12)
    scales = []

    def scaled(z: Tensor) -> Tensor:
        scales.append(torch.rand(()))
        return z * scales[-1]

    subject = Subject("Net", Around(after=scaled).eval(), x, y)
    scales.clear()
    at = x.clone().requires_grad_()
    gradient = torch.autograd.grad(subject.model(at)[:, 0].sum(), at)[0]
    plain = x.clone().requires_grad_()
    wanted = torch.autograd.grad(Brightest()(plain)[:, 0].sum(), plain)[0] * torch.stack(scales).mean()
    assert len(scales) == 8
    assert torch.allclose(gradient, wanted, atol=1e-6)


def test_the_network_is_left_as_it_was_found() -> None:
    x, y = colour_images()
    network = nn.Sequential(Brightest(), nn.Dropout(0.1))
    network[1].eval()
    audit.run(network, (x, y), EPS, checks=[attacking(2, "step")], budget="full", progress=False)
    assert [part.training for part in network.modules()] == [True, True, False]
    assert all(p.requires_grad and p.grad is None for p in network.parameters())


REFUSED = {
    "no module": (lambda x: x, "want a torch.nn.Module"),
    "images of another size": (nn.Sequential(nn.Flatten(), nn.Linear(5, 3)), "cannot take images"),
    "too few logits": (Around(after=lambda z: z[:, :2]), "returns 2 logits; the data have class 2"),
    "no logits": (Around(after=lambda z: z.argmax(1)), "want float logits of shape"),
    "maps": (nn.Conv2d(3, 3, 1), "want float logits of shape"),
    "right on nothing": (Around(after=lambda z: -z), "classifies none of 24 images correctly"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_network_that_cannot_be_audited_is_refused(case: str) -> None:
    network, message = REFUSED[case]
    with pytest.raises(InputError, match=message):
        audit.run(network, colour_images(), EPS, checks=[], progress=False)  # type: ignore[arg-type]


def test_memory_that_runs_out_is_no_fault_of_the_images_and_a_large_batch_is_named() -> None:
    def most(n: int, error: Exception) -> nn.Module:
        def before(x: Tensor) -> Tensor:
            if len(x) > n:
                raise error
            return x

        return Around(before=before)

    for error, raised in ((RuntimeError("too many"), InputError), (torch.OutOfMemoryError("no room"), RuntimeError)):
        with pytest.raises(raised, match="in a batch of 24: too many" if raised is InputError else "^no room"):
            audit.run(most(16, error), colour_images(), EPS, checks=[], progress=False)


def test_what_was_odd_stands_in_the_report() -> None:
    report = audit.run(
        Around(after=lambda z: z.softmax(1)), colour_images(), EPS, checks=[attacking(2, "step")], progress=False
    )
    assert "returns probabilities" in report.verdict
    assert "was in training mode" in report.verdict


def test_nan_met_under_attack_is_said_and_counts() -> None:
    """NaN on every image that is darker than its clean self."""
    x, y = colour_images()
    dark = float(x.mean((1, 2, 3)).min()) - 1e-3

    def nan_when_dark(z: Tensor, x: Tensor) -> Tensor:
        return torch.where((x.mean((1, 2, 3)) < dark)[:, None], torch.nan, z)

    class Fragile(Brightest):
        def forward(self, x: Tensor) -> Tensor:
            return nan_when_dark(super().forward(x), x)

    from core_toys import ToyCheck

    from shconv.attacks.base import BatchAttack

    class Darker(BatchAttack):
        def perturb(self, model, x, y, index, seed):  # type: ignore[no-untyped-def]
            return (x - EPS).clamp_min(0), None, 0

    check = ToyCheck(2, "dark", lambda audit: audit.attack("darker", Darker()))
    report = audit.run(Fragile().eval(), (x, y), EPS, checks=[check], progress=False)
    nan = int(Fragile()((x - EPS).clamp_min(0)).isnan().any(1).sum())
    assert nan > 0
    assert f"NaN or infinity on {nan} attacked image" in report.verdict
    assert report.worst_case["linf"]["correct"] <= len(y) - nan
    assert np.isclose(report.worst_case["linf"]["accuracy"], report.worst_case["linf"]["correct"] / len(y))


def test_the_clock_is_asked_at_every_pass_of_an_attack_though_the_network_inside_is_replayed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tape, asked = Tape(), list[int]()
    monkeypatch.setattr("shconv.replaying.network._CUDA", tape)
    network = create_model("plain10", num_classes=3, stem="small", width=2).eval()
    x, y = colour_images(6)
    with borrowed(network):
        subject = Subject("Net", network, x, y)
        subject.model.watch = lambda: asked.append(1)
        result = PGD(0.1, steps=8).run(subject.model, x, y)
    assert tape.replayed > 8
    assert len(asked) == int(result.queries.max())
