import errno
import json
import os
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from shconv.data import ImageData
from shconv.errors import InputError
from shconv.files import replace_file
from shconv.training import ModelConfig, Recipe, load_checkpoint, save_checkpoint
from shconv.training.checkpoint import check_same_run, run_record

SLIM = ModelConfig("plain10_shc", 3, stem="small", width=2, normalize=((0.5,) * 3, (0.25,) * 3))


class Tied(nn.Module):
    """Two names for one parameter, and a buffer that is a view of another."""

    def __init__(self, num_classes: int, width: int) -> None:
        super().__init__()
        self.first = nn.Linear(width, width)
        self.second = nn.Linear(width, width)
        self.second.weight = self.first.weight
        self.register_buffer("whole", torch.rand(6))
        self.register_buffer("part", self.whole[:3])

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.second(self.first(x))
        return y


def stored(folder: Path, config: ModelConfig = SLIM) -> nn.Module:
    model = config.build()
    save_checkpoint(folder, model, {"model": asdict(config)})
    return model


def test_what_is_loaded_computes_what_was_stored(tmp_path: Path) -> None:
    model = stored(tmp_path).eval()
    for path in (tmp_path, str(tmp_path), tmp_path / "model.safetensors"):
        loaded, config, info = load_checkpoint(path)
        x = torch.rand(2, 3, 16, 16)
        assert torch.equal(loaded(x), model(x))
        assert not loaded.training
        assert config == SLIM
        assert info["model"]["name"] == "plain10_shc"


def test_loading_leaves_the_random_state_alone(tmp_path: Path) -> None:
    stored(tmp_path)
    before = torch.get_rng_state()
    load_checkpoint(tmp_path)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("wrap", [torch.compile, nn.DataParallel, lambda m: nn.DataParallel(torch.compile(m))])
def test_names_are_stored_without_the_prefixes_of_wrappers(
    tmp_path: Path, wrap: Callable[[nn.Module], nn.Module]
) -> None:
    model = SLIM.build()
    wrapped = wrap(model)
    assert set(wrapped.state_dict()).isdisjoint(model.state_dict())
    save_checkpoint(tmp_path, wrapped, {"model": asdict(SLIM)})
    assert set(safetensors.torch.load_file(tmp_path / "model.safetensors")) == set(model.state_dict())
    load_checkpoint(tmp_path)


def test_a_file_with_prefixes_is_understood(tmp_path: Path) -> None:
    model = stored(tmp_path)
    prefixed = {f"module._orig_mod.{name}": tensor for name, tensor in model.state_dict().items()}
    safetensors.torch.save_file(prefixed, tmp_path / "model.safetensors")
    assert torch.equal(load_checkpoint(tmp_path)[0].fc.weight, model.fc.weight)  # type: ignore[union-attr, arg-type]


def test_tied_tensors_are_stored_once_and_come_back_tied(
    tmp_path: Path, config: ModelConfig, toy_network: Callable[[Callable[..., nn.Module]], None]
) -> None:
    toy_network(Tied)
    model = stored(tmp_path, config)
    file = tmp_path / "model.safetensors"
    assert len(safetensors.torch.load_file(file)) == len(model.state_dict()) - 1
    loaded, _, _ = load_checkpoint(tmp_path)
    assert loaded.first.weight is loaded.second.weight  # type: ignore[union-attr]
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)
    elsewhere = nn.ModuleDict({"first": nn.Linear(6, 6), "second": nn.Linear(6, 6)})
    elsewhere["second"].weight = elsewhere["first"].weight
    safetensors.torch.load_model(elsewhere, file, strict=False)  # the library's own reader agrees
    assert torch.equal(elsewhere["second"].weight, model.first.weight)  # type: ignore[union-attr, arg-type]


