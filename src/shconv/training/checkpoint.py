"""What a training leaves on disk, and back: model.safetensors + config.json.

Every file is replaced in one step: a full disk or an interrupt leaves the file that was there before."""

import json
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors.torch
import torch
from torch import Tensor, nn

from shconv.arguments import checked, checked_fields
from shconv.errors import InputError, few, first_line
from shconv.files import replace_file, replace_json
from shconv.folders import what_is_at
from shconv.models.normalize import Normalization
from shconv.models.wrapped import wrapped
from shconv.training.recipe import Recipe
from shconv.training.state import STATE
from shconv.training.tensors import read_tensors

if TYPE_CHECKING:
    from shconv.data import ImageData

MODEL, CONFIG = "model.safetensors", "config.json"
LATER = ("train_size", "test_preset")  # fields of the data that earlier versions did not store


@checked_fields
@dataclass(frozen=True)
class ModelConfig:
    """The arguments of `shconv.create_model` that rebuild a network, and what a defence has put around it."""

    name: str
    num_classes: int
    in_channels: int = 3
    stem: str = "imagenet"
    width: int = 64
    normalize: Normalization = None
    wrapper: str | None = None  # "detector:layer2": a word of shconv.models.wrapped, and its setting

    def build(self) -> nn.Module:
        """A new network with random weights from torch's generator. Raises InputError where `create_model` or `wrapped`
        does."""
        from shconv import create_model

        arguments = dict(vars(self))
        wrapper = arguments.pop("wrapper")
        network = create_model(**arguments)
        return network if wrapper is None else wrapped(network, wrapper)


