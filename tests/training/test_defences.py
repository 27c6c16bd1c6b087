"""Defences: closed forms on linear networks, the batch statistics and gradients that crafting leaves behind."""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import shconv
from shconv.data.splits import MemorySplit
from shconv.errors import InputError
from shconv.models.detector import DetectorNetwork
from shconv.models.noise import NoiseNetwork
from shconv.training import DEFENCES, Defence, ModelConfig, create_defence, save_checkpoint
from shconv.training.defences import (
    FGSMRS,
    PGD,
    TRADES,
    Detector,
    Distillation,
    Ensemble,
    Goodfellow,
    NoiseModel,
    Plain,
    Source,
    Stability,
    Step,
)
from shconv.training.defences.base import ascend, ascent, crafting, step_generator
from shconv.training.defences.distillation import AtTemperature

EPS = 0.05
CLASSES = ("red", "green", "blue")


def step(number: int = 0, **settings: Any) -> Step:
    return Step(step_generator(0, 0, number, "cpu"), **settings)


def images(n: int = 6, low: float = 0.0, high: float = 1.0, side: int = 8) -> Tensor:
    return low + (high - low) * torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(1))


def linear(classes: int = 2, seed: int = 0, scale: float = 1.0) -> nn.Sequential:
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, classes))
    network[1].weight.data *= scale
    return network


def away_from(network: nn.Sequential, y: Tensor) -> Tensor:
    """Two classes: the sign, pixel by pixel, that raises the other class."""
    W = network[1].weight.data
    return (W[1 - y] - W[y]).sign().view(-1, 3, 8, 8)


def slim(name: str, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return shconv.create_model(name, num_classes=3, stem="small", width=4).train()


def source(network: nn.Module, classes: Sequence[str] = CLASSES, in_channels: int = 3) -> Source:
    config = ModelConfig("plain10", len(classes), in_channels)
    return Source(network.eval().requires_grad_(False), config, tuple(classes), 0, "")


def taught(name: str, model: str) -> tuple[nn.Module, Defence]:
    """A network in train mode and its defence, ready for a step."""
    if name == "noise-model":
        return NoiseNetwork(slim(model)).train(), one_of(name)
    if name != "detector":
        return slim(model), one_of(name)
    defence = Detector(EPS, steps=2, sources=(source(slim(model, seed=5)),))
    network = DetectorNetwork(slim(model))
    defence.begin(network)
    return network.train(), defence


def one_of(name: str) -> Defence:
    if name == "ensemble":
        return Ensemble((source(slim("plain10", seed=5)), source(slim("plain10_shc", seed=6))), EPS)
    if name == "distillation":
        return Distillation(sources=(source(slim("plain10", seed=5)),))
    return create_defence(name)


def trained_on(network: nn.Module, defence: Defence, x: Tensor, y: Tensor, lent: Step) -> tuple[Any, Tensor]:
    """What the defence returns, and the batch that its loss comes from."""
    seen: list[Tensor] = []
    hook = network.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach().clone()))
    try:
        return defence.loss(network, x, y, lent), seen[-1]
    finally:
        hook.remove()


# ---- the examples


def test_enough_steps_reach_the_corner_of_the_ball_that_a_linear_network_fears_most() -> None:
    network, x, y = linear(), images(low=0.2, high=0.8), torch.arange(6) % 2
    attacked = ascend(network, x, y, step(), eps=EPS, step_size=0.25, steps=8)  # 2 eps: from one side to the other
    torch.testing.assert_close(attacked, x + EPS * away_from(network, y))


def test_random_start_fgsm_is_one_step_from_a_uniform_start_put_back_into_the_ball() -> None:
    network, x, y = linear(), images(low=0.2, high=0.8), torch.arange(6) % 2
    _, attacked = trained_on(network, FGSMRS(EPS), x, y, step(7))
    start = torch.empty_like(x).uniform_(-EPS, EPS, generator=step(7).generator)
    torch.testing.assert_close(attacked - x, (start + 1.25 * EPS * away_from(network, y)).clamp(-EPS, EPS))


