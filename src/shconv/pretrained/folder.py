"""A network as a folder that people share, in the Hugging Face layout: model.safetensors, config.json, README.md.
A folder needs no network and no huggingface_hub; whatever it holds is read as numbers and names, never run."""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from shconv.arguments import checked
from shconv.data.preparation import Preparation
from shconv.errors import InputError, first_line
from shconv.files import replace_text
from shconv.models import all_models, vanilla_of
from shconv.models.normalize import Normalize
from shconv.models.plain import Plain10
from shconv.models.registry import MATCHED
from shconv.models.resnet import ResNet
from shconv.models.shapes import shapes_only
from shconv.pretrained.card import model_card, without_places
from shconv.pretrained.converted import ConvertedConfig
from shconv.training.checkpoint import CONFIG, MODEL, ModelConfig, load_checkpoint, load_info, save_checkpoint
from shconv.training.tensors import read_tensors

CARD = "README.md"
REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")  # OWNER/NAME on Hugging Face
CONVERTED = "converted"  # config.json's key beside "model", for networks that create_model does not build
Config = ModelConfig | ConvertedConfig


@checked
def save_pretrained(
    model: nn.Module,
    folder: str | Path,
    *,
    config: Config | None = None,
    facts: Mapping[str, Any] | None = None,
    rows: str | Path | None = None,
    card: str | None = None,
) -> Path:
    """Write model.safetensors, README.md and config.json; from_pretrained gives the network back.

    Args:
        folder: made if need be; files of these names in it are replaced.
        config: how to build the network. None: found out for what create_model and from_pretrained give.
        facts: what else config.json shall hold, as plain JSON values. The card shows `data`, `test_accuracy`,
            `test_images` and `recipe` as a training's config.json has them.
        rows: a run folder of shconv reproduce, evaluate or audit: its tables go into the card.
        card: README.md's text, in place of the one made.

    Raises:
        InputError: a network that config does not build, or that is not known where there is no config.
        OSError: a full disk, say.
    """
    folder = Path(folder)
    config = config or config_of(model)
    if _shapes(config.build()) != _shapes(model):
        raise InputError(f"this {type(model).__name__} is not the network that its configuration builds: {config}")
    info = stored_info(model, config, facts)
    save_checkpoint(folder, model, info)  # first: whatever becomes of the card, the weights are there
    replace_text(folder / CARD, model_card(config.name, model, info, rows) if card is None else card)
    return folder


def stored_info(model: nn.Module, config: Config, facts: Mapping[str, Any] | None) -> dict[str, Any]:
    """What config.json holds of a network, as it is read again."""
    key = CONVERTED if isinstance(config, ConvertedConfig) else "model"
    info = {"library_name": "shconv", key: asdict(config), **_with_preparation(facts, model)}
    plain: dict[str, Any] = without_places(json.loads(json.dumps(info)))
    return plain


@checked
def from_pretrained(folder_or_repo_id: str | Path, *, revision: str | None = None) -> nn.Module:
    """The network of a folder, or of a Hugging Face repository, in eval mode on the CPU.

    Its attribute `preparation` says how images were prepared for it: load_data(..., preparation=model.preparation).

    Args:
        folder_or_repo_id: a folder that save_pretrained or shconv train wrote; else "owner/name", which needs the
            package huggingface_hub and, unless it is in its cache, a network.
        revision: of the repository: a branch, tag or commit.

    Raises:
        InputError: nothing there, files that are damaged or do not belong together, a network that cannot be built.
    """
    folder = Path(folder_or_repo_id)
    if not folder.is_dir():
        folder = _from_hub(str(folder_or_repo_id), revision)
    try:
        model, config = _loaded(folder)
        preparation = Preparation.of(load_info(folder) or {}, folder / CONFIG)
    except (RuntimeError, RecursionError, OverflowError, MemoryError) as error:
        raise InputError(f"{folder} holds no network that can be built ({first_line(error)})") from error
    vars(model).update(pretrained_config=config, preparation=preparation)  # so that save_pretrained need not be told
    return model


@checked
def load_network(path: str | Path) -> tuple[nn.Module, Config, dict[str, Any]]:
    """(network in eval mode on the CPU, how it is built, all of config.json), from a folder or its model.safetensors.

    What shconv train, shconv finetune and save_pretrained wrote. Raises InputError as from_pretrained does.
    """
    path = Path(path)
    folder = path.parent if path.suffix == ".safetensors" else path
    info = load_info(folder)
    return load_checkpoint(path) if info is None or CONVERTED not in info else (*_loaded(folder), info)


