"""Networks by name: the relatives' and the vanilla one as large as the SHC network, and their checkpoints."""

import pytest
import torch

import shconv
from shconv.errors import InputError
from shconv.models import all_models, create_model, vanilla_of
from shconv.models.shapes import shapes_only
from shconv.pretrained.folder import config_of
from shconv.relatives import RELATIVES, Relative
from shconv.training.checkpoint import ModelConfig, load_checkpoint, save_checkpoint

# Of the networks and widths whose sizes are held together.
MORE = [("plain10", 16), ("resnet18", 4), ("resnet18", 64), ("resnet50", 4), ("resnet50", 16)]


def size(name: str, width: int = 16) -> int:
    with shapes_only():
        return sum(p.numel() for p in create_model(name, 10, stem="small", width=width).parameters())


@pytest.mark.parametrize(
    ("vanilla", "suffix"),
    [("plain10", suffix) for suffix in RELATIVES]
    + [("resnet18", "condconv")]
    + [pytest.param("resnet18", suffix, marks=pytest.mark.slow) for suffix in RELATIVES if suffix != "condconv"],
)
def test_every_3x3_but_the_stem_is_the_relative_and_a_checkpoint_loads_again(vanilla, suffix, tmp_path):
    config = ModelConfig(f"{vanilla}_{suffix}", 3, stem="small", width=2)
    model = config.build().eval()
    own = [name for name, module in model.named_modules() if isinstance(module, Relative)]
    shc = create_model(f"{vanilla}_shc", 3, stem="small", width=2)
    assert own == [name for name, module in shc.named_modules() if isinstance(module, shconv.SHConv2d)]
    save_checkpoint(tmp_path, model, {"model": vars(config)})
    loaded, read, _ = load_checkpoint(tmp_path)
    x = torch.rand(2, 3, 8, 8)
    assert torch.equal(loaded(x), model(x))
    assert read == config == config_of(model)


def test_all_models_holds_the_papers_and_every_relative_of_each():
    assert set(shconv.list_models()) < set(all_models())
    assert {f"resnet50_{suffix}" for suffix in (*RELATIVES, "matched")} < set(all_models())
    assert {vanilla_of(name) for name in all_models()} == {"plain10", "resnet18", "resnet50"}
    with pytest.raises(InputError, match="did you mean plain10_condconv"):
        create_model("plain10_condcon")


@pytest.mark.parametrize(
    ("vanilla", "width"),
    [("plain10", 4), ("plain10", 64), ("resnet18", 16), ("resnet50", 64)]
    + [pytest.param(*each, marks=pytest.mark.slow) for each in MORE],
)
def test_the_matched_network_has_the_shc_networks_parameters_within_a_percent(vanilla, width):
    near = 0.01 if width >= 16 else 0.03  # few channels are coarse steps
    assert abs(size(f"{vanilla}_matched", width) / size(f"{vanilla}_shc", width) - 1) < near


def test_an_extended_layer_starts_with_the_vanilla_networks_weights():
    torch.manual_seed(0)
    vanilla = create_model("plain10", 3, stem="small", width=2).state_dict()
    torch.manual_seed(0)
    relative = create_model("plain10_odconv_spatial", 3, stem="small", width=2).state_dict()
    assert all(torch.equal(relative[name], tensor) for name, tensor in vanilla.items())