def test_without_steps_the_start_is_uniform_in_the_ball() -> None:
    x = torch.full((20, 3, 8, 8), 0.5)
    delta = ascend(linear(), x, torch.zeros(20, dtype=torch.int64), step(), eps=EPS, step_size=1, steps=0) - x
    deciles = torch.histc(delta, 10, -EPS, EPS) / delta.numel()
    torch.testing.assert_close(deciles, torch.full((10,), 0.1), rtol=0, atol=0.02)  # 4 standard deviations


@given(eps=st.floats(1e-3, 0.99), step_size=st.floats(0.01, 3), steps=st.integers(0, 3))
def test_examples_stay_in_the_ball_and_in_the_box(eps: float, step_size: float, steps: int) -> None:
    x = images(4).round(decimals=1)  # some on the edge of the box
    y = torch.arange(4) % 2
    attacked = ascend(linear(), x, y, step(), eps=eps, step_size=step_size, steps=steps)
    assert attacked.min() >= 0
    assert attacked.max() <= 1
    assert (attacked - x).abs().max() <= eps + 1e-6


@pytest.mark.parametrize("name", ["plain10", "plain10_shc"])
def test_the_ascent_has_the_sign_of_the_cross_entropys_gradient(name: str) -> None:
    network, x, y = slim(name).eval(), images(4), torch.tensor([0, 1, 2, 0])
    z = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(F.cross_entropy(network(z), y), z)
    clear = gradient.abs() > 1e-4 * gradient.abs().max()  # the rest is rounding
    assert clear.float().mean() > 0.9
    with crafting(network):
        assert torch.equal(ascent(network, x, y, step())[clear], gradient.sign()[clear])


def test_a_network_sure_of_itself_still_gives_a_direction() -> None:
    network, x = linear(scale=1e4), images()
    y = network(x).argmax(1)
    z = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(F.cross_entropy(network(z), y), z)
    assert (gradient == 0).any()  # the cross-entropy's has underflown
    assert torch.equal(ascent(network, x, y, step()), away_from(network, y))


# ---- what crafting leaves behind


@pytest.mark.parametrize("name", DEFENCES)
@pytest.mark.parametrize("model", ["plain10", "plain10_shc"])
def test_running_statistics_see_the_training_pass_alone(name: str, model: str) -> None:
    (network, defence), y = taught(name, model), torch.tensor([0, 1, 2, 0])
    twin = copy.deepcopy(network)
    _, batch = trained_on(network, defence, images(4), y, step())
    twin(batch)
    for (what, there), here in zip(network.named_buffers(), twin.buffers(), strict=True):
        assert torch.equal(there, here), what
    norms = [part for part in network.modules() if isinstance(part, nn.BatchNorm2d)]
    assert norms
    assert all(norm.num_batches_tracked == norm.training for norm in norms)  # a guarded classifier's are at rest


def test_examples_are_crafted_with_the_statistics_of_their_batch() -> None:
    network = nn.Sequential(nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(192, 3)).train()
    network[0].running_mean.fill_(1e6)
    x = images(4)
    with crafting(network):
        inside = network(x)
    assert torch.equal(inside, network(x))
    assert network[0].running_mean.min() < 1e6


