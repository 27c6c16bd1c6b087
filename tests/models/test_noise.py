"""Networks that reckon with noise: against the same network on many noisy images, and what they leave as it was."""

import copy
import pickle
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import shconv
from shconv.errors import InputError
from shconv.models.noise import NoiseNetwork
from shconv.routes import gradient_route
from shconv.training import ModelConfig, load_checkpoint, save_checkpoint


def images(n: int = 4) -> Tensor:
    return torch.rand(n, 3, 24, 24, generator=torch.Generator().manual_seed(1))


def network(name: str, stem: str = "small") -> nn.Module:
    torch.manual_seed(0)
    built = shconv.create_model(name, num_classes=5, stem=stem, width=4, normalize="imagenet")
    with torch.no_grad():
        for _ in range(10):
            built.train()(torch.rand(16, 3, 24, 24))  # running statistics
    return built.eval()


@pytest.mark.parametrize(
    ("name", "stem"),
    [("plain10", "small"), ("plain10_shc", "small"), ("resnet18", "imagenet"), ("resnet50_shc", "small")],
)
def test_it_is_nearer_to_the_mean_over_noise_than_the_network_itself(name: str, stem: str) -> None:
    plain, x, sigma = network(name, stem), images(), 0.2
    with torch.no_grad():
        found = NoiseNetwork(plain, sigma).eval().moments(x)
        draw = torch.Generator().manual_seed(2)
        drawn = torch.stack([plain(x + sigma * torch.randn(x.shape, generator=draw)) for _ in range(60)])
        error, before = ((each - drawn.mean(0)).abs().mean() for each in (found.mean, plain(x)))
    chance = drawn.std(0).mean() / 60**0.5
    assert error < 0.7 * before + chance
    assert 0.5 < float(found.variance.sqrt().mean() / drawn.std(0).mean()) < 2


@pytest.mark.parametrize("name", ["plain10", "resnet18_shc"])
def test_without_noise_it_is_the_network(name: str) -> None:
    plain, x = network(name), images()
    torch.testing.assert_close(NoiseNetwork(plain, 1e-6).eval()(x), plain(x), rtol=1e-3, atol=1e-3)
    whole = NoiseNetwork(copy.deepcopy(plain), 1e-6).train()
    torch.testing.assert_close(whole(x), plain.train()(x), rtol=1e-2, atol=1e-2)
    for (key, here), there in zip(whole.network.named_buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(here, there, rtol=1e-3, atol=1e-3, msg=key)


def test_a_linear_network_has_its_own_logits_and_the_exact_variance() -> None:
    plain, x = nn.Sequential(nn.Flatten(), nn.Linear(1728, 3)), images()
    found = NoiseNetwork(plain, 0.3).moments(x)
    torch.testing.assert_close(found.mean, plain(x))
    torch.testing.assert_close(found.variance, (0.09 * plain[1].weight.square().sum(1)).expand(4, 3))


def test_every_parameter_gets_a_gradient_and_routes_are_kept() -> None:
    whole, x = NoiseNetwork(network("plain10_shc")).train(), images().requires_grad_()
    whole(x).square().sum().backward()
    assert all(each.grad is not None and torch.isfinite(each.grad).all() for each in whole.parameters())
    whole.eval()
    gradients = {}
    for route in ("both", "convolution", "hypernetwork"):
        with gradient_route(whole, route):
            (gradients[route],) = torch.autograd.grad(whole(x)[:, 0].sum(), x)
    assert all(not torch.equal(gradients["both"], gradients[each]) for each in ("convolution", "hypernetwork"))


def test_it_can_be_copied_and_pickled_and_has_the_networks_parameters_alone() -> None:
    whole, x = NoiseNetwork(network("plain10_shc")).eval(), images()
    for again in (copy.deepcopy(whole), pickle.loads(pickle.dumps(whole))):
        assert torch.equal(again(x), whole(x))
    assert [name.removeprefix("network.") for name in whole.state_dict()] == list(whole.network.state_dict())


class Twice(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.exp().flatten(1)


class Asks(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


@pytest.mark.parametrize(
    ("plain", "message"),
    [
        (Twice(), "no rule for the operation exp"),
        (Asks(), "the noise model cannot read this Asks"),
        (nn.Sequential(nn.GELU(), nn.Flatten()), "no rule for GELU"),
        (shconv.create_model("plain10_se", num_classes=3, stem="small", width=4), "no rule for SEConv2d"),
    ],
)
def test_what_it_has_no_rule_for_is_refused(plain: nn.Module, message: str) -> None:
    with pytest.raises(InputError, match=message):
        NoiseNetwork(plain)


@pytest.mark.parametrize("sigma", [0, -1, 2, "x"])
def test_a_sigma_out_of_range_is_refused(sigma: float | str) -> None:
    with pytest.raises(InputError, match="sigma"):
        NoiseNetwork(network("plain10"), sigma)


def test_a_checkpoint_builds_it_again(tmp_path: Path) -> None:
    config = ModelConfig("plain10_shc", 3, stem="small", width=4, wrapper="noise-model:0.15")
    whole, x = config.build(), images()
    whole(x)
    save_checkpoint(tmp_path, whole, {"model": vars(config)})
    again, known, _ = load_checkpoint(tmp_path)
    assert known == config
    assert isinstance(again, NoiseNetwork)
    assert again.sigma == 0.15
    assert torch.equal(again(x), whole.eval()(x))
