"""Networks as folders that people share: what goes in comes out, and what a stranger put there does no harm."""

import builtins
import json
import os

import pytest
import safetensors.torch
import torch

from shconv import InputError, create_model, to_shc
from shconv.pretrained import ConvertedConfig, from_pretrained, save_pretrained
from shconv.pretrained.state_file import read_weights
from shconv.pretrained.weights import for_classes, network_with
from shconv.training import load_checkpoint
from toys import Colours

IMAGES = torch.rand(2, 3, 32, 32)
SMALL = {"num_classes": 3, "stem": "small", "width": 4}


def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def importing(name, *args, **kwargs):
        if name.partition(".")[0] == "huggingface_hub":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", importing)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("plain10_shc", SMALL),
        ("resnet18", {**SMALL, "stem": "imagenet", "in_channels": 3, "normalize": "imagenet"}),
        ("resnet50_shc", {**SMALL, "width": 2, "normalize": ((0.5, 0.4, 0.3), (0.2, 0.25, 0.3))}),
    ],
)
def test_a_network_of_create_model_comes_back_to_the_bit_and_without_hub(name, arguments, tmp_path, monkeypatch):
    no_hub(monkeypatch)
    model = create_model(name, **arguments).eval()
    save_pretrained(model, tmp_path / "a")
    back = from_pretrained(tmp_path / "a")
    assert torch.equal(back(IMAGES), model(IMAGES))
    assert torch.equal(load_checkpoint(tmp_path / "a")[0](IMAGES), model(IMAGES))  # what the other commands read
    assert sorted(os.listdir(tmp_path / "a")) == ["README.md", "config.json", "model.safetensors"]
    save_pretrained(back, tmp_path / "b")
    for file in ("config.json", "model.safetensors"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


@pytest.mark.parametrize(
    "config",
    [
        ConvertedConfig("torchvision:squeezenet1_1", 3, ("features.3.*",), "imagenet"),
        ConvertedConfig("timm:test_resnet.r160_in1k", 3, (3,), ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))),
        ConvertedConfig("timm:test_nfnet", 3, (3,)),  # standardised weights: gains are buffers
    ],
    ids=lambda config: config.source,
)
def test_a_converted_network_of_a_library_comes_back_to_the_bit(config, tmp_path):
    model = config.normalized(config.converted(config.vanilla())).eval()
    save_pretrained(model, tmp_path, config=config)
    assert torch.equal(from_pretrained(tmp_path)(IMAGES), model(IMAGES))


def test_a_network_of_unknown_making_is_refused_and_one_of_another_making_too(tmp_path):
    with pytest.raises(InputError, match="Colours was built is not known"):
        save_pretrained(Colours(), tmp_path / "a")
    with pytest.raises(InputError, match="not the network that its configuration builds"):
        save_pretrained(Colours(), tmp_path / "a", config=ConvertedConfig("timm:test_resnet", 3))
    assert list(tmp_path.iterdir()) == []


