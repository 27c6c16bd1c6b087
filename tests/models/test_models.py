"""The paper's networks against torchvision's and against their own arithmetic."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

import shconv
from shconv import SHConv2d, create_model
from shconv.errors import InputError
from shconv.models import matched_width
from shconv.models.stem import check_images
from toys import scrambled

VANILLA = ["plain10", "resnet18", "resnet50"]
IN_CHANNELS_OF_3X3 = {
    "plain10": [64, 64, 64, 128, 128, 256, 256, 512],
    "resnet18": [64] * 5 + [128] * 4 + [256] * 4 + [512] * 3,
    "resnet50": [64] * 3 + [128] * 4 + [256] * 6 + [512] * 3,
}


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.fixture
def images() -> Tensor:
    return torch.rand(3, 3, 32, 32)


def test_the_list_pairs_each_network_with_its_shc_counterpart() -> None:
    assert shconv.list_models() == [f"{name}{suffix}" for name in VANILLA for suffix in ("", "_shc")]


# against torchvision


TORCHVISION: dict[str, Callable[..., nn.Module]] = {
    "resnet18": torchvision.models.resnet18,
    "resnet50": torchvision.models.resnet50,
}


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvisions_weights_load_and_compute_the_same(name: str) -> None:
    theirs = scrambled(TORCHVISION[name](num_classes=7))
    ours = create_model(name, num_classes=7)
    ours.load_state_dict(theirs.state_dict())
    assert parameters(ours) == parameters(theirs)
    x = torch.rand(2, 3, 65, 50)
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(x), theirs(x), rtol=1e-5, atol=1e-5)


# against their own arithmetic


@pytest.mark.parametrize(("name", "count"), [("resnet18", 11_689_512), ("resnet50", 25_557_032)])
def test_the_vanilla_resnets_have_he_et_als_parameters(name: str, count: int) -> None:
    with torch.device("meta"):
        assert parameters(create_model(name)) == count


def test_plain10_has_the_parameters_of_its_ten_weighted_layers() -> None:
    with torch.device("meta"):
        model = create_model("plain10")
    weighted = [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    channels = [(64, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 512), (512, 512)]
    assert [m.weight.shape[1::-1] for m in weighted] == [(3, 64), *channels, (512, 1000)]
    convolutions = 3 * 64 * 49 + sum(D * C * 9 for D, C in channels)
    batch_norms = 2 * (64 + sum(C for _, C in channels))
    assert parameters(model) == convolutions + batch_norms + 512 * 1000 + 1000


@pytest.mark.parametrize(("name", "percent"), [("plain10", 8.5), ("resnet18", 9.9), ("resnet50", 5.0)])
def test_shc_adds_the_hypernetworks_of_the_3x3s_and_nothing_else(name: str, percent: float) -> None:
    with torch.device("meta"):
        vanilla, shc = create_model(name), create_model(f"{name}_shc")
    layers = [module for module in shc.modules() if isinstance(module, SHConv2d)]
    assert [layer.in_channels for layer in layers] == IN_CHANNELS_OF_3X3[name]
    added = sum(D * D + D // 2 + D // 2 * 9 + 9 for D in IN_CHANNELS_OF_3X3[name])
    assert parameters(shc) == parameters(vanilla) + added
    assert round(100 * added / parameters(vanilla), 1) == percent


@pytest.mark.parametrize("name", VANILLA)
@pytest.mark.parametrize("stem", ["imagenet", "small"])
def test_every_3x3_but_the_stem_is_an_shc(name: str, stem: str) -> None:
    with torch.device("meta"):
        model = create_model(f"{name}_shc", stem=stem, width=8)
    convolutions = {key: m for key, m in model.named_modules() if isinstance(m, nn.Conv2d)}
    assert type(convolutions.pop("conv1")) is nn.Conv2d
    assert all(isinstance(m, SHConv2d) == (m.kernel_size == (3, 3)) for m in convolutions.values())


@pytest.mark.parametrize(("stem", "side"), [("imagenet", (2, 3)), ("small", (8, 10))])
@pytest.mark.parametrize("name", VANILLA)
def test_stages_have_the_papers_channels_and_resolutions(name: str, stem: str, side: tuple[int, int]) -> None:
    model = create_model(name, stem=stem, width=4)
    sizes: list[Any] = []
    for stage in (model.layer1, model.layer2, model.layer3, model.layer4):
        stage.register_forward_hook(lambda _, __, Y: sizes.append(tuple(Y.shape[1:])))
    model(torch.rand(2, 3, 8, 10))
    expansion = 4 if name == "resnet50" else 1
    expected = [(4 * expansion, *side)]
    for _ in range(3):
        C, height, width = expected[-1]
        expected.append((2 * C, (height + 1) // 2, (width + 1) // 2))
    assert sizes == expected


# in use


@pytest.mark.parametrize("name", [f"{name}{suffix}" for name in VANILLA for suffix in ("", "_shc")])
def test_every_network_runs_forward_and_backward(name: str, images: Tensor) -> None:
    model = create_model(name, num_classes=5, stem="small", width=8)
    x = images.requires_grad_()
    logits = model(x)
    assert logits.shape == (3, 5)
    logits.logsumexp(1).sum().backward()
    for leaf in (x, *model.parameters()):
        assert leaf.grad is not None
        assert leaf.grad.isfinite().all()
    assert x.grad is not None
    assert x.grad.any()


@pytest.mark.parametrize("name", ["plain10_shc", "resnet18_shc"])
def test_in_eval_mode_an_image_does_not_see_its_batch(name: str, images: Tensor) -> None:
    model = scrambled(create_model(name, num_classes=5, stem="small", width=8)).double()
    with torch.no_grad():
        whole = model(images.double())
        torch.testing.assert_close(whole[1:2], model(images[1:2].double()), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", VANILLA)
def test_the_same_seed_gives_a_pair_the_same_weights(name: str) -> None:
    models = []
    for suffix in ("", "_shc"):
        torch.manual_seed(5)
        models.append(create_model(name + suffix, num_classes=5, stem="small", width=4).state_dict())
    vanilla, shc = models
    assert all(torch.equal(shc[key], value) for key, value in vanilla.items())
    assert all(".hyper." in key for key in shc.keys() - vanilla.keys())


@pytest.mark.parametrize("in_channels", [1, 4])
def test_images_may_have_other_channels(in_channels: int) -> None:
    model = create_model("resnet18_shc", num_classes=3, in_channels=in_channels, stem="small", width=4)
    assert model(torch.rand(2, in_channels, 16, 16)).shape == (2, 3)


# normalisation


@pytest.mark.parametrize(
    ("normalize", "mean", "std"),
    [
        ("imagenet", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        (((0.1, 0.2, 0.3), (0.5, 1.0, 2.0)), (0.1, 0.2, 0.3), (0.5, 1.0, 2.0)),
    ],
)
@pytest.mark.parametrize("name", ["plain10", "resnet18_shc"])
def test_normalising_inside_equals_normalising_outside(
    name: str, normalize: Any, mean: Any, std: Any, images: Tensor
) -> None:
    inside = scrambled(create_model(name, num_classes=5, stem="small", width=8, normalize=normalize))
    outside = create_model(name, num_classes=5, stem="small", width=8).eval()
    outside.load_state_dict(inside.state_dict())  # strict: the constants are not in it
    normalized = torchvision.transforms.functional.normalize(images, mean, std)
    with torch.no_grad():
        torch.testing.assert_close(inside(images), outside(normalized))
        assert not torch.allclose(inside(images), outside(images))


def test_normalisation_moves_with_the_network() -> None:
    model = create_model("plain10", width=2, normalize="imagenet").to(torch.bfloat16)
    assert model.eval()(torch.rand(1, 3, 64, 64, dtype=torch.bfloat16)).dtype == torch.bfloat16


@pytest.mark.parametrize(
    "normalize",
    ["cifar", ((0.5,), (0.5,)), ((0.5,) * 3, (0.0,) * 3), ((0.5,) * 3,), (0.5, 0.5)],
    ids=["unknown name", "one channel", "zero std", "no std", "numbers"],
)
def test_a_normalisation_that_does_not_fit_is_refused(normalize: Any) -> None:
    with pytest.raises(InputError, match="normalize"):
        create_model("plain10", width=2, normalize=normalize)


# errors


@pytest.mark.parametrize(
    ("name", "offered"),
    [
        ("ResNet-18", "did you mean resnet18 "),
        ("resnet18-shc", "did you mean resnet18_shc "),
        ("plain", "did you mean plain10"),
        ("vgg", "plain10, .*50_shc"),
    ],
)
def test_an_unknown_name_is_refused_with_near_ones(name: str, offered: str) -> None:
    with pytest.raises(InputError, match=f"'{name}'.*{offered}"):
        create_model(name)


@pytest.mark.parametrize("argument", [{"stem": "cifar"}, {"width": 0}, {"num_classes": 0}, {"in_channels": 0}])
def test_arguments_out_of_range_are_refused(argument: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(argument))):
        create_model("plain10", **argument)


# a twin of equal size


@pytest.mark.parametrize(
    ("name", "width"),
    [("plain10", 16), ("resnet18", 64), ("resnet50", 16)]
    + [pytest.param(*each, marks=pytest.mark.slow) for each in (("plain10", 64), ("resnet18", 16), ("resnet50", 64))],
)
def test_matched_width_gives_the_vanilla_network_nearest_in_size_to_the_shc_one(name: str, width: int) -> None:
    def size(model: str, at: int) -> int:
        with torch.device("meta"):
            return sum(p.numel() for p in create_model(model, num_classes=10, stem="small", width=at).parameters())

    matched = matched_width(f"{name}_shc", num_classes=10, stem="small", width=width)
    assert matched == matched_width(name, num_classes=10, stem="small", width=width) >= width
    wanted = size(f"{name}_shc", width)
    errors = {at: abs(size(name, at) - wanted) for at in (matched - 1, matched, matched + 1)}
    assert min(errors, key=errors.__getitem__) == matched


def test_images_of_symbolic_sizes_are_checked_by_a_compiler_as_they_are_in_eager_mode() -> None:
    """torch 2.11 did not find a symbolic number of channels in a tuple of numbers."""
    torch._dynamo.reset()
    conv = nn.Conv2d(3, 2, 1)

    def checked(x: Tensor) -> Tensor:
        check_images(x, conv)
        return x + 1

    compiled = torch.compile(checked, fullgraph=True, dynamic=True, backend="eager")
    for x in (torch.rand(2, 3, 4, 4), torch.rand(3, 3, 5, 4)):
        assert torch.equal(compiled(x), x + 1)
