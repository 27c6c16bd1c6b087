"""The measures of an inspection, against networks small enough to be worked out by hand."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from shconv import SHConv2d, constant_maps, create_model, to_shc
from shconv.attacks.objective import log_odds
from shconv.errors import InputError
from shconv.inspection import gradients, maps
from shconv.layers import Hypernetwork
from shconv.routes import record_filter_maps, shc_layers
from toys import colour_networks


class Level(nn.Module):
    """A hypernetwork: M is a function of the image's mean, the same at each of `taps`."""

    def __init__(self, of_mean: Callable[[Tensor], Tensor], taps: tuple[int, int] = (1, 1)) -> None:
        super().__init__()
        self.of_mean, self.taps = of_mean, taps

    def forward(self, x: Tensor) -> Tensor:
        return self.of_mean(x.mean((1, 2, 3)))[:, None, None].expand(-1, *self.taps)


class Sum(nn.Module):
    """Logits (s, 0) with s the sum over all pixels of an SHC layer of one tap and one channel, its weight w."""

    def __init__(self, of_mean: Callable[[Tensor], Tensor], w: float = 1.0) -> None:
        super().__init__()
        self.layer = SHConv2d(1, 1, 1, bias=False)
        self.layer.hyper = Level(of_mean)
        nn.init.constant_(self.layer.weight, w)
        self.double().eval().requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        s = self.layer(x).sum((1, 2, 3))
        return torch.stack([s, torch.zeros_like(s)], 1)


@pytest.fixture
def x() -> Tensor:
    return torch.rand(3, 1, 4, 5, dtype=torch.float64) * 0.4 + 0.2


Y = torch.zeros(3, dtype=torch.int64)


def test_the_parts_of_a_gradient_are_those_of_the_product_rule(x: Tensor) -> None:
    # s = w HW mu (1 - mu), loss = -s: ds/dx is w (1 - mu) through the convolution, -w mu through the map
    found = gradients.route_gradients(Sum(lambda mu: 1 - mu, w=3.0), x, Y)
    mu = x.mean((1, 2, 3), keepdim=True).expand_as(x)
    torch.testing.assert_close(found["convolution"], -3 * (1 - mu))
    torch.testing.assert_close(found["hypernetwork"], 3 * mu)
    torch.testing.assert_close(found["strict"], 3 * mu)
    torch.testing.assert_close(found["both"], -3 * (1 - 2 * mu))


@pytest.mark.parametrize(("level", "cosine"), [(lambda mu: mu, 1.0), (lambda mu: 1 - mu, -1.0)])
def test_share_cosine_and_agreement_compare_the_two_parts(x: Tensor, level: Callable[[Tensor], Tensor], cosine: float):
    found = gradients.compared_routes(gradients.route_gradients(Sum(level), x, Y))
    mu = x.mean((1, 2, 3))
    rest = mu if cosine > 0 else 1 - mu
    torch.testing.assert_close(found["share"], mu / (mu + rest))
    torch.testing.assert_close(found["cosine"], torch.full_like(mu, cosine))
    kept = (mu < rest) if cosine < 0 else torch.ones_like(mu, dtype=torch.bool)
    torch.testing.assert_close(found["agreement"], kept.float())


def test_a_gradient_that_is_nothing_has_no_share_and_no_direction() -> None:
    nothing = torch.zeros(2, 1, 2, 2)
    some = torch.ones(2, 1, 2, 2)
    found = gradients.compared_routes({"both": some, "convolution": some, "strict": nothing})
    assert found["share"].tolist() == found["cosine"].tolist() == [0, 0]
    found = gradients.compared_routes({"both": nothing, "convolution": nothing, "strict": nothing})
    assert found["share"].tolist() == [0, 0]
    assert found["agreement"].tolist() == [1, 1]


def test_a_layers_share_is_what_its_map_alone_adds() -> None:
    model = colour_networks()[1].double()
    x, y = torch.rand(2, 3, 8, 8, dtype=torch.float64), torch.tensor([0, 1])
    both = gradients.loss_gradient(model, x, y)
    found = gradients.by_layer(model, x, y, both)
    assert list(found) == ["first", "second"]
    for name, layer in shc_layers(model).items():
        frozen = {name: maps.recorded(model, x)[name].M[0]}
        with constant_maps(model, frozen):  # of the first image alone: there the map is as it was, but without gradient
            rest = gradients.loss_gradient(model, x, y)
        share = gradients.share(both - rest, rest)
        torch.testing.assert_close(found[name]["share"][0], share[0])
        assert isinstance(layer, SHConv2d)