def test_the_card_tells_what_is_known_that_the_rest_is_not_and_what_numbers_are_worth(tmp_path):
    facts = {
        "data": {"name": "a|<b>", "classes": ["x", "y", "z"], "image_size": 32, "train_images": 7, "test_images": 200},
        "test_accuracy": 0.9,
    }
    model = create_model("plain10_shc", **SMALL)
    save_pretrained(model, tmp_path / "told", facts=facts)
    card = (tmp_path / "told" / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: shconv\n")
    assert "Data: a&#124;&lt;b>, 3 classes; 7 train images, 200 test images" in card
    assert "90.00% of 200 test images (95 % interval 85.1% to 93.4%)" in card
    assert "upper bound" in card
    assert "no evidence of\nrobustness" in card
    assert "No attack was run" in card
    save_pretrained(model, tmp_path / "silent")
    assert "- Data: not said\n- Accuracy: not said" in (tmp_path / "silent" / "README.md").read_text()


def test_the_card_has_the_rows_of_the_network_and_its_twin_and_of_no_other(tmp_path):
    run = tmp_path / "the_run"
    run.mkdir()
    counts = {"train_images": 70, "test_images": 40}
    data = {"name": "cups", "classes": ["x", "y", "z"], "image_size": 32, "note": "", **counts}
    (run / "data.json").write_text(json.dumps(data))
    rows = [
        {"id": model, "experiment": "table1", "model": model, "attack": "clean", "n": 40, "accuracy": right / 40}
        for model, right in (("plain10", 31), ("plain10_shc", 33), ("resnet18", 37), ("resnet18_shc", 39))
    ]
    (run / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    save_pretrained(create_model("plain10_shc", **SMALL), tmp_path / "shared", rows=run)
    card = (tmp_path / "shared" / "README.md").read_text()
    assert "- Data: cups, 3 classes; 70 train images, 40 test images" in card
    assert "Measured in the run the_run" in card
    table = card[card.index("### Table 1") : card.index("### What")]
    assert "| Plain-10 | clean | 77.50 |" in table  # not ImageNet: no number of the paper beside it
    assert "| Plain-10-SHC | clean | 82.50 |" in table
    assert "ResNet-18" not in card
    assert "No attack was run" not in card


HOSTILE = {
    "a path as a name": {"converted": {"source": "timm:../../x", "num_classes": 3, "where": [3]}},
    "a repository as a name": {"converted": {"source": "timm:hf-hub:a/b", "num_classes": 3, "where": [3]}},
    "a folder as a name": {"converted": {"source": "local-dir:/etc", "num_classes": 3, "where": [3]}},
    "no such network": {"converted": {"source": "torchvision:raft_large", "num_classes": 3, "where": [3]}},
    "no list": {"converted": {"source": "timm:test_resnet", "num_classes": 3, "where": [{"a": 1}]}},
    "an unknown field": {"converted": {"source": "timm:test_resnet", "num_classes": 3, "where": [3], "file": "/x"}},
    "another network": {"converted": {"source": "timm:test_resnet", "num_classes": 3, "where": [3]}},
    "a width of a million": {"model": {"name": "plain10", "num_classes": 3, "width": 10**6}},
    "a width of thousands": {"model": {"name": "plain10", "num_classes": 3, "width": 5000}},
    "a negative width": {"model": {"name": "plain10", "num_classes": 3, "width": -1}},
    "a name that is no text": {"model": {"name": ["plain10"], "num_classes": 3}},
    "no network": {"model": None},
}


@pytest.mark.parametrize("config", HOSTILE.values(), ids=HOSTILE)
def test_a_strangers_config_is_refused_in_words(config, tmp_path):
    save_pretrained(create_model("plain10", **SMALL), tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError):
        from_pretrained(tmp_path)


def test_json_nested_beyond_measure_and_weights_that_are_none_are_refused(tmp_path):
    save_pretrained(create_model("plain10", **SMALL), tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 64)
    with pytest.raises(InputError, match=r"model\.safetensors"):
        from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text("[" * 100_000)
    with pytest.raises(InputError):
        from_pretrained(tmp_path)


def test_a_repository_needs_huggingface_hub_by_name_and_a_path_is_no_repository(tmp_path, monkeypatch):
    no_hub(monkeypatch)
    with pytest.raises(InputError, match="pip install huggingface_hub"):
        from_pretrained("somebody/something")
    for path in (tmp_path / "missing", "../a/b", "a/b/c", "~/a", "a"):
        with pytest.raises(InputError, match="no repository's OWNER/NAME"):
            from_pretrained(path)


def test_a_repository_is_what_huggingface_hub_brings(tmp_path, monkeypatch):
    hub = pytest.importorskip("huggingface_hub")
    model = create_model("plain10", **SMALL).eval()
    save_pretrained(model, tmp_path)
    asked = {}

    def snapshot_download(repo_id, **arguments):
        asked.update(repo=repo_id, **arguments)
        return str(tmp_path)

    monkeypatch.setattr(hub, "snapshot_download", snapshot_download)
    assert torch.equal(from_pretrained("owner/name", revision="v1")(IMAGES), model(IMAGES))
    files = ["model.safetensors", "config.json"]  # nothing else of a repository is even downloaded
    assert asked == {"repo": "owner/name", "revision": "v1", "allow_patterns": files}


def test_weights_fit_by_name_or_by_order_and_else_not_at_all(tmp_path):
    arch = "timm:test_resnet"
    theirs = ConvertedConfig(arch, 5).vanilla().eval()
    state = theirs.state_dict()
    safetensors.torch.save_file(state, tmp_path / "a.safetensors")
    renamed = {f"x{i}.{name.rpartition('.')[2]}": tensor for i, (name, tensor) in enumerate(state.items())}
    torch.save({"state_dict": renamed}, tmp_path / "b.pth")
    for file, order in (("a.safetensors", False), ("b.pth", True)):
        filled = network_with(arch, read_weights(tmp_path / file))
        assert ("by order and shape" in filled.said) is order
        assert torch.equal(filled.network.eval()(IMAGES), theirs(IMAGES))
    swapped = dict(zip(renamed, list(renamed.values())[::-1], strict=True))
    with pytest.raises(InputError, match="neither by name, nor one after another"):
        network_with(arch, {"": swapped})
    with pytest.raises(InputError, match=r"holds an SHC network's weights \(.*hyper.output.weight\)"):
        network_with(arch, {"": to_shc(theirs).state_dict()})


def test_a_head_for_fewer_classes_keeps_the_rows_of_those_and_all_else(tmp_path):
    arch = "torchvision:squeezenet1_1"  # its head is a convolution
    network = ConvertedConfig(arch, 5).vanilla().eval()
    some = for_classes(arch, network, 2, [3, 1]).eval()
    torch.testing.assert_close(some(IMAGES), network(IMAGES)[:, [3, 1]])
