"""Views of networks without a gradient: what they compute is the network's own, and their gradient is the true one
of what lies behind the part that has none."""

from collections.abc import Callable

import pytest
import torch
from check_toys import CLASSES, EPS, Honest, Masked, blind, saturated, toy_images
from torch import Tensor, nn

from shconv.attacks import PGD
from shconv.audit.subject import Subject
from shconv.audit.views import INNER_LOGITS, STRAIGHT_THROUGH, View, look, view_of

LEVELS = 15


def on_levels(x: Tensor) -> Tensor:
    return (x * LEVELS).round() / LEVELS


class Before(nn.Module):
    """Does something to the image, then asks the classifier."""

    def __init__(self, change: Callable[[Tensor], Tensor], network: nn.Module | None = None) -> None:
        super().__init__()
        self.change, self.network = change, Honest() if network is None else network

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.network(self.change(x))
        return logits


@torch.no_grad()
def without_grad(x: Tensor) -> Tensor:
    return x + 0


def through_numpy(x: Tensor) -> Tensor:
    return torch.from_numpy((x.detach().numpy() * LEVELS).round() / LEVELS).to(x)


class Steps(nn.Module):
    """Two layers, each with a step function before it."""

    def __init__(self) -> None:
        super().__init__()
        self.network = Honest()

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.network.features(on_levels(x - 0.5).flatten(1))
        logits: Tensor = self.network.fc((hidden * 50).round() / 50)
        return logits


class Adapted(nn.Module):
    """It moves the image by a gradient of its own before it answers."""

    def __init__(self) -> None:
        super().__init__()
        self.network = Honest()

    def forward(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            own = x.detach().clone().requires_grad_()
            (slope,) = torch.autograd.grad(self.network(own).amax(1).sum(), own)
        logits: Tensor = self.network((own + 0.01 * slope.sign()).detach())
        return logits


class Thermometer(nn.Module):
    """Each value as eight bits: above 1/8, above 2/8 ..."""

    def __init__(self, inner: bool) -> None:
        super().__init__()
        self.inner, self.network = inner, Honest()
        self.sum = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        levels = (torch.arange(8) + 0.5) / 8
        bits = (x[:, :, None] > levels[:, None, None]).float()
        code = self.sum(bits.flatten(1, 2) if self.inner else bits.transpose(1, 2).flatten(1, 2))
        shape = (3, 8) if self.inner else (8, 3)
        logits: Tensor = self.network(code.unflatten(1, shape).mean(2 if self.inner else 1))
        return logits


class Saturated(nn.Module):
    """softmax(1000 z)"""

    def __init__(self) -> None:
        super().__init__()
        self.network = Honest(scale=100.0)

    def forward(self, x: Tensor) -> Tensor:
        return torch.softmax(1000 * self.network(x), 1)


def seen(network: nn.Module) -> tuple[Subject, View | None]:
    x, y = toy_images()
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    subject = Subject("toy", network.eval(), x, y)
    sight = look(subject, x, y, EPS)
    return subject, view_of(subject, x, y, EPS, sight)


HIDDEN = {
    "rounding": lambda: Before(on_levels),
    "rounding without gradients": lambda: Before(torch.no_grad()(on_levels)),
    "numpy": lambda: Before(through_numpy),
    "detached": lambda: Before(Tensor.detach),
    "a function without a backward": blind,
    "steps in every layer": Steps,
    "an image moved by the network itself": Adapted,
    "thermometer, levels inside": lambda: Thermometer(True),
    "thermometer, levels outside": lambda: Thermometer(False),
}


@pytest.mark.parametrize("case", HIDDEN)
def test_an_identity_backward_gives_the_gradient_of_what_lies_behind(case: str) -> None:
    subject, view = seen(HIDDEN[case]())
    assert view is not None
    assert view.route == STRAIGHT_THROUGH
    assert "put the identity there" in view.said
    x, y = toy_images()
    x = x.requires_grad_()
    logits = view.model(x)
    assert torch.equal(logits, subject.model(x))
    told, wanted = (torch.autograd.grad(each.gather(1, y[:, None]).sum(), x)[0] for each in (logits, Honest()(x)))
    cosine = nn.functional.cosine_similarity(told.flatten(1), wanted.flatten(1))
    assert float(cosine.min()) > 0.99


class Off(nn.Module):
    """Turns gradients off around all that it does."""

    def __init__(self) -> None:
        super().__init__()
        self.network = Honest()

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.network(without_grad(x))
        return logits


@pytest.mark.parametrize("network", [Off(), Before(without_grad)])
def test_where_gradients_are_turned_off_they_stay_on(network: nn.Module) -> None:
    subject, view = seen(network)
    assert (view, subject.turned_on) == (None, True)
    x, y = toy_images()
    x = x.requires_grad_()
    logits = subject.model(x)
    assert torch.equal(logits, network(x))
    told, wanted = (torch.autograd.grad(each.gather(1, y[:, None]).sum(), x)[0] for each in (logits, Honest()(x)))
    assert torch.equal(told, wanted)
    with torch.no_grad():
        assert not subject.model(x).requires_grad
    assert torch.is_grad_enabled()


def test_behind_a_saturated_softmax_the_logits_are_seen() -> None:
    subject, view = seen(Saturated())
    assert view is not None
    assert (view.route, subject.probabilities) == (INNER_LOGITS, True)
    x, _ = toy_images()
    assert torch.equal(view.model(x), Honest(scale=100.0)(x))
    assert torch.equal(view.model(x).argmax(1), subject.model(x).argmax(1))


def test_logits_too_large_for_their_dtype_are_seen_before_they_tie_at_infinity() -> None:
    class Overflowing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = Honest()

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = (3e4 * self.network(x)).half()
            return logits

    subject, view = seen(Overflowing())
    x, _ = toy_images()
    assert ((subject.model(x) == subject.model(x).amax(1, keepdim=True)).sum(1) > 1).any()
    assert view is not None
    assert torch.equal(view.model(x), Honest()(x))


class Vote(nn.Module):
    def __init__(self, *members: nn.Module) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, x: Tensor) -> Tensor:
        return sum(nn.functional.one_hot(member(x).argmax(1), CLASSES) for member in self.members) / len(self.members)