def test_a_step_on_a_linear_loss_keeps_its_promise(x: Tensor) -> None:
    model = Sum(lambda mu: torch.full_like(mu, 0.5), w=2.0)
    found = gradients.linearity(model, x, Y, gradients.loss_gradient(model, x, Y), 0.1)
    torch.testing.assert_close(found["promised"], torch.full((3,), 0.1 * 20, dtype=torch.float64))
    torch.testing.assert_close(found["rise"], found["promised"])
    torch.testing.assert_close(found["error"], torch.zeros(3, dtype=torch.float64))


def test_a_step_on_a_square_misses_its_promise_by_the_square_of_the_step(x: Tensor) -> None:
    # loss = -HW mu^2: downhill in mu by eps gives 2 HW mu eps promised, HW (2 mu eps - eps^2) reached
    model, eps, mu = Sum(lambda mu: mu), 0.1, x.mean((1, 2, 3))
    found = gradients.linearity(model, x, Y, gradients.loss_gradient(model, x, Y), eps)
    torch.testing.assert_close(found["promised"], 20 * 2 * mu * eps)
    torch.testing.assert_close(found["rise"], 20 * (2 * mu * eps - eps**2))
    torch.testing.assert_close(found["error"], eps / (2 * mu))


def test_the_loss_is_the_log_odds_against_the_label(x: Tensor) -> None:
    model = Sum(lambda mu: mu)
    torch.testing.assert_close(gradients.loss_against(model, x, Y), -log_odds(model(x), Y))


def test_the_sensitivity_of_a_mean_is_its_factor_over_the_root_of_the_pixels(x: Tensor) -> None:
    hyper = Level(lambda mu: 3 * mu, taps=(2, 2))
    # four taps, each with slope 3 / HW at every one of HW pixels
    torch.testing.assert_close(maps.sensitivity(hyper, x), torch.full((3,), 2 * 3 / 20**0.5, dtype=torch.float64))


def test_the_sensitivity_is_the_norm_of_the_derivative() -> None:
    hyper = Hypernetwork(2, (3, 3)).double()
    x = torch.rand(2, 2, 4, 4, dtype=torch.float64)
    J = torch.autograd.functional.jacobian(hyper, x)  # (2, 3, 3, 2, 2, 4, 4)
    wanted = torch.stack([J[n, :, :, n].norm() for n in range(2)])
    torch.testing.assert_close(maps.sensitivity(hyper, x), wanted)


def test_spread_is_the_deviation_between_images() -> None:
    M = torch.tensor([[[0.2, 0.5]], [[0.4, 0.5]]])
    assert maps.spread(M) == pytest.approx(0.05)
    assert maps.spread(M[:1]) == 0


def test_saturation_counts_the_taps_near_the_ends() -> None:
    hyper = Hypernetwork(2, (2, 2))
    M = torch.tensor([[[0.01, 0.96], [0.5, 0.06]]])
    assert maps.saturation(hyper, M) == 0.5
    assert maps.saturation(Hypernetwork(2, (2, 2), gain=2.0), 2 * M) == 0.5


@pytest.mark.parametrize("hyper", [Hypernetwork(2, (2, 2), activation="softplus"), Level(lambda mu: mu)])
def test_saturation_is_not_told_where_there_is_no_sigmoid(hyper: nn.Module) -> None:
    assert maps.saturation(hyper, torch.zeros(1, 2, 2)) is None


def test_hidden_neurons_that_never_fire_are_found() -> None:
    hyper = Hypernetwork(2, (3, 3), hidden_features=4)
    nn.init.zeros_(hyper.hidden.weight)
    hyper.hidden.bias.data = torch.tensor([1.0, -1.0, 0.0, 2.0])
    active = maps.active_neurons(hyper, torch.rand(3, 2, 4, 4))
    assert active is not None
    assert active.tolist() == [True, False, False, True]
    assert maps.active_neurons(Level(lambda mu: mu), torch.rand(3, 2, 4, 4)) is None


