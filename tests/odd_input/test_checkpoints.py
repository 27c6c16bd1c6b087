"""Checkpoints as people have them: wrapped, prefixed, beside options, averaged, sharded; each with the right weights or
with a message that says what was found and what to do."""

import argparse
import collections
import datetime
import json
import pathlib
import pickle
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from shconv import InputError
from shconv.pretrained.converted import create_vanilla
from shconv.pretrained.state_file import read_weights
from shconv.pretrained.weights import Filled, network_with

ARCH = "timm:test_resnet"
CLASSES = 5
HEAD = "fc."

State = dict[str, Tensor]


def made(seed: int) -> State:
    torch.manual_seed(seed)
    return dict(create_vanilla(ARCH, CLASSES).state_dict())


WEIGHTS, OTHER = made(0), made(1)  # those that are wanted, and an average or a student beside them


def prefixed(prefix: str, state: State = WEIGHTS) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


def within(state: State = WEIGHTS) -> State:
    """As torch.compile leaves names that was called on a part of the network."""
    return {name.replace("layer1.", "layer1._orig_mod."): tensor for name, tensor in state.items()}


def optimiser() -> dict[str, Any]:
    """The state of one that has made a step."""
    layer = nn.Linear(2, 2)
    adam = torch.optim.Adam(layer.parameters())
    layer(torch.ones(1, 2)).sum().backward()
    adam.step()
    return adam.state_dict()


def lightning() -> dict[str, Any]:
    """The layout of Lightning's files."""
    versions = {"epoch": 3, "global_step": 10, "pytorch-lightning_version": "2.4.0", "loops": {"fit_loop": {}}}
    kept = {"callbacks": {"ModelCheckpoint{'monitor': None}": {"best_model_score": torch.tensor(0.5)}}}
    return versions | kept | {"state_dict": prefixed("model."), "optimizer_states": [optimiser()], "lr_schedulers": []}


class AttributeDict(dict[str, Any]):
    """As Lightning's, under whose name it is pickled."""


AttributeDict.__module__, AttributeDict.__qualname__ = "lightning_fabric.utilities.data", "AttributeDict"