def spoil_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    info = json.loads(path.read_text())
    path.write_text(json.dumps({**info, "model": info["model"] | changes}))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "config.json").unlink(), "no checkpoint in .*: there is no config.json"),
        (lambda f: (f / "config.json").rename(f / "state.pt"), "no checkpoint in .*: its training is not finished"),
        (lambda f: truncate(f / "config.json"), "config.json is damaged"),
        (lambda f: (f / "config.json").write_text("[1]"), "config.json is damaged"),
        (lambda f: (f / "config.json").write_text("{}"), "config.json describes no network .*model"),
        (lambda f: spoil_config(f, name="plain11"), "describes no network .*plain11"),
        (lambda f: spoil_config(f, colour=1), "describes no network .*colour"),
        (lambda f: spoil_config(f, width="2"), "describes no network"),
        (lambda f: (f / "model.safetensors").unlink(), "there is no file .*model.safetensors"),
        (lambda f: truncate(f / "model.safetensors"), "model.safetensors is damaged"),
        (lambda f: (f / "model.safetensors").write_bytes(b""), "model.safetensors is damaged"),
        (lambda f: spoil_config(f, name="plain10"), "is not a plain10: missing none; unexpected .*hyper.* and 29 more"),
        (lambda f: spoil_config(f, name="resnet18"), r"is not a resnet18: missing layer1\.0\..*; unexpected layer1\."),
        (lambda f: spoil_config(f, num_classes=4), r"other shapes .*: fc.weight \(3, 16\), not \(4, 16\), fc.bias"),
    ],
)
def test_what_is_no_checkpoint_is_an_error_that_says_why(
    tmp_path: Path, spoil: Callable[[Path], object], message: str
) -> None:
    stored(tmp_path)
    spoil(tmp_path)
    with pytest.raises(InputError, match=message) as error:
        load_checkpoint(tmp_path)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400 + 2 * len(str(tmp_path))


def no_space(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    replace_file(tmp_path / "file", b"old")
    with monkeypatch.context() as patch:
        patch.setattr(os, step, no_space)
        with pytest.raises(OSError, match="No space left") as error:
            replace_file(tmp_path / "file", b"new")
    assert error.value.errno == errno.ENOSPC
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("file", b"old")]
    replace_file(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"new"


def test_runs_that_agree_may_share_a_folder(data: ImageData, config: ModelConfig, recipe: Recipe) -> None:
    record = run_record(config, data, recipe, 0)
    check_same_run(Path("folder"), {**record, "finished": True}, json.loads(json.dumps(record)))


def test_a_training_of_an_earlier_version_has_the_defaults_of_settings_that_it_does_not_know(
    data: ImageData, config: ModelConfig, recipe: Recipe
) -> None:
    there = run_record(config, data, recipe, 0)
    for name in ("optimizer", "milestones", "ema"):
        del there["recipe"][name]
    for name in ("wrapper", "in_channels"):
        del there["model"][name]
    check_same_run(Path("folder"), there, run_record(config, data, recipe, 0))
    with pytest.raises(InputError, match=r'recipe\.optimizer = "sgd", asked for is "adamw"'):
        check_same_run(Path("folder"), there, run_record(config, data, replace(recipe, optimizer="adamw"), 0))


@pytest.mark.parametrize(
    ("field", "there", "here", "message"),
    [
        ("config", {}, {"width": 8}, "model.width = 6, asked for is 8"),
        ("config", {}, {"normalize": ((0.5,) * 3, (1.0,) * 3)}, r"model.normalize = null, asked for is \[\[0.5"),
        ("recipe", {}, {"learning_rate": 0.2, "momentum": 0.8}, "recipe.learning_rate = 0.1, asked for is 0.2"),
        ("recipe", {"milestones": (1,)}, {"milestones": (2,)}, r"recipe.milestones\[0\] = 1, asked for is 2"),
        ("data", {}, {"name": "toy2"}, 'data.name = "toy", asked for is "toy2"'),
        ("data", {}, {"classes": ("red", "lime", "blue")}, r'data.classes\[1\] = "green", asked for is "lime"'),
        ("data", {}, {"classes": ("word",) * 999}, r'data.classes = \["red.*, asked for is \["word.*\.\.\.;'),
        ("data", {}, {"train": None}, "data.train_images = 70, asked for is 0"),
    ],
)
def test_the_first_difference_is_named_with_both_values(
    data: ImageData,
    config: ModelConfig,
    recipe: Recipe,
    field: str,
    there: dict[str, Any],
    here: dict[str, Any],
    message: str,
) -> None:
    def record(changes: dict[str, Any]) -> dict[str, Any]:
        parts: dict[str, Any] = {"config": config, "data": data, "recipe": recipe, "seed": 0}
        return run_record(**(parts | {field: replace(parts[field], **changes)}))

    with pytest.raises(InputError, match=f"folder holds a training with {message}"):
        check_same_run(Path("folder"), record(there), record(here))
