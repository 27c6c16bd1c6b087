"""--compile: when a step's passes are captured, what is said, and that torch.compile is asked for just that."""

import pytest
import torch
from torch import nn

from shconv.training import compiling
from shconv.training.defences import Plain, create_defence
from shconv.training.engine import Engine

CUDA, CPU = torch.device("cuda"), torch.device("cpu")


@pytest.mark.parametrize(
    ("device", "engine", "processes", "defence", "reason"),
    [
        (CUDA, Engine(compile=True), 1, "none", ""),
        (CPU, Engine(compile=True), 1, "none", "the device is cpu"),
        (CUDA, Engine(compile=True, graphs=False), 1, "none", "it was turned off"),
        (CUDA, Engine(compile=True, accumulation=2), 1, "none", "micro-batches"),
        (CUDA, Engine(compile=True), 2, "none", "averaged over processes"),
        (CUDA, Engine(compile=True), 1, "pgd", "the defence pgd makes several passes"),
    ],
)
def test_passes_are_captured_where_a_step_has_one_of_each_and_else_one_reason_is_given(
    device: torch.device, engine: Engine, processes: int, defence: str, reason: str
) -> None:
    found = compiling.reason_against_graphs(
        device, engine, processes, Plain() if defence == "none" else create_defence(defence)
    )
    assert reason in found
    assert bool(found) == bool(reason)
    said = compiling.said(found)
    assert ("run from CUDA graphs" in said) == (not reason)
    assert reason in said


def test_the_environment_turns_the_graphs_off_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHCONV_GRAPHS", "0")
    assert compiling.reason_against_graphs(CUDA, Engine(compile=True), 1, Plain()) == "SHCONV_GRAPHS is 0"


@pytest.mark.parametrize(("reason", "options"), [("", {"mode": "reduce-overhead"}), ("the device is cpu", {})])
def test_torch_compile_is_asked_for_graphs_only_where_they_serve(
    reason: str, options: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(torch, "compile", lambda network, **given: asked.append(given) or network)
    network = nn.Identity()
    assert compiling.compiled(network, reason) is network
    assert asked == [options]