def run_record(
    config: ModelConfig, data: "ImageData", recipe: Recipe, seed: int, defence: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """All that decides the outcome of a training, as plain JSON values: what two runs that share a folder agree in."""
    images = {"train_images": len(data.train) if data.train is not None else 0, "test_images": len(data.test)}
    about = {"name": data.name, "classes": data.classes, **data.preparation.stored(), **images}
    about["open_groups"] = data.open_groups  # decides the order of images from Parquet
    record = {"model": asdict(config), "data": about, "recipe": asdict(recipe), "seed": seed, "defence": defence}
    if recipe.ema is not None:
        record["weights"] = f"the exponential mean of the trained ones, decay {recipe.ema:g}"
    plain: dict[str, Any] = json.loads(json.dumps(record))
    return plain


def check_same_run(folder: Path, stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raises InputError naming the first field in which the stored training differs from the wanted one."""
    parts = {"model": ModelConfig, "recipe": Recipe}
    there = {**stored, **{part: {**_defaults(kind), **(stored.get(part) or {})} for part, kind in parts.items()}}
    difference = first_difference({key: there.get(key) for key in wanted}, _comparable(wanted, stored))
    if difference is not None:
        field, there, here = difference
        raise InputError(
            f"{folder} holds a training with {field} = {_short(there)}, asked for is {_short(here)}; "
            "take another folder, or the same setting"
        )


def _defaults(kind: Any) -> dict[str, Any]:
    """As which options count that the training of an earlier version did not know."""
    known = {field.name: field.default for field in fields(kind) if field.default is not MISSING}
    plain: dict[str, Any] = json.loads(json.dumps(known))
    return plain


def _comparable(wanted: Mapping[str, Any], stored: Mapping[str, Any]) -> dict[str, Any]:
    """Without what earlier versions did not store."""
    held = stored.get("data") or {}
    data = {name: value for name, value in wanted["data"].items() if name not in LATER or name in held}
    return {**wanted, "data": data}


def first_difference(there: Any, here: Any, field: str = "") -> tuple[str, Any, Any] | None:
    """(dotted field, value there, value here) of the first leaf that differs, or None."""
    if isinstance(there, dict) and isinstance(here, dict):
        pairs = ((f"{field}.{key}".lstrip("."), there.get(key), here.get(key)) for key in here | there)
    elif isinstance(there, list) and isinstance(here, list) and len(there) == len(here):
        pairs = ((f"{field}[{i}]", a, b) for i, (a, b) in enumerate(zip(there, here, strict=True)))
    else:
        return None if there == here else (field, there, here)
    return next((found for name, a, b in pairs if (found := first_difference(a, b, name)) is not None), None)


def save_checkpoint(folder: Path, model: nn.Module, record: Mapping[str, Any]) -> None:
    """Writes model.safetensors, then config.json, whose presence says that both are whole.

    `record` has run_record's fields and the result. Names carry no prefix of torch.compile or DistributedDataParallel.
    Tied tensors are stored once, their other names in the file's metadata, as `safetensors.torch.save_model` does it.
    """
    tensors: dict[str, Tensor] = {}
    names: dict[tuple[Any, ...], str] = {}
    tied: dict[str, str] = {}
    for name, tensor in model.state_dict().items():
        name = _bare(name)
        place = (tensor.device, tensor.data_ptr(), tensor.shape, tensor.stride())
        if tensor.numel() > 0 and place in names:
            tied[name] = names[place]
        else:
            names[place] = name
            tensors[name] = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
    folder.mkdir(parents=True, exist_ok=True)
    replace_file(folder / MODEL, safetensors.torch.save(tensors, metadata=tied))
    replace_json(folder / CONFIG, record)


@checked
def load_checkpoint(path: str | Path) -> tuple[nn.Module, ModelConfig, dict[str, Any]]:
    """(model in eval mode on the CPU, its configuration, all of config.json), from a folder or its model.safetensors.

    Raises InputError for a missing, damaged or unfinished checkpoint, and for tensors that are not this network's.
    """
    path = Path(path)
    folder, file = (path.parent, path) if path.suffix == ".safetensors" else (path, path / MODEL)
    info = load_info(folder)
    if info is None:
        why = f"there is no {CONFIG}" if (folder / MODEL).exists() else f"it {what_is_at(folder)}"
        why = "its training is not finished" if (folder / STATE).exists() else why
        raise InputError(f"no checkpoint in {folder}: {why}")
    model, config = _build(folder / CONFIG, info)
    tensors = {_bare(name): tensor for name, tensor in read_tensors(file).items()}
    wanted = model.state_dict()
    missing = [name for name in wanted if name not in tensors]
    unexpected = [name for name in tensors if name not in wanted]
    if missing or unexpected:
        raise InputError(f"{file} is not a {config.name}: missing {few(missing)}; unexpected {few(unexpected)}")
    shapes = [(name, tuple(tensors[name].shape), tuple(wanted[name].shape)) for name in wanted]
    wrong = [f"{name} {there}, not {here}" for name, there, here in shapes if there != here]
    if wrong:
        raise InputError(f"{file} holds other shapes than {CONFIG} says: {few(wrong)}")
    model.load_state_dict(tensors)
    return model.eval(), config, info


def load_info(folder: Path) -> dict[str, Any] | None:
    """config.json of a finished training, None where there is none. Raises InputError for a damaged one."""
    path = folder / CONFIG
    if not path.exists():
        return None
    try:
        info = json.loads(path.read_text())
    except ValueError as error:
        raise InputError(f"{path} is damaged ({first_line(error)})") from error
    if not isinstance(info, dict):
        raise InputError(f"{path} is damaged (it holds no JSON object)")
    return info


def _build(path: Path, info: dict[str, Any]) -> tuple[nn.Module, ModelConfig]:
    try:
        fields = dict(info["model"])
        if isinstance(fields.get("normalize"), list):
            mean, std = fields["normalize"]
            fields["normalize"] = (tuple(mean), tuple(std))
        config = ModelConfig(**fields)
        with torch.random.fork_rng(devices=[]):  # the random weights are about to be replaced
            return config.build(), config
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} describes no network ({first_line(error)})") from error


def _bare(name: str) -> str:
    """A tensor's name without what torch.compile and DistributedDataParallel put into it."""
    return name.replace("_orig_mod.", "").removeprefix("module.")


def _short(value: Any, most: int = 80) -> str:
    text = json.dumps(value)
    return text if len(text) <= most else text[:most] + "..."
