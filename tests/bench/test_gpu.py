"""The one command for a GPU, without one: what fails is said and stops nothing, the file is whole, and what its parts
are made of works in Triton's interpreter (the whole of it: `python -m shconv.bench.gpu --rehearse`)."""

import importlib.util
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from shconv.bench import gpu
from shconv.bench.gpu import Part, Report


def _rows(left: Callable[[], float]) -> Iterator[dict[str, Any]]:
    yield {"layer": "64->64", "ratio": 1.25}
    yield {"layer": "128->128", "error": "wrong: off by 7 times what rounding explains"}


def _raises(left: Callable[[], float]) -> Iterator[dict[str, Any]]:
    yield {"layer": "64->64", "ratio": 1.5}
    raise RuntimeError("no\n such kernel")


def test_a_part_that_fails_keeps_its_rows_says_why_and_stops_no_other(tmp_path: Path, capsys: Any) -> None:
    report = Report(tmp_path / "found.json", {"gpu": "none"})
    for part in (Part("first", 1, _raises), Part("second", 1, _rows)):
        report.run(part)
        assert part.name in json.loads((tmp_path / "found.json").read_text())["parts"]
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["about"] == {"gpu": "none"}
    assert found["parts"]["first"]["rows"] == [{"layer": "64->64", "ratio": 1.5}]
    assert found["parts"]["first"]["error"] == "RuntimeError: no such kernel"
    assert len(found["parts"]["second"]["rows"]) == 2
    assert len(report.failures()) == 2
    assert "64->64  ratio 1.25" in capsys.readouterr().out


def test_rows_end_where_no_time_is_left_and_say_so() -> None:
    times = iter([3.0, -1.0])
    found = list(gpu.until(lambda: next(times), iter([{"a": 1}, {"a": 2}, {"a": 3}])))
    assert found[:2] == [{"a": 1}, {"a": 2}]
    assert "no time left" in found[2]["error"]


def test_the_table_ends_with_what_the_rule_takes_and_the_fastest_of_all() -> None:
    rows = [
        {"layer": "a", "pass": "dX", "tile": "rule", "cudnn_us": 10.0, "ratio": 1.2},
        {"layer": "a", "pass": "dX", "tile": "quick", "cudnn_us": 10.0, "ratio": 1.1},
        {"layer": "a", "pass": "dW", "tile": "rule", "cudnn_us": 10.0, "error": "wrong"},
    ]
    *given, last = gpu.chosen(iter(rows))
    assert given == rows
    assert last == {"layer": "a", "pass": "dX", "cudnn_us": 10.0, "rule": 1.2, "best": 1.1, "tile": "quick"}


