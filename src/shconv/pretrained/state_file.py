"""The weights in files that people have: safetensors, what torch.save wrote (a state_dict, or one among options,
optimisers and averages), or the index of several such. No code of a file is ever run, nor any of its classes."""

import json
import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from shconv.errors import InputError, few
from shconv.training.tensors import read_tensors

Weights = dict[str, Tensor]

# Under what training scripts keep weights: those trained first, then what was averaged of them, then parts of them.
PLACES = ("", "state_dict", "model_state_dict", "model_state", "model", "net", "network", "module", "weights", "params",
          "state_dict_ema", "model_ema", "ema", "params_ema", "ema_state_dict", "teacher", "student", "backbone",
          "encoder")  # fmt: skip
DEEPEST = 4  # mappings in mappings
PLAIN = {  # kinds whose objects may stand beside the weights: each becomes an _Inert, and nothing of theirs is called
    "argparse": ("Namespace",),
    "types": ("SimpleNamespace",),
    "builtins": ("list", "dict", "int", "float", "str", "bool", "tuple", "bytes", "complex", "slice", "range"),
    "typing": ("Any",),
    "pathlib": ("Path", "PosixPath", "WindowsPath", "PurePath", "PurePosixPath", "PureWindowsPath"),
    "pathlib._local": ("Path", "PosixPath", "WindowsPath", "PurePath", "PurePosixPath", "PureWindowsPath"),
    "datetime": ("datetime", "date", "time", "timedelta", "timezone"),
    "decimal": ("Decimal",),
    "fractions": ("Fraction",),
    "uuid": ("UUID",),
    "_codecs": ("encode",),
    "numpy": ("dtype", "ndarray", "bool_", *(f"{kind}{n}" for kind in ("int", "float") for n in (8, 16, 32, 64))),
    **{f"numpy.{core}.multiarray": ("scalar", "_reconstruct") for core in ("core", "_core")},
    "numpy.dtypes": tuple(f"{kind}DType" for kind in ("Bool", "Str", "Object", "Float16", "Float32", "Float64", "Int8",
                                                     "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32", "UInt64")),
    "omegaconf.dictconfig": ("DictConfig",),
    "omegaconf.listconfig": ("ListConfig",),
    "omegaconf.base": ("ContainerMetadata", "Metadata"),
    "omegaconf.nodes": ("AnyNode", "StringNode", "IntegerNode", "FloatNode", "BooleanNode", "PathNode", "BytesNode"),
    "yacs.config": ("CfgNode",),
    "easydict": ("EasyDict",),
    "ml_collections.config_dict.config_dict": ("ConfigDict", "FieldReference"),
    "mmengine.logging.history_buffer": ("HistoryBuffer",),
    "torch.torch_version": ("TorchVersion",),
}  # fmt: skip
TABLES = ("collections.defaultdict", "lightning.fabric.utilities.data.AttributeDict",
          "lightning_fabric.utilities.data.AttributeDict", "pytorch_lightning.utilities.parsing.AttributeDict",
          "addict.addict.Dict", "mmengine.config.config.ConfigDict")  # fmt: skip
NETWORKS = ("torch.nn.modules.", "torchvision.models.", "timm.models.", "timm.layers.")
FOREIGN = {  # how files begin that are something else
    b"version https://git-lfs": "is a pointer of Git LFS, not the file itself: git lfs pull fetches it",
    b"<": "is a web page, not the file that was to be downloaded",
    b"\x89HDF": "is an HDF5 file, of Keras perhaps",
}


class _Inert:
    """In the place of an object that is no weight. It takes whatever its pickle does to it, and keeps nothing."""

    def __new__(cls, *args: object, **kwargs: object) -> "_Inert":
        return super().__new__(cls)

    def __init__(self, *args: object, **kwargs: object) -> None: ...

    def __setitem__(self, key: object, value: object) -> None: ...

    def __setstate__(self, state: object) -> None: ...


class _Table:
    """In the place of a kind of dictionary: a plain one, the only kind that torch's reader fills."""

    def __new__(cls, *args: object) -> dict[Any, Any]:  # type: ignore[misc]
        return {}