@pytest.mark.parametrize("name", ["fgsm-rs", "pgd", "ensemble"])
@pytest.mark.parametrize("model", ["plain10", "plain10_shc"])
def test_the_gradient_is_that_of_the_cross_entropy_at_the_finished_examples(name: str, model: str) -> None:
    network, y = slim(model), torch.tensor([0, 1, 2, 0])
    twin = copy.deepcopy(network)
    result, batch = trained_on(network, one_of(name), images(4), y, step(label_smoothing=0.1))
    assert all(p.grad is None for p in network.parameters())
    result.loss.backward()
    loss = F.cross_entropy(twin(batch), y.repeat(len(batch) // 4), label_smoothing=0.1)
    loss.backward()
    torch.testing.assert_close(result.loss, loss)
    for (what, there), here in zip(network.named_parameters(), twin.parameters(), strict=True):
        assert there.grad is not None
        torch.testing.assert_close(there.grad, here.grad, msg=lambda m, what=what: f"{what}: {m}")


@pytest.mark.parametrize("raised", [None, KeyboardInterrupt])
def test_crafting_computes_no_gradient_of_parameters_and_gives_the_network_back(raised: type[BaseException]) -> None:
    network = slim("plain10_shc")
    next(network.parameters()).requires_grad_(False)  # the user's own choice
    before = [p.requires_grad for p in network.parameters()]
    try:
        with crafting(network):
            assert not any(p.requires_grad for p in network.parameters())
            if raised:
                raise raised
    except KeyboardInterrupt:
        pass
    assert [p.requires_grad for p in network.parameters()] == before
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms
    assert all(m.track_running_stats and m.training for m in norms)


def test_every_pass_is_made_in_the_trainings_precision() -> None:
    network, seen = slim("plain10"), []
    network.conv1.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    result = PGD(steps=2).loss(network, images(4), torch.arange(4) % 3, step(precision=torch.bfloat16))
    assert seen == [torch.bfloat16] * 3
    assert result.logits.dtype == result.loss.dtype == torch.float32


# ---- ensemble


def test_the_ensembles_batch_is_half_clean_and_half_a_step_away_from_the_drawn_networks_own_prediction() -> None:
    networks = [linear(seed=seed) for seed in range(3)]
    x, y = images(low=0.2, high=0.8), torch.arange(6) % 2
    wanted = [x + EPS * away_from(each, each(x).argmax(1)) for each in networks]
    defence = Ensemble(tuple(source(each, "ab") for each in networks[1:]), EPS)
    drawn = [0, 0, 0]
    for number in range(90):
        result, batch = trained_on(networks[0], defence, x, y, step(number))
        clean, attacked = batch.chunk(2)
        assert torch.equal(clean, x)
        drawn[[torch.allclose(attacked, each, atol=1e-6) for each in wanted].index(True)] += 1
        torch.testing.assert_close(result.attacked, networks[0](attacked))
        losses = [F.cross_entropy(networks[0](each), y) for each in (clean, attacked)]
        torch.testing.assert_close(result.loss, sum(losses) / 2)
    assert min(drawn) >= 15  # of 30 expected each: 3 standard deviations


def test_sources_come_from_checkpoints_and_say_which(tmp_path: Path) -> None:
    for seed, folder in ((1, "a"), (2, "b"), (1, "moved")):
        config = {"name": "plain10", "num_classes": 3, "stem": "small", "width": 4}
        about = {"model": config, "data": {"classes": CLASSES}, "seed": seed}
        save_checkpoint(tmp_path / folder, slim("plain10", seed), about)
    a, b, moved = (create_defence("ensemble", sources=[tmp_path / folder]).record() for folder in ("a", "b", "moved"))
    assert a == moved != b
    assert a is not None
    assert (a["name"], a["eps"]) == ("ensemble", 8 / 255)
    assert {key: a["sources"][0][key] for key in ("model", "seed")} == {"model": "plain10", "seed": 1}
    defence = create_defence("ensemble", sources=[tmp_path / "a"], eps=EPS)
    defence.check(ModelConfig("plain10", 3), CLASSES)
    before = torch.cat([t.flatten().float() for t in defence.sources[0].network.state_dict().values()])  # type: ignore[attr-defined]
    for number in range(6):
        defence.loss(slim("plain10_shc"), images(4), torch.arange(4) % 3, step(number)).loss.backward()
    network = defence.sources[0].network  # type: ignore[attr-defined]
    assert torch.equal(before, torch.cat([t.flatten().float() for t in network.state_dict().values()]))
    assert not network.training
    assert all(p.grad is None for p in network.parameters())


# ---- goodfellow


def test_goodfellow_weighs_the_clean_loss_with_alpha_and_that_of_one_step_with_the_rest() -> None:
    network, x, y = linear(), images(low=0.2, high=0.8), torch.arange(6) % 2
    result, batch = trained_on(network, Goodfellow(0.3, EPS), x, y, step(label_smoothing=0.1))
    attacked = x + EPS * away_from(network, y)
    torch.testing.assert_close(batch, torch.cat([x, attacked]))
    clean, fooled = (F.cross_entropy(network(each), y, label_smoothing=0.1) for each in (x, attacked))
    torch.testing.assert_close(result.loss, 0.3 * clean + 0.7 * fooled)
    torch.testing.assert_close(result.logits, network(x))
    torch.testing.assert_close(result.attacked, network(attacked))


@pytest.mark.parametrize(("alpha", "place"), [(1.0, 0), (0.0, 1)])
def test_goodfellows_alpha_reaches_from_the_clean_images_alone_to_the_attacked_alone(alpha: float, place: int) -> None:
    network, y = linear(), torch.arange(6) % 2
    result, batch = trained_on(network, Goodfellow(alpha, EPS), images(), y, step())
    torch.testing.assert_close(result.loss, F.cross_entropy(network(batch.chunk(2)[place]), y))


# ---- trades


def test_trades_adds_beta_times_the_divergence_at_the_attacked_image() -> None:
    network, x, y = slim("plain10").eval(), images(4), torch.tensor([0, 1, 2, 0])
    result, batch = trained_on(network, TRADES(EPS, beta=2.5, steps=3), x, y, step(label_smoothing=0.1))
    clean, attacked = batch.chunk(2)
    assert torch.equal(clean, x)
    assert 0 < (attacked - x).abs().max() <= EPS + 1e-6
    P, Q = (network(each).double().softmax(1) for each in (clean, attacked))
    divergence = (P * (P / Q).log()).sum(1).mean()
    wanted = F.cross_entropy(network(x), y, label_smoothing=0.1).double() + 2.5 * divergence
    torch.testing.assert_close(result.loss.double(), wanted, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(result.attacked, network(attacked))


@pytest.mark.parametrize("scale", [1.0, 300.0])
def test_trades_goes_to_a_corner_where_a_linear_networks_outputs_differ_most(scale: float) -> None:
    """Of two classes: along the difference of the rows, to the side that the noise began on; also where it is sure."""
    network, x = linear(scale=scale), images(low=0.2, high=0.8)
    _, batch = trained_on(network, TRADES(EPS, step_size=0.25, steps=9), x, torch.zeros(6, dtype=torch.int64), step())
    side = (network(x + step().normal(x, 0.001)) - network(x)).double() @ torch.tensor([-1.0, 1.0]).double()
    towards = side.sign()[:, None, None, None] * away_from(network, torch.zeros(6, dtype=torch.int64))
    torch.testing.assert_close(batch.chunk(2)[1], (x + EPS * towards).float())


def test_trades_attack_asks_no_label() -> None:
    network, x = slim("plain10_shc"), images(4)
    batches = [trained_on(network, TRADES(steps=2), x, torch.full((4,), label), step())[1] for label in (0, 2)]
    assert torch.equal(*batches)


# ---- distillation


def test_distillation_is_the_cross_entropy_of_both_softened_outputs() -> None:
    student, teacher, x = linear(3), linear(3, seed=7, scale=20), images()
    defence, y = Distillation(5.0, (source(teacher),)), torch.arange(6) % 3
    result, batch = trained_on(student, defence, x, y, step(label_smoothing=0.1))
    P, Q = ((network(x).double() / 5).softmax(1) for network in (teacher, student))
    torch.testing.assert_close(result.loss.double(), -5 * (P * Q.log()).sum(1).mean(), rtol=1e-5, atol=1e-6)
    assert torch.equal(batch, x)
    torch.testing.assert_close(result.logits, student(x))  # at temperature 1
    other = defence.loss(student, x, 2 - y, step())
    assert torch.equal(other.loss, result.loss)  # labels say nothing


def test_no_student_is_better_than_one_that_says_what_its_teacher_says() -> None:
    teacher, x, y = linear(3, scale=20), images(), torch.zeros(6, dtype=torch.int64)
    defence = Distillation(5.0, (source(copy.deepcopy(teacher)),))
    teacher.requires_grad_(True)
    loss = defence.loss(teacher, x, y, step()).loss
    loss.backward()
    assert teacher[1].weight.grad is not None
    assert teacher[1].weight.grad.abs().max() < 1e-6
    P = (teacher(x) / 5).softmax(1)
    torch.testing.assert_close(loss, -5 * (P * P.log()).sum(1).mean())  # its entropy


def test_the_teacher_is_trained_at_the_temperature_and_from_other_weights() -> None:
    (name, (how, seed)), *others = Distillation(5.0).first(3).items()
    assert (name, others, how.record()) == ("teacher", [], {"name": "temperature", "temperature": 5.0})
    assert seed != 3
    network, x, y = linear(3), images(), torch.arange(6) % 3
    torch.testing.assert_close(how.loss(network, x, y, step()).loss, 5 * F.cross_entropy(network(x) / 5, y))
    assert isinstance(how, AtTemperature)
    assert Distillation(5.0, (source(linear()),)).first(3) == {}


# ---- detector


def guarded(defence: Detector, name: str = "plain10") -> DetectorNetwork:
    network = DetectorNetwork(slim(name), defence.layer)
    defence.begin(network)
    network.train()
    return network


def test_the_detector_learns_to_tell_the_attacked_half_of_its_batch() -> None:
    classifier, y = slim("plain10", seed=5), torch.tensor([0, 1, 2, 0])
    defence = Detector(EPS, steps=3, sources=(source(classifier),))
    network = guarded(defence)
    twin = copy.deepcopy(network)
    result, batch = trained_on(network, defence, images(4), y, step())
    clean, attacked = batch.chunk(2)
    assert torch.equal(clean, images(4))
    assert 0 < (attacked - clean).abs().max() <= EPS + 1e-6
    score = twin.both(batch)[1].double()
    torch.testing.assert_close(result.loss.double(), -torch.cat([(-score[:4]), score[4:]]).sigmoid().log().mean())
    torch.testing.assert_close(result.logits, classifier(clean))
    missed = (score[4:] <= 0) & (classifier(attacked).argmax(1) != y)
    assert result.attacked is not None
    assert torch.equal(result.attacked.argmax(1) != y, missed)


def test_only_the_detector_is_trained() -> None:
    defence = Detector(EPS, steps=1, sources=(source(slim("plain10_shc", seed=5)),))
    network = guarded(defence, "plain10_shc")
    defence.loss(network, images(4), torch.arange(4) % 3, step()).loss.backward()
    assert all(each.grad is None for each in network.network.parameters())
    assert all(each.grad is not None for each in network.detector.parameters())
    wanted = defence.sources[0].network.state_dict()
    assert all(torch.equal(each, wanted[name]) for name, each in network.network.state_dict().items())


class TwoSlopes(nn.Module):
    """Classifier and detector linear, so that the signs of their gradients are known."""

    def __init__(self) -> None:
        super().__init__()
        self.classifier, self.detector = linear(2, seed=1), linear(1, seed=2)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.classifier(x), self.detector(x)], 1)


def test_a_static_adversary_climbs_the_classifiers_loss_and_a_dynamic_one_a_drawn_mixture() -> None:
    network, x, y = TwoSlopes(), images(low=0.3, high=0.7), torch.arange(6) % 2
    fooling = away_from(network.classifier, y)
    hiding = -network.detector[1].weight.data.sign().view(-1, 3, 8, 8)
    shares = []
    for adversary in ("static", "dynamic"):
        defence = Detector(EPS, step_size=0.5, steps=1, adversary=adversary, sources=(source(linear()),))  # type: ignore[arg-type]
        moved = (trained_on(network, defence, x, y, step())[1].chunk(2)[1] - x) / (0.5 * EPS)
        share = (1 - moved[fooling != hiding.expand_as(fooling)] * fooling[fooling != hiding.expand_as(fooling)]) / 2
        shares.append(share)
        same = fooling == hiding.expand_as(fooling)
        torch.testing.assert_close(moved[same], fooling[same], rtol=0, atol=1e-5)
    assert shares[0].abs().max() < 1e-5
    assert shares[1].min() > -1e-5
    assert shares[1].max() < 1 + 1e-5
    assert 2 <= len(shares[1].mul(1e4).round().unique()) <= 2 * 6  # one draw an image, up to rounding


def test_after_an_epoch_the_threshold_rejects_one_training_image_in_twenty() -> None:
    split = MemorySplit((images(40) * 255).to(torch.uint8), torch.arange(40) % 3, [str(i) for i in range(40)])
    defence = Detector(sources=(source(slim("plain10", seed=5)),))
    network = guarded(defence).eval()
    defence.settle(network, split, seed=0)
    score = network.score(split.images.float() / 255)
    assert (score > network.threshold).sum() == 2
    assert (score >= network.threshold).sum() == 3


def test_a_classifier_of_another_kind_is_refused() -> None:
    defence = Detector(sources=(source(slim("plain10")),))
    with pytest.raises(InputError, match="guards the network that is asked for, plain10_shc of width 4; got plain10"):
        defence.check(ModelConfig("plain10_shc", 3, width=4), CLASSES)
    defence.check(replace(defence.sources[0].config), CLASSES)
    assert defence.around(ModelConfig("plain10", 3)) == ModelConfig("plain10", 3, wrapper="detector:layer2")
    assert list(Detector().first(4).items()) == [("classifier", (Plain(), 4))]
    assert defence.first(4) == {}


# ---- noise model


def test_the_noise_model_trains_the_mean_logits_and_stores_the_network_that_gives_them() -> None:
    defence, x, y = NoiseModel(0.2), images(4), torch.tensor([0, 1, 2, 0])
    config = defence.around(ModelConfig("plain10_shc", 3, stem="small", width=4))
    network = config.build().train()
    assert isinstance(network, NoiseNetwork)
    assert network.sigma == 0.2
    twin = copy.deepcopy(network)
    result = defence.loss(network, x, y, step(label_smoothing=0.1))
    logits = twin.moments(x).mean
    torch.testing.assert_close(result.loss, F.cross_entropy(logits, y, label_smoothing=0.1))
    assert torch.equal(result.logits, logits)
    assert result.attacked is None


# ---- stability


def test_stability_adds_alpha_times_the_divergence_of_the_two_outputs() -> None:
    network, x, y = linear(3), images(low=0.3, high=0.7), torch.arange(6) % 3
    result, batch = trained_on(network, Stability(alpha=2.5, sigma=0.02), x, y, step())
    clean, noisy = batch.chunk(2)
    assert torch.equal(clean, x)
    P, Q = (network(each).double().softmax(1) for each in (clean, noisy))
    divergence = (P * (P / Q).log()).sum(1).mean()
    assert divergence > 0
    torch.testing.assert_close(result.loss.double(), -P[range(6), y].log().mean() + 2.5 * divergence)
    assert result.attacked is None
    torch.testing.assert_close(result.logits, network(x))


def test_stabilitys_noise_is_gaussian_and_stays_in_the_box() -> None:
    x = torch.full((30, 3, 8, 8), 0.5)
    x[0] = 1.0
    _, batch = trained_on(linear(), Stability(sigma=0.04), x, torch.zeros(30, dtype=torch.int64), step())
    noise = (batch.chunk(2)[1] - x)[1:].flatten()
    assert noise.mean().abs() < 4 * 0.04 / math.sqrt(len(noise))
    assert noise.std().item() == pytest.approx(0.04, rel=4 / math.sqrt(2 * len(noise)))
    assert (noise.abs() < 0.04).float().mean().item() == pytest.approx(math.erf(math.sqrt(0.5)), abs=0.03)
    assert batch.max() == 1


# ---- random numbers, settings


@pytest.mark.parametrize("name", DEFENCES)
def test_a_step_is_a_function_of_its_generator(name: str) -> None:
    y = torch.tensor([0, 1, 2, 0])
    losses = []
    for k in (4, 4, 5, 6, 7, 8):
        network, defence = taught(name, "plain10")
        losses.append(defence.loss(network, images(4), y, step(k)).loss.item())
    assert losses[0] == losses[1]
    assert (len(set(losses)) == 1) == (
        name in ("none", "goodfellow", "distillation", "noise-model")
    )  # they draw nothing


def test_every_step_of_every_epoch_and_seed_draws_numbers_of_its_own() -> None:
    places = [(seed, epoch, number) for seed in range(3) for epoch in range(3) for number in range(3)]
    draws = [torch.rand((), generator=step_generator(*place, "cpu")).item() for place in places]
    assert len(set(draws)) == len(places)
    assert draws == [torch.rand((), generator=step_generator(*place, "cpu")).item() for place in places]


@pytest.mark.parametrize(
    ("create", "message"),
    [
        (
            lambda: create_defence("fgsm"),
            "unknown defence 'fgsm'; choose from none, goodfellow, fgsm-rs, pgd, ensemble, stability, trades, ",
        ),
        (lambda: create_defence("none", eps=0.1), "defence none has no eps$"),
        (lambda: create_defence("fgsm-rs", steps=3), "defence fgsm-rs has no steps; it has eps, step_size"),
        (lambda: create_defence("pgd", sources=["a"]), "defence pgd has no sources"),
        (lambda: create_defence("stability", eps=0.1), "defence stability has no eps; it has alpha, sigma"),
        (lambda: create_defence("ensemble"), "give at least one as its source"),
        (lambda: create_defence("ensemble", sources=["nowhere"]), "no checkpoint in nowhere"),
        (lambda: FGSMRS(eps=8), r"eps: got 8; want at most 1, as images lie in \[0, 1\] \(8/255, not 8\)"),
        (lambda: PGD(eps=0.0), "eps: got 0.0; want a number > 0"),
        (lambda: Ensemble((source(linear()),), eps="16"), r"eps: got 16; want .*16/255"),
        (lambda: FGSMRS(eps=math.nan), "eps: got nan; want"),
        (lambda: FGSMRS(step_size=0), "step_size: got 0; want a number > 0"),
        (lambda: PGD(step_size=math.inf), "step_size: got inf"),
        (lambda: PGD(steps=0), "steps is 0; wanted: an integer of at least 1"),
        (lambda: Goodfellow(alpha=1.5), "alpha: got 1.5; want a number from 0 to 1"),
        (lambda: Goodfellow(eps=0), "eps: got 0"),
        (lambda: TRADES(beta=0), "beta: got 0; want a number > 0"),
        (lambda: TRADES(steps=0), "steps is 0; wanted: an integer of at least 1"),
        (lambda: Distillation(0), "temperature: got 0; want a number > 0"),
        (lambda: Distillation(sources=(source(linear()),) * 2), "one teacher: got 2 sources"),
        (lambda: create_defence("distillation", sources=["nowhere"]), "no checkpoint in nowhere"),
        (lambda: Detector(adversary="both"), "adversary is 'both'; wanted: static or dynamic"),  # type: ignore[arg-type]
        (lambda: Detector(sources=(source(linear()),) * 2), "guards one classifier: got 2 sources"),
        (lambda: Detector(steps=0), "steps is 0"),
        (lambda: NoiseModel(0), "sigma: got 0; want a number > 0"),
        (lambda: Stability(alpha=-1), "alpha: got -1"),
        (lambda: Stability(sigma=0), "sigma: got 0"),
        (lambda: Stability(sigma=25), "sigma: got 25; want at most 1"),
    ],
)
def test_settings_out_of_range_are_refused(create: Callable[[], Defence], message: str) -> None:
    with pytest.raises(InputError, match=message):
        create()


@pytest.mark.parametrize(
    ("classes", "in_channels", "message"),
    [
        (("red", "green"), 3, r"was trained on 2 classes \(red, green\); wanted: 3 classes \(red, green, blue\)"),
        (("red", "green", "lime"), 3, r"was trained on 3 classes \(red, green, lime\)"),
        ((), 3, "was trained on 0 classes"),
        (CLASSES, 1, "takes images of 1 channels, not 3"),
    ],
)
def test_sources_of_something_else_are_refused(classes: tuple[str, ...], in_channels: int, message: str) -> None:
    defence = Ensemble((source(linear(3)), source(linear(3), classes, in_channels)), EPS)
    with pytest.raises(InputError, match=f"source 2 of the defence, a plain10 of seed 0, {message}"):
        defence.check(ModelConfig("plain10", 3), CLASSES)


def test_one_class_leaves_nothing_to_attack() -> None:
    with pytest.raises(InputError, match="defence pgd needs at least 2 classes to attack, these are 1"):
        PGD().check(ModelConfig("plain10", 1), ("only",))
    for defence in (Plain(), Stability()):
        defence.check(ModelConfig("plain10", 1), ("only",))