@pytest.fixture(autouse=True)
def lightnings_module(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that it can be pickled."""
    for name in ("lightning_fabric", "lightning_fabric.utilities", "lightning_fabric.utilities.data"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setattr(sys.modules["lightning_fabric.utilities.data"], "AttributeDict", AttributeDict, raising=False)


OPTIONS = argparse.Namespace(lr=0.1, data=pathlib.Path("here"), device=torch.device("cpu"), sizes=(1, 2), inner={})
RIGHT: dict[str, Callable[[], Any]] = {
    "a state_dict": lambda: WEIGHTS,
    "an OrderedDict": lambda: collections.OrderedDict(WEIGHTS),
    "a defaultdict": lambda: collections.defaultdict(list, WEIGHTS),
    "torchvision's script": lambda: {"model": WEIGHTS, "optimizer": optimiser(), "args": OPTIONS, "epoch": 3},
    "torchvision's with an average": lambda: {"model": WEIGHTS, "args": OPTIONS, "model_ema": OTHER},
    "the average alone": lambda: {"model_ema": {"n_averaged": torch.tensor(3), **prefixed("module.")}, "args": OPTIONS},
    "timm's script": lambda: {"arch": ARCH, "state_dict": WEIGHTS, "optimizer": optimiser(), "args": OPTIONS,
                              "metric": np.float64(91.5), "version": 2, "amp_scaler": {"scale": 1.0}},
    "timm's with an average": lambda: {"state_dict": WEIGHTS, "state_dict_ema": OTHER, "args": OPTIONS},
    "timm's average alone": lambda: {"epoch": 1, "state_dict_ema": WEIGHTS},
    "Lightning": lightning,
    "Lightning, compiled": lambda: {**lightning(), "state_dict": prefixed("model._orig_mod.")},
    "Lightning, with a loss's tensors": lambda: {"state_dict": {**prefixed("net."), "criterion.weight": torch.ones(5)}},
    "model_state_dict": lambda: {"epoch": 1, "model_state_dict": WEIGHTS, "loss": 0.1},
    "model_state": lambda: {"model_state": WEIGHTS},
    "net": lambda: {"net": WEIGHTS, "acc": 91.2, "epoch": 7},
    "network": lambda: {"network": WEIGHTS},
    "module": lambda: {"module": WEIGHTS, "dp_world_size": 4},
    "weights": lambda: {"weights": WEIGHTS},
    "params": lambda: {"params": WEIGHTS, "params_ema": OTHER},
    "teacher": lambda: {"teacher": prefixed("module.backbone.")},
    "student and teacher": lambda: {"student": prefixed("module.", OTHER), "teacher": prefixed("module."), "epoch": 1},
    "an unknown word": lambda: {"my_favourite": WEIGHTS},
    "deep": lambda: {"checkpoint": {"model": {"state_dict": WEIGHTS}}},
    "DataParallel": lambda: prefixed("module."),
    "torch.compile": lambda: prefixed("_orig_mod."),
    "both, one way": lambda: prefixed("module._orig_mod."),
    "both, the other way": lambda: prefixed("_orig_mod.module."),
    "compiled within": within,
    "FSDP": lambda: {name.replace("layer1.", "layer1._fsdp_wrapped_module."): each for name, each in WEIGHTS.items()},
    "model.": lambda: prefixed("model."),
    "net.": lambda: prefixed("net."),
    "backbone.": lambda: prefixed("backbone."),
    "encoder.": lambda: prefixed("encoder."),
    "nested": lambda: {"state_dict": prefixed("module.model.backbone.")},
    "any prefix": lambda: prefixed("my_network."),
    "a prefix like the network's own": lambda: prefixed("layer1."),
    "beside numbers": lambda: {**WEIGHTS, "epoch": 3, "best": 0.5, "name": "x", "none": None},
    "beside other tensors": lambda: {**WEIGHTS, "zzz.weight": torch.ones(3), "aaa.bias": torch.ones(2)},
    "no counters": lambda: {name: each for name, each in WEIGHTS.items() if not name.endswith("num_batches_tracked")},
    "other names in order": lambda: {f"x{i}.{key.rpartition('.')[2]}": WEIGHTS[key] for i, key in enumerate(WEIGHTS)},
    "shuffled": lambda: dict(sorted(WEIGHTS.items(), key=lambda item: item[0][::-1])),
    "parameters": lambda: WEIGHTS | {name: nn.Parameter(WEIGHTS[name]) for name in WEIGHTS if name.endswith("weight")},
    "numpy's numbers": lambda: {"state_dict": WEIGHTS, "best": np.float32(1), "epoch": np.int64(3),
                                "ok": np.bool_(True),
                                "curve": np.arange(3.0)},
    "paths and dates": lambda: {"state_dict": WEIGHTS, "out": pathlib.PurePosixPath("a"),
                                "on": pathlib.PureWindowsPath("b"),
                                "when": datetime.datetime(2020, 1, 1), "took": datetime.timedelta(1),
                                "size": torch.Size([2])},
    "a SimpleNamespace": lambda: {"state_dict": WEIGHTS, "config": types.SimpleNamespace(lr=0.1)},
    "Lightning's options": lambda: {**lightning(), "hyper_parameters": AttributeDict(lr=0.1)},
    "counted": lambda: {"state_dict": WEIGHTS, "milestones": collections.Counter([30, 60])},
}  # fmt: skip
WRITERS: dict[str, Callable[[Any, Path], None]] = {
    "zip": torch.save,
    "the older format": lambda held, file: torch.save(held, file, _use_new_zipfile_serialization=False),
}


def exact(filled: Filled, wanted: State = WEIGHTS) -> bool:
    own = filled.network.state_dict()
    return all(torch.equal(own[name], wanted[name]) for name in own if not name.endswith("num_batches_tracked"))


def filled(file: Path) -> Filled:
    return network_with(ARCH, read_weights(file))


# In both formats; of the others, which differ in their keys, the older format is slow.
OBJECTS = ("a defaultdict", "torchvision's script", "Lightning", "numpy's numbers", "paths and dates",
           "a SimpleNamespace", "Lightning's options", "counted")  # fmt: skip


@pytest.mark.parametrize(
    ("layout", "write"),
    [
        pytest.param(
            RIGHT[layout],
            WRITERS[write],
            id=f"{layout}-{write}",
            marks=[pytest.mark.slow] if write != "zip" and layout not in OBJECTS else [],
        )
        for layout in RIGHT
        for write in WRITERS
    ],
)
def test_the_right_weights(tmp_path: Path, layout: Callable[[], Any], write: Callable[[Any, Path], None]) -> None:
    write(layout(), tmp_path / "a.pth")
    found = filled(tmp_path / "a.pth")
    assert found.has_head
    assert exact(found)


def test_those_trained_come_before_their_average_and_a_line_says_so(tmp_path: Path) -> None:
    torch.save(RIGHT["torchvision's with an average"](), tmp_path / "a.pth")
    assert filled(tmp_path / "a.pth").said == "the weights: under model; not those under model_ema"


def test_what_was_taken_of_a_larger_file_is_said(tmp_path: Path) -> None:
    torch.save(RIGHT["Lightning, with a loss's tensors"](), tmp_path / "a.pth")
    said = filled(tmp_path / "a.pth").said
    assert "under state_dict; without the prefix net.; 1 tensors of other names left out, such as criterion" in said


@pytest.mark.parametrize("layout", [dict, lambda state: {"teacher": prefixed("backbone.", state)}])
def test_a_body_without_its_head_gets_a_new_one(tmp_path: Path, layout: Callable[[State], Any]) -> None:
    torch.save(layout({name: each for name, each in WEIGHTS.items() if not name.startswith(HEAD)}), tmp_path / "a.pth")
    found = filled(tmp_path / "a.pth")
    assert not found.has_head
    assert "no head" in found.said
    assert torch.equal(found.network.state_dict()["conv1.0.weight"], WEIGHTS["conv1.0.weight"])


def tensors(prefix: str = "") -> State:
    return {prefix + name: each.contiguous() for name, each in WEIGHTS.items()}


@pytest.mark.parametrize("name", ["a.safetensors", "a.bin", "a.pth"])
@pytest.mark.parametrize("prefix", ["", "module.", "model._orig_mod.", "backbone."])
def test_safetensors_under_any_name_with_any_prefix(tmp_path: Path, name: str, prefix: str) -> None:
    safetensors.torch.save_file(tensors(prefix), tmp_path / name)
    assert exact(filled(tmp_path / name))


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_shards_by_their_index(tmp_path: Path, suffix: str) -> None:
    names = list(WEIGHTS)
    parts = {f"part{k}.{suffix}": {name: tensors()[name] for name in names[k::2]} for k in range(2)}
    for file, part in parts.items():
        (safetensors.torch.save_file if suffix == "safetensors" else torch.save)(part, tmp_path / file)
    index = {"weight_map": {name: file for file, part in parts.items() for name in part}}
    (tmp_path / f"model.{suffix}.index.json").write_text(json.dumps(index))
    assert exact(filled(tmp_path / f"model.{suffix}.index.json"))


class Mine(nn.Module):
    """A network of the user's own class."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)


class Meter:
    """An object of the user's own class."""


def whole(file: Path) -> None:
    torch.save(Mine(), file)


def library(file: Path) -> None:
    torch.save({"epoch": 1, "model": create_vanilla("torchvision:squeezenet1_1", 3)}, file)


def script(file: Path) -> None:
    torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.ones(1, 2)), file)