def read_weights(file: Path) -> dict[str, Weights]:
    """Where in the file weights stand ("model", "ema.module"; "" is the file itself), the likeliest first.

    Raises InputError where it holds none, or what could not be read without running code; the message says what.
    """
    if not file.is_file():
        raise InputError(f"there is no file {file}")
    with file.open("rb") as opened:
        head = opened.read(64)
    for beginning, what in FOREIGN.items():
        if head.startswith(beginning):
            raise InputError(f"{file} {what}; wanted: safetensors, or what torch.save wrote")
    if file.name.endswith(".index.json"):
        return {"": _shards(file)}
    if file.suffix == ".safetensors" or head[8:9] == b"{":
        return {"": read_tensors(file)}
    held = _unpickled(file)
    found = dict(_places(held))
    if not found:
        raise InputError(f"{file} holds no weights: wanted names and tensors, found {_kinds(held)}")
    return dict(sorted(found.items(), key=lambda item: _rank(item[0])))


def _shards(index: Path) -> Weights:
    """All tensors of the files that an index names, beside it."""
    try:
        names = sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{index} is no index of weights: wanted a weight_map of names and files") from error
    weights: Weights = {}
    for name in names:
        if not isinstance(name, str) or Path(name).name != name:
            raise InputError(f"{index} names the file {name!r}; wanted: a name in the same folder")
        for part in read_weights(index.parent / name).values():
            weights |= part
    return weights


def _unpickled(file: Path) -> Any:
    allowed: list[Any] = [(_Inert, f"{module}.{name}") for module, names in PLAIN.items() for name in names]
    allowed += [(_Table, name) for name in TABLES]
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(allowed):
            warnings.simplefilter("ignore")  # of TorchScript, which is refused below
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file ends in many kinds of them
        text = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
        if "TorchScript" in text:
            raise InputError(
                f"{file} is a TorchScript archive. Store its weights alone: "
                'torch.save(torch.jit.load(FILE).state_dict(), "weights.pth")'
            ) from error
        if names := _refused(file, text):
            raise InputError(_says_what_is_refused(file, names)) from error
        reason = (text.splitlines() or [type(error).__name__])[0]
        if "persistent_load" in text or "Weights only load failed" in text:
            reason = "it is damaged, or torch.save did not write it"
        raise InputError(f"{file} holds no weights that can be read without running code ({reason})") from error


def _refused(file: Path, text: str) -> list[str]:
    """The names of the kinds for which a file was refused."""
    known = {f"{module}.{name}" for module, names in PLAIN.items() for name in names}
    try:
        found = torch.serialization.get_unsafe_globals_in_checkpoint(str(file))
    except Exception:  # the older format, and damaged files
        found = re.findall(r"GLOBAL (\S+) was not an allowed|module whose instruction (\S+) is blocked", text)
        found = ["".join(each) for each in found] or re.findall(r"Unsupported (?:class|global|type) (\S+)", text)
    return [name for name in found if name not in known]


def _says_what_is_refused(file: Path, names: list[str]) -> str:
    whole = any(name.startswith(NETWORKS) for name in names)
    own = [name for name in names if not name.startswith("torch.nn.modules.")] or names
    what = "a whole network, not its weights alone" if whole else "objects beside weights"
    taken = "torch.load(FILE, weights_only=False)" + (".state_dict()" if whole else '["the key of its weights"]')
    return (
        f"{file} holds {what}: {few(own, 4)}. To read them could run code, so they are not read. Where you trust the "
        f'file, store its weights alone: torch.save({taken}, "weights.pth")'
    )


def _places(held: Any, place: str = "", depth: int = 0) -> Iterator[tuple[str, Weights]]:
    """Every mapping with tensors under names, however deep."""
    if not isinstance(held, Mapping) or depth > DEEPEST:
        return
    weights = {name: each for name, each in held.items() if isinstance(each, Tensor) and isinstance(name, str)}
    if weights:
        yield place, weights
    for name, each in held.items():
        if isinstance(name, str):
            yield from _places(each, f"{place}.{name}" if place else name, depth + 1)


def _rank(place: str) -> tuple[int, int]:
    """By the words of PLACES; unknown ones, as an optimiser's, come last."""
    ranks = [PLACES.index(word) if word in PLACES else len(PLACES) for word in place.split(".")]
    return max(ranks), len(ranks)


def _kinds(held: Any) -> str:
    if not isinstance(held, Mapping):
        return f"a {type(held).__name__}"
    names = [f"{name}: {type(each).__name__.replace('_Inert', 'options')}" for name, each in list(held.items())[:6]]
    return f"({', '.join(map(str, names))})" if names else "nothing"