def test_a_command_is_run_with_empty_caches_and_its_failure_is_a_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a stand-in for Python, which says how it was started: the command itself takes seconds."""
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\nls -A "${SHCONV_CACHE%/*}"; echo "$@ in $PYTHONPATH$TRITON_INTERPRET"; exit ${#4}\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setenv("PYTHONPATH", "elsewhere")
    (row,) = gpu.from_nothing(["info"], lambda: 60.0)
    assert row["seconds"] > 0
    assert "error" not in row
    (row,) = gpu.from_nothing(["info", "1234567"], lambda: 60.0)
    source = Path(gpu.__file__).parents[2]
    assert row["error"] == f"exit code 7: -m shconv info 1234567 in {source}:elsewhere"


def test_a_command_that_takes_too_long_is_ended_with_all_that_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\nsleep 600 &\necho begun; echo $! > {tmp_path / 'pid'}; wait\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    original = subprocess.Popen.wait
    monkeypatch.setattr(subprocess.Popen, "wait", lambda self, timeout=None: original(self, timeout and timeout / 20))
    (row,) = gpu.from_nothing(["reproduce"], lambda: 0.0)
    assert row["error"].startswith("had not finished after ")
    assert row["error"].endswith(": begun")
    deadline, pid = time.monotonic() + 20.0, (tmp_path / "pid").read_text().strip()
    state = Path("/proc", pid, "stat")
    while time.monotonic() < deadline and state.exists() and " Z " not in state.read_text():
        time.sleep(0.02)
    assert not state.exists() or " Z " in state.read_text()


def test_a_name_of_no_part_and_a_file_that_cannot_be_written_are_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    (tmp_path / "file").write_text("")
    for asked, said in (
        (["--only", "kernals"], "no part has this in its name; there are kernels on random data"),
        (["--json", str(tmp_path / "file" / "found.json")], "found.json cannot be written"),
    ):
        with pytest.raises(SystemExit) as refused:
            gpu.main(["--rehearse", *asked])
        assert refused.value.code == 2
        assert said in capsys.readouterr().err


def test_what_was_found_before_ctrl_c_is_in_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    def stopped(left: Callable[[], float]) -> Iterator[dict[str, Any]]:
        yield {"network": "resnet18", "ratio": 1.5}
        raise KeyboardInterrupt

    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr(gpu, "_triton", str)  # imported now, it would be interpreted in every later test
    monkeypatch.setattr(gpu, "begun", lambda rehearse: [])
    monkeypatch.setattr(gpu, "parts", lambda rehearse: [Part("networks", 1, stopped), Part("attacks", 1, _rows)])
    file = tmp_path / "found.json"
    assert gpu.main(["--rehearse", "--json", str(file)]) == 130
    assert json.loads(file.read_text())["parts"]["networks"]["rows"] == [{"network": "resnet18", "ratio": 1.5}]
    assert f"stopped: what was found until now is in {file}" in capsys.readouterr().out


def test_where_no_kernel_can_be_made_their_parts_say_so_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def raises(rehearse: bool) -> list[Part]:
        raise ImportError("No module named 'triton'")

    monkeypatch.setattr(gpu, "kernel_parts", raises)
    report = Report(tmp_path / "found.json", {})
    for part in [*gpu.begun(True), Part("networks", 1, _raises)]:
        report.run(part)
    assert [each.partition(": ")[2] for each in report.failures()] == [
        *["ImportError: No module named 'triton'"] * 2,
        "RuntimeError: no such kernel",
    ]


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
class TestKernels:
    @pytest.fixture(autouse=True)
    def kernels(self) -> None:
        from shconv.bench import gpu_kernels

        self.kernels = gpu_kernels

    def test_the_truth_by_taps_is_the_definition(self) -> None:
        from shconv.ops import reference

        for stride in (1, 2):
            of = self.kernels.problem(self.kernels.Layer(2, 8, 16, 6, stride), torch.float32, torch.device("cpu"))
            inputs = [each.double().requires_grad_() for each in (of.x, of.weight, of.M)]
            Y = reference.filtered_conv2d(*inputs, None, stride, 1)
            dX, dW, dM = torch.autograd.grad(Y, inputs, of.dY.double())
            found = self.kernels.truth(of)
            for name, right in {"Y": Y, "dX": dX, "dW": dW, "dM": dM.flatten(1)}.items():
                torch.testing.assert_close(found[name], right.detach())

    def test_on_another_card_than_a_hopper_one_its_kernels_are_left_out_and_those_for_every_card_checked(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(self.kernels, "left_out", lambda device: "this is another card")
        monkeypatch.setattr(self.kernels, "_pointers", lambda of: {"Y": self.kernels.truth(of)["Y"].float()})
        monkeypatch.setattr(self.kernels, "_variant", None)  # is not asked for
        jobs = self.kernels.jobs(self.kernels.ODD[:1], torch.bfloat16, 1)
        asked = jobs, torch.device("cpu"), None, lambda: 60.0
        said, row = self.kernels.check(*asked)
        assert said == {"left out": "this is another card"}
        assert row["tile"] == "for every card"
        assert row["off"] < 1
        assert list(gpu.chosen(self.kernels.table(*asked))) == [said]
        report = Report(Path("unused"), {})
        report.found["parts"]["kernels"] = {"error": "", "rows": [said, row]}
        assert report.failures() == []

    def test_which_card_it_is_says_the_driver(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "A100")
        for capability, out in {(9, 0): False, (8, 0): True, (12, 0): True}.items():
            monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, of=capability: of)
            assert ("A100" in self.kernels.left_out(torch.device("cuda"))) is out
        assert self.kernels.left_out(torch.device("cpu")) == ""

    def test_a_wrong_a_missing_and_an_unwritten_result_deviate(self) -> None:
        wanted = {"Y": torch.ones(4, dtype=torch.float64)}
        right = torch.ones(4, dtype=torch.bfloat16)
        assert self.kernels.deviation({"Y": right}, wanted, 2**-7) == 0
        assert self.kernels.deviation({"Y": right * 1.05}, wanted, 2**-7) > 1
        unwritten = right.clone()
        unwritten[2] = float("nan")
        assert self.kernels.deviation({"Y": unwritten}, wanted, 2**-7) == float("inf")
        with self.kernels.poisoned():
            assert torch.empty(3).isnan().all()

    def test_every_pass_of_the_table_is_a_job_and_other_processes_compile_them_or_say_why_not(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        jobs = self.kernels.jobs(self.kernels.LAYERS, torch.bfloat16, tiles=1)
        for layer in self.kernels.LAYERS:
            small = (layer.H // layer.stride) ** 2 < 100  # of no tile's size
            wanted = set(self.kernels.PASSES) - ({"dX + statistics"} if small else set())
            assert {name for of, _, name, _ in jobs if of == layer} == wanted
        job, other = self.kernels.jobs(self.kernels.ODD[:1], torch.bfloat16, 1)[:2]
        broken = (*job[:2], "no pass", job[3])
        monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
        compiler = self.kernels.Compiler([job, broken])
        assert "StopIteration" in compiler.reason(broken, 100.0)
        assert [compiler.reason(each, 100.0) for each in (job, other)] == ["", ""]
        assert list(tmp_path.glob("*/products.cubin"))