def test_maps_are_recorded_with_the_inputs_that_they_are_computed_from() -> None:
    model = colour_networks()[1]
    x = torch.rand(2, 3, 8, 8)
    found = maps.recorded(model, x)
    assert torch.equal(found["first"].x, x)
    for name, layer in shc_layers(model).items():
        torch.testing.assert_close(layer.filter_map(found[name].x), found[name].M)
        assert not layer._forward_pre_hooks


def test_maps_do_not_shift_without_a_change(x: Tensor) -> None:
    model = Sum(lambda mu: mu)
    clean = maps.recorded(model, x)
    assert maps.shifts(model, clean, x)["layer"].tolist() == [0, 0, 0]
    torch.testing.assert_close(maps.shifts(model, clean, x + 0.1)["layer"], torch.full((3,), 0.1, dtype=torch.float64))


def test_constant_maps_filter_every_image_alike() -> None:
    torch.manual_seed(0)
    model = create_model("plain10_shc", 4, stem="small", width=4).eval()
    x, name = torch.rand(3, 3, 8, 8), "layer1.conv2"
    M = torch.rand(3, 3)
    with constant_maps(model, {name: M}), record_filter_maps(model) as seen:
        model(x[:2])
        assert torch.equal(seen[name], M.expand(2, 3, 3))
        model(x)  # batches of any size
        assert torch.equal(seen[name], M.expand(3, 3, 3))
        assert not torch.equal(seen["layer1.conv1"][0], seen["layer1.conv1"][1])
    with record_filter_maps(model) as seen:
        model(x)
    assert not torch.equal(seen[name][0], M)


def test_the_maps_of_a_name_that_is_no_layer_cannot_be_held() -> None:
    model = create_model("plain10_shc", 4, stem="small", width=4)
    with (
        pytest.raises(InputError, match=r"has no SHC layer 'conv1'; it has layer1\.conv1, "),
        constant_maps(model, {"conv1": torch.ones(3, 3)}),
    ):
        pass


def test_holding_a_map_that_is_constant_anyway_changes_nothing() -> None:
    model = to_shc(create_model("plain10", 4, stem="small", width=4), start="identity").eval()
    x = torch.rand(3, 3, 8, 8)
    with torch.no_grad():
        logits = model(x)
    held = maps.mean_maps({name: each.M for name, each in maps.recorded(model, x).items()})
    moved, predicted = maps.without(model, held, x, logits)
    assert float(moved.max()) < 1e-5
    assert torch.equal(predicted, logits.argmax(1))


def test_logits_move_by_their_change_over_their_length_about_the_mean(x: Tensor) -> None:
    model = Sum(lambda mu: mu)
    moved, _ = maps.without(model, {"layer": torch.zeros(1, 1, dtype=torch.float64)}, x, model(x))
    # logits (s, 0) become (0, 0): a change of s, over a length of s / sqrt(2)
    torch.testing.assert_close(moved, torch.full((3,), 2**0.5, dtype=torch.float64))


def test_maps_kept_on_the_cpu_are_held_where_the_images_are() -> None:
    """As on a GPU, where means over all batches are taken on the CPU: the fake device refuses what a real one would."""
    held = {"layer1.conv2": torch.rand(3, 3)}
    with FakeTensorMode(allow_non_fake_inputs=True), torch.device("cuda"):
        model = create_model("plain10_shc", 4, stem="small", width=4).eval()
        x = torch.empty(2, 3, 8, 8)
        logits = torch.empty(2, 4)
    with FakeTensorMode(allow_non_fake_inputs=True):
        moved, predicted = maps.without(model, held, x, logits)
    assert (moved.device.type, predicted.device.type) == ("cuda", "cuda")
    assert (moved.shape, predicted.shape) == ((2,), (2,))


def test_what_rounding_leaves_of_a_part_has_no_direction() -> None:
    whole = torch.rand(3, 1, 4, 4) + 1
    found = gradients.compared_routes({"both": whole, "convolution": whole, "strict": -1e-8 * whole})
    assert found["cosine"].tolist() == [0, 0, 0]
