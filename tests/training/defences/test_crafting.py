"""Crafting examples while training: closed forms on linear networks, and the batch statistics and gradients that it
leaves behind."""

import copy

import pytest
import torch
import torch.nn.functional as F
from defence_toys import EPS, away_from, images, linear, one_of, slim, step, taught, trained_on
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from shconv.training import DEFENCES
from shconv.training.defences import FGSMRS, PGD
from shconv.training.defences.base import ascend, ascent, crafting

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