def test_of_networks_that_vote_one_that_agrees_with_most_is_seen() -> None:
    _, view = seen(Vote(Honest(), Honest(), Honest(-5.0)))
    assert view is not None
    assert torch.equal(view.model(toy_images()[0]), Honest()(toy_images()[0]))


class OfOneChannel(Honest):
    def __init__(self, channel: int) -> None:
        super().__init__()
        self.kept = (torch.arange(3) == channel).float()[:, None, None]

    def see(self, x: Tensor) -> Tensor:
        return x * self.kept


def test_where_many_vote_attacks_go_on_until_most_are_wrong() -> None:
    subject, view = seen(Vote(*map(OfOneChannel, range(3))))
    x, y = toy_images()
    weak = subject.model(x).argmax(1) == y
    weak &= (x - 0.5).abs().amax((1, 2, 3)) < EPS
    assert view is not None
    attacked = PGD(EPS, until_broken=True)(view.model, x, y)
    assert weak.sum() >= 10
    assert not (subject.model(attacked).argmax(1) == y)[weak].any()
    assert torch.equal(view.model(attacked).argmax(1), subject.model(attacked).argmax(1))


def test_what_stored_images_vote_for_is_seen_as_distance_from_their_classes() -> None:
    class Nearest(nn.Module):
        """The class of the nearest of some stored images, by the features of a network."""

        def __init__(self) -> None:
            super().__init__()
            self.features = Honest().features
            images, self.classes = toy_images(20, (0.3, 0.4))
            self.stored = self.features((images - 0.5).flatten(1)).detach()

        def forward(self, x: Tensor) -> Tensor:
            away = torch.cdist(self.features((x - 0.5).flatten(1)), self.stored)
            return nn.functional.one_hot(self.classes[away.argmin(1)], CLASSES).float()

    subject, view = seen(Nearest())
    x, y = toy_images()
    assert view is not None
    assert "how near the output of features is to each class's mean" in view.said
    attacked = PGD(EPS, until_broken=True)(view.model, x, y)
    weak = (x - 0.5).abs().amax((1, 2, 3)) < EPS
    assert not (subject.model(attacked).argmax(1) == y)[weak].any()


@pytest.mark.parametrize("misled", [True, False])
def test_inner_logits_are_seen_too_where_they_show_more_than_the_answer(misled: bool) -> None:
    class Twice(nn.Module):
        """It answers by two networks; the gradient of one of them may point the wrong way."""

        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = OfOneChannel(0), Masked(lambda x: (1 - 2 * misled) * torch.ones_like(x))

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.first(x) + self.second(x)
            return logits

    _, view = seen(Twice())
    assert (view is not None) == misled
    assert view is None or (view.route, "its own gradient shows less" in view.said) == (INNER_LOGITS, True)


@pytest.mark.parametrize("network", [Honest(), saturated(), nn.Sequential(nn.Flatten(), nn.Linear(108, CLASSES))])
def test_a_network_whose_margin_has_a_gradient_needs_no_view(network: nn.Module) -> None:
    assert seen(network)[1] is None


def test_what_no_identity_mends_has_no_view() -> None:
    class Pooled(nn.Module):
        """What is without a gradient has another number of values."""

        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(5, CLASSES)

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.fc(x.flatten(1)[:, :5].round())
            return logits

    assert seen(Pooled())[1] is None


def test_a_look_counts_where_gradients_are_zero() -> None:
    x, y = toy_images()
    counts = []
    for network in (Honest(), saturated(), blind()):
        sight = look(Subject("toy", network.eval(), x, y), x, y, EPS)
        counts.append((sight.clean, sight.margin, sight.blind))
    assert counts == [(0, 0, False), (40, 0, False), (40, 40, True)]


def test_hooks_are_gone_after_a_pass() -> None:
    subject, view = seen(Before(on_levels))
    assert view is not None
    view.model(toy_images()[0])
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in subject.network.modules())
