"""What the GPU's parts about kernels are made of, in Triton's interpreter or compiled for a card that is not there (the
whole of it: `python -m shconv.bench.gpu --rehearse`)."""

import importlib.util
from pathlib import Path

import pytest
import torch

from shconv.bench.gpu.problems import LAYERS, ODD, Layer, problem, truth
from shconv.bench.gpu.report import Report
from shconv.ops import reference

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")


def test_the_table_ends_with_what_the_rule_takes_and_the_fastest_of_all() -> None:
    from shconv.bench.gpu import kernels

    rows = [
        {"layer": "a", "pass": "dX", "tile": "rule", "cudnn_us": 10.0, "ratio": 1.2},
        {"layer": "a", "pass": "dX", "tile": "quick", "cudnn_us": 10.0, "ratio": 1.1},
        {"layer": "a", "pass": "dW", "tile": "rule", "cudnn_us": 10.0, "error": "wrong"},
    ]
    *given, last = kernels.chosen(iter(rows))
    assert given == rows
    assert last == {"layer": "a", "pass": "dX", "cudnn_us": 10.0, "rule": 1.2, "best": 1.1, "tile": "quick"}


def test_the_truth_by_taps_is_the_definition() -> None:
    for stride in (1, 2):
        of = problem(Layer(2, 8, 16, 6, stride), torch.float32, torch.device("cpu"))
        inputs = [each.double().requires_grad_() for each in (of.x, of.weight, of.M)]
        Y = reference.filtered_conv2d(*inputs, None, stride, 1)
        dX, dW, dM = torch.autograd.grad(Y, inputs, of.dY.double())
        found = truth(of)
        for name, right in {"Y": Y, "dX": dX, "dW": dW, "dM": dM.flatten(1)}.items():
            torch.testing.assert_close(found[name], right.detach())


def test_on_another_card_than_a_hopper_one_its_kernels_are_left_out_and_those_for_every_card_checked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from shconv.bench.gpu import jobs, kernels

    monkeypatch.setattr(kernels, "left_out", lambda device: "this is another card")
    monkeypatch.setattr(kernels, "for_every_card", lambda of: {"Y": truth(of)["Y"].float()})
    monkeypatch.setattr(kernels, "variant", None)  # is not asked for
    found = jobs.jobs(ODD[:1], torch.bfloat16, 1)
    asked = found, torch.device("cpu"), None, lambda: 60.0
    said, row = kernels.check(*asked)
    assert said == {"left out": "this is another card"}
    assert row["tile"] == "for every card"
    assert row["off"] < 1
    assert list(kernels.chosen(kernels.table(*asked))) == [said]
    report = Report(Path("unused"), {})
    report.found["parts"]["kernels"] = {"error": "", "rows": [said, row]}
    assert report.failures() == []


def test_which_card_it_is_says_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    from shconv.bench.gpu import kernels

    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "A100")
    for capability, out in {(9, 0): False, (8, 0): True, (12, 0): True}.items():
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, of=capability: of)
        assert ("A100" in kernels.left_out(torch.device("cuda"))) is out
    assert kernels.left_out(torch.device("cpu")) == ""


def test_a_wrong_a_missing_and_an_unwritten_result_deviate() -> None:
    from shconv.bench.gpu import checking

    wanted = {"Y": torch.ones(4, dtype=torch.float64)}
    right = torch.ones(4, dtype=torch.bfloat16)
    assert checking.deviation({"Y": right}, wanted, 2**-7) == 0
    assert checking.deviation({"Y": right * 1.05}, wanted, 2**-7) > 1
    unwritten = right.clone()
    unwritten[2] = float("nan")
    assert checking.deviation({"Y": unwritten}, wanted, 2**-7) == float("inf")
    with checking.poisoned():
        assert torch.empty(3).isnan().all()


def test_every_pass_of_the_table_is_a_job_and_other_processes_compile_them_or_say_why_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from shconv.bench.gpu import jobs, variants

    found = jobs.jobs(LAYERS, torch.bfloat16, tiles=1)
    for layer in LAYERS:
        small = (layer.H // layer.stride) ** 2 < 100  # of no tile's size
        wanted = set(variants.PASSES) - ({"dX + statistics"} if small else set())
        assert {name for of, _, name, _ in found if of == layer} == wanted
    job, other = jobs.jobs(ODD[:1], torch.bfloat16, 1)[:2]
    broken = (*job[:2], "no pass", job[3])
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    compiler = jobs.Compiler([job, broken])
    assert "StopIteration" in compiler.reason(broken, 100.0)
    assert [compiler.reason(each, 100.0) for each in (job, other)] == ["", ""]
    assert list(tmp_path.glob("*/products.cubin"))
