"""The one command for a GPU, without one: what fails is said and stops nothing, and the file is whole."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import shconv
from shconv.bench.gpu import command
from shconv.bench.gpu.from_nothing import from_nothing
from shconv.bench.gpu.report import KERNELS, Part, Report, until


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
    found = list(until(lambda: next(times), iter([{"a": 1}, {"a": 2}, {"a": 3}])))
    assert found[:2] == [{"a": 1}, {"a": 2}]
    assert "no time left" in found[2]["error"]


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
    (row,) = from_nothing(["info"], lambda: 60.0)
    assert row["seconds"] > 0
    assert "error" not in row
    (row,) = from_nothing(["info", "1234567"], lambda: 60.0)
    source = Path(shconv.__file__).parents[1]
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
    (row,) = from_nothing(["reproduce"], lambda: 0.0)
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
            command.main(["--rehearse", *asked])
        assert refused.value.code == 2
        assert said in capsys.readouterr().err


def test_what_was_found_before_ctrl_c_is_in_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    def stopped(left: Callable[[], float]) -> Iterator[dict[str, Any]]:
        yield {"network": "resnet18", "ratio": 1.5}
        raise KeyboardInterrupt

    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr(command, "_triton", str)  # imported now, it would be interpreted in every later test
    monkeypatch.setattr(command, "kernel_parts", lambda rehearse: [])
    monkeypatch.setattr(
        command, "other_parts", lambda rehearse: [Part("networks", 1, stopped), Part("attacks", 1, _rows)]
    )
    file = tmp_path / "found.json"
    assert command.main(["--rehearse", "--json", str(file)]) == 130
    assert json.loads(file.read_text())["parts"]["networks"]["rows"] == [{"network": "resnet18", "ratio": 1.5}]
    assert f"stopped: what was found until now is in {file}" in capsys.readouterr().out


def test_where_no_kernel_can_be_made_their_parts_say_so_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "shconv.bench.gpu.kernels", None)  # importing it fails
    report = Report(tmp_path / "found.json", {})
    for part in [*command.kernel_parts(True), Part("networks", 1, _raises)]:
        report.run(part)
    no_kernels, *others = report.failures()
    assert no_kernels.startswith(f"{KERNELS[0]}: ModuleNotFoundError: ")
    assert others == [no_kernels.replace(*KERNELS), "networks: RuntimeError: no such kernel"]
