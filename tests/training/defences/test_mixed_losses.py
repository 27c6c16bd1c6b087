"""Defences that learn from clean and changed images at a time: their losses by their formulas."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from defence_toys import EPS, away_from, images, linear, slim, source, step, trained_on

from shconv.models.noise import NoiseNetwork
from shconv.training import ModelConfig
from shconv.training.defences import TRADES, Ensemble, Goodfellow, NoiseModel, Stability

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