def config_of(model: nn.Module) -> Config:
    """How the network was built. Raises InputError where neither create_model nor from_pretrained did it."""
    known = getattr(model, "pretrained_config", None)
    if isinstance(known, ModelConfig | ConvertedConfig):
        return known
    if isinstance(model, Plain10 | ResNet):
        shapes = _shapes(model)
        first, *_, last = shapes.values()
        sizes: dict[str, Any] = {
            "num_classes": last[0],
            "in_channels": first[1],
            "width": first[0],
            "normalize": _constants(model),
        }
        known = [name for name in all_models() if (vanilla_of(name) == "plain10") == isinstance(model, Plain10)]
        for name in sorted(known, key=lambda name: name.endswith(MATCHED)):  # whose widths are searched for
            for stem in ("imagenet", "small"):
                config = ModelConfig(name, stem=stem, **sizes)
                with shapes_only():
                    if _shapes(config.build()) == shapes:
                        return config
    raise InputError(f"how this {type(model).__name__} was built is not known; give config=")


def _with_preparation(facts: Mapping[str, Any] | None, model: nn.Module) -> dict[str, Any]:
    """The facts, with what the network knows of its images where they are silent on it."""
    known, told = getattr(model, "preparation", None), dict(facts or {})
    data = known.stored() if isinstance(known, Preparation) else {}
    return {**told, "data": {**data, **(told.get("data") or {})}} if data else told


def _loaded(folder: Path) -> tuple[nn.Module, Config]:
    info = load_info(folder)
    if info is None or CONVERTED not in info:
        _refuse_more_than_the_file_has(folder, info)
        model, config, _ = load_checkpoint(folder)
        return model, config
    try:
        fields = dict(info[CONVERTED])
        fields["where"] = tuple(fields["where"])
        if isinstance(fields.get("normalize"), list):
            fields["normalize"] = tuple(map(tuple, fields["normalize"]))
        converted = ConvertedConfig(**fields)
        with torch.random.fork_rng(devices=[]):
            model = converted.build()
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{folder / CONFIG} describes no network ({error})") from error
    try:
        model.load_state_dict(read_tensors(folder / MODEL))
    except (OSError, RuntimeError, InputError) as error:
        reason = " ".join(str(error).split())[:240]
        raise InputError(f"{folder / MODEL} does not hold the network that {CONFIG} says ({reason})") from error
    return model.eval(), converted


def _refuse_more_than_the_file_has(folder: Path, info: dict[str, Any] | None) -> None:
    """Before it takes the memory for it, a width of a million is held against the file's size."""
    fields = (info or {}).get("model")
    file = folder / MODEL
    if not isinstance(fields, dict) or not file.is_file():
        return  # load_checkpoint says so
    sizes = [fields.get(name, 1) for name in ("num_classes", "in_channels", "width")]
    if not all(type(size) is int and 0 < size <= file.stat().st_size for size in sizes):
        raise InputError(f"{folder / CONFIG} asks for sizes {sizes}, which {MODEL} cannot hold")
    with shapes_only():
        try:
            wanted = sum(p.numel() for p in ModelConfig(**{**fields, "normalize": None}).build().parameters())
        except (TypeError, ValueError) as error:
            raise InputError(f"{folder / CONFIG} describes no network ({error})") from error
    if wanted > file.stat().st_size:
        raise InputError(f"{folder / CONFIG} asks for {wanted:,} parameters, which {MODEL} cannot hold")


def _from_hub(repo_id: str, revision: str | None) -> Path:
    if not REPOSITORY.fullmatch(repo_id) or Path(repo_id).exists():
        raise InputError(f"there is no folder {repo_id}, and it is no repository's OWNER/NAME either")
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError
    except ImportError as error:
        raise InputError(
            f"there is no folder {repo_id}; to download it from Hugging Face, the package huggingface_hub is needed: "
            "pip install huggingface_hub"
        ) from error
    try:
        return Path(snapshot_download(repo_id, revision=revision, allow_patterns=[MODEL, CONFIG]))
    except (OSError, ValueError, HfHubHTTPError) as error:
        raise InputError(
            f"there is no folder {repo_id}, and it cannot be downloaded from Hugging Face ({first_line(error)})"
        ) from error


def _shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def _constants(model: nn.Module) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    found = next((each for each in model.modules() if isinstance(each, Normalize)), None)
    return None if found is None else (found.mean, found.std)