class Trap:
    """Its pickle calls os.system."""

    def __reduce__(self) -> Any:
        import os

        return os.system, ("touch sprung",)


def pickled(held: Any) -> Callable[[Path], None]:
    return lambda file: file.write_bytes(pickle.dumps(held, protocol=2)) and None  # type: ignore[func-returns-value]


def saved(held: Any) -> Callable[[Path], None]:
    return lambda file: torch.save(held, file)


def text(content: bytes) -> Callable[[Path], None]:
    return lambda file: file.write_bytes(content) and None  # type: ignore[func-returns-value]


def cut(file: Path) -> None:
    torch.save(WEIGHTS, file)
    file.write_bytes(file.read_bytes()[:1000])


REFUSED: dict[str, tuple[Callable[[Path], None], str]] = {
    "a whole network": (whole, r"whole network, not its weights alone: .*Mine.*\.state_dict\(\), \"weights.pth\""),
    "a library's whole network": (library, r"whole network.*squeezenet.*\.state_dict\(\)"),
    "TorchScript": (script, r"TorchScript archive.*torch\.jit\.load\(FILE\)\.state_dict\(\)"),
    "a trap": (saved({"a": Trap()}), r"could run code|without running code"),
    "a trap beside weights": (saved({"model": WEIGHTS, "args": Trap()}), r"could run code"),
    "a trap in a plain pickle": (pickled(Trap()), "code"),
    "an object of one's own": (saved({"model": WEIGHTS, "meter": Meter()}), r"objects beside weights: \S*Meter\."),
    "a list": (saved([1, 2]), "holds no weights: wanted names and tensors, found a list"),
    "one tensor": (saved(torch.ones(3)), "found a Tensor"),
    "nothing": (saved({}), "found nothing"),
    "numbers": (saved({"epoch": 1, "lr": 0.1}), r"found \(epoch: int, lr: float\)"),
    "options alone": (saved({"args": OPTIONS}), r"found \(args: options\)"),
    "an optimiser alone": (saved({"optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}}}), "do not fit|no weights"),
    "another network": (saved(create_vanilla("torchvision:squeezenet1_1", 3).state_dict()),
                        "found 52 tensors; .*neither by name"),
    "another network, wrapped": (saved({"model": {"a.weight": torch.ones(2)}, "ema": {"b.weight": torch.ones(2)}}),
                                 "found 1 tensors under model, 1 tensors under ema; .*neither by name"),
    "another width": (saved({name: each[:1] if name == "conv1.0.weight" else each for name, each in WEIGHTS.items()}),
                      r"the file's conv1\.0\.weight is \(1, 3, 3, 3\), that of timm:test_resnet \("),
    "cut short": (cut, "holds no weights that can be read"),
    "empty": (text(b""), "holds no weights that can be read"),
    "a text": (text(b"hello"), "holds no weights that can be read"),
    "a web page": (text(b"<!DOCTYPE html><html>"), "is a web page"),
    "a pointer of Git LFS": (text(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"), "git lfs pull"),
    "Keras": (text(b"\x89HDF\r\n\x1a\n"), "HDF5"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::FutureWarning")  # TorchScript is on its way out
@pytest.mark.parametrize(("write", "message"), REFUSED.values(), ids=REFUSED)
def test_the_right_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path], None], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, Mine.__module__, sys.modules[__name__])
    write(tmp_path / "a.pth")
    with pytest.raises(InputError, match=message) as refused:
        filled(tmp_path / "a.pth")
    assert "\x1b" not in str(refused.value)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [("{}", "is no index of weights"), ("[", "is no index"),
     ('{"weight_map": {"a": "../b.bin"}}', "in the same folder"),
     ('{"weight_map": {"a": "gone.bin"}}', "there is no file")],
)  # fmt: skip
def test_an_index_that_leads_nowhere(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "a.index.json").write_text(content)
    with pytest.raises(InputError, match=message):
        read_weights(tmp_path / "a.index.json")
