"""`shconv bench`: what it prints, writes and refuses. Never how fast anything is."""

import csv
import importlib.util
import itertools
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from shconv import SHConv2d, cli
from shconv.bench import attack, host, memory, model, op
from shconv.bench.setting import Setting
from shconv.ops import FORMULATIONS
from shconv.ops.plain import grouped
from shconv.relatives import RELATIVES, SEConv2d

OP = ["bench", "op", "--rows", "4x3x5", "--rounds", "1"]
SMALL = ["--networks", "plain10", "--width", "2", "--batch", "4", "--image-size", "16", "--rounds", "1"]


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_op_compares_every_formulation_in_every_pass_and_layout(tmp_path: Path) -> None:
    assert cli.run([*OP, "--csv", str(tmp_path / "new" / "op.csv")]) == 0
    lines = read(tmp_path / "new" / "op.csv")
    assert len(lines) == len(op.LAYOUTS) * len(op.PASSES) * len([*FORMULATIONS, "auto", op.PEER])
    assert {line["contender"] for line in lines} == {*FORMULATIONS, "auto", op.PEER}
    assert {line["measure"] for line in lines} == set(op.PASSES)
    assert {line["layout"] for line in lines} == set(op.LAYOUTS)
    assert {(line["subject"], line["dtype"], line["baseline"], line["unit"]) for line in lines} == {
        ("4x3x5", "float32", "conv2d", "ms")
    }
    for line in lines:
        assert bool(line["reason"]) == (line["ratio"] == "") == (line["value"] == "")
        if line["ratio"]:
            assert float(line["ratio"]) == float(line["value"]) / float(line["baseline_value"]) > 0
        assert (line["threads"], line["torch"]) == (str(torch.get_num_threads()), torch.__version__)
        assert line["processor"]


def test_the_machine_stands_above_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    cli.run([*OP, "--formulations", "unfold"])
    said = capsys.readouterr().out
    about, _, rest = said.partition("\n")
    assert f"torch {torch.__version__}" in about
    assert "threads 1" in about
    assert "4x3x5" in rest
    assert "grouped" not in rest


def test_host_compares_the_layer_and_its_relatives_with_torchs_in_microseconds_parameters_and_products(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "_CALLS", 2)
    assert cli.run(["bench", "host", "--rounds", "1", "--csv", str(tmp_path / "host.csv")]) == 0
    lines = read(tmp_path / "host.csv")
    contenders = ["SHConv2d", *(kind.__name__ for kind in RELATIVES.values())]
    units = {**dict.fromkeys(host.PASSES, "us a call"), "parameters": "", "multiply-adds": ""}
    assert {(line["contender"], line["measure"], line["unit"]) for line in lines} == {
        (contender, *each) for contender in contenders for each in units.items()
    }
    assert len(lines) == len(op.LAYOUTS) * len(contenders) * len(units)
    assert all(float(line["ratio"]) > 0 for line in lines)
    shc = next(line for line in lines if line["measure"] == "parameters")
    assert (float(shc["baseline_value"]), float(shc["value"])) == (16 * 16 * 9 + 16, 16 * 16 * 9 + 16 + 32 * 8 + 8 + 81)


def test_host_compares_rows_of_layers_compiled_and_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[torch.nn.Module] = []
    monkeypatch.setattr(torch, "compile", lambda network, **_: made.append(network) or network)
    monkeypatch.setattr(host, "_CALLS", 1)
    asked = ["--compiled", "--layout", "contiguous", "--rounds", "1", "--csv", str(tmp_path / "host.csv")]
    assert cli.run(["bench", "host", *asked]) == 0
    lines = read(tmp_path / "host.csv")
    contenders = ["SHConv2d", "conv2d, compiled", "SHConv2d, compiled"]
    assert [(line["measure"], line["contender"]) for line in lines] == [
        (each, contender) for each in host.PASSES for contender in contenders
    ]
    assert all(float(line["ratio"]) > 0 for line in lines)
    assert [type(network[0]) for network in made] == [torch.nn.Conv2d, SHConv2d] * 2
    assert {len(network) for network in made} == {host._ROW}


def test_a_wrong_relative_gets_no_speed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def wrong(self: SEConv2d, x: Tensor) -> Tensor:
        return self.convolve(x, self.weight) * (1.1 if x.dtype == torch.float32 else 1)

    monkeypatch.setattr(SEConv2d, "convolved", wrong)
    monkeypatch.setattr(host, "_CALLS", 2)
    with pytest.raises(SystemExit, match="1"):
        cli.run(["bench", "host", "--rounds", "1"])
    assert "no speed for a result that is wrong: SEConv2d" in capsys.readouterr().err


def test_a_formulation_that_cannot_serve_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "op.csv"
    command = ["bench", "op", "--rows", "4x3x5/2", "--rounds", "1", "--layout", "contiguous", "--csv", str(path)]
    assert cli.run([*command, "--formulations", "shifted", "unfold"]) == 0
    assert "shifted: stride must be 1, got (2, 2)" in capsys.readouterr().out
    reasons = {line["reason"] for line in read(path) if line["contender"] == "shifted"}
    assert reasons == {"stride must be 1, got (2, 2)"}


@pytest.mark.parametrize("scale", [1.01, torch.nan])
def test_a_wrong_formulation_gets_no_speed(
    scale: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def wrong(right: Callable[..., Tensor]) -> Callable[..., Tensor]:
        return lambda *given: right(*given) * scale

    monkeypatch.setattr(grouped, "forward", wrong(grouped.forward))
    path = tmp_path / "op.csv"
    with pytest.raises(SystemExit) as stopped:
        cli.run([*OP, "--formulations", "grouped", "unfold", "--csv", str(path)])
    assert stopped.value.code == 1
    said = capsys.readouterr()
    assert "wrong a" in said.out
    assert "a  grouped: wrong Y: off by" in said.out
    assert "no speed for a result that is wrong: grouped, 4x3x5" in said.err
    for line in read(path):
        assert (line["wrong"] == "True") == (line["contender"] == "grouped") == line["reason"].startswith("wrong Y")
        assert line["contender"] != "grouped" or line["value"] == line["ratio"] == ""


def test_a_wrong_gradient_gets_no_speed_either(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    right = grouped.backward
    monkeypatch.setattr(grouped, "backward", lambda *given: (*right(*given)[:2], torch.zeros(4, 3, 3)))
    with pytest.raises(SystemExit):
        cli.run([*OP, "--formulations", "grouped"])
    assert "wrong dM" in capsys.readouterr().err


def test_the_peer_is_left_out_aloud_where_timm_is_not_installed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert cli.run([*OP, "--formulations", "unfold"]) == 0
    assert f"{op.PEER}: timm is not installed" in capsys.readouterr().out


@pytest.mark.skipif(importlib.util.find_spec("timm") is None, reason="timm is not installed")
def test_the_peer_computes_the_same_convolution_where_the_map_is_constant() -> None:
    row = op.Row(2, 3, 5, 2)
    tensors = op._tensors(row, torch.float64, torch.device("cpu"))
    dX, _, routing = op._peer("forward + backward", tensors, row)()
    wanted = op.defined(tensors.x, tensors.weight, torch.ones(2, 3, 3), tensors.gradient, row.geometry)
    torch.testing.assert_close(dX, wanted["dX"])
    torch.testing.assert_close(routing[:, 0], wanted["dM"].sum((1, 2)))


def test_rows_are_chosen_by_beginning_or_given_in_full() -> None:
    assert op.select([]) == list(op.ROWS)
    assert [str(row) for row in op.select(["128x16x", "128x16"])] == ["128x16x32", "128x16x32/2"]
    assert op.select(["16x64x64"]) == [op.Row(16, 64, 64, 1)]
    assert op.select(["7x5x3/2", "7x5x3"]) == [op.Row(7, 5, 3, 2), op.Row(7, 5, 3, 1)]


def test_model_gives_times_and_memory_of_the_pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "peak_memory", lambda setting: 2**20 * (3 if setting.name == "plain10_shc" else 2))
    path = tmp_path / "model.csv"
    assert cli.run(["bench", "model", *SMALL, "--csv", str(path)]) == 0
    lines = read(path)
    measures = [*model.TIMES, model.MEMORY]
    assert [(line["layout"], line["measure"]) for line in lines] == list(itertools.product(op.LAYOUTS, measures))
    assert [line["unit"] for line in lines] == ["ms", "ms", "MiB"] * 2
    assert {line["subject"] for line in lines} == {"plain10 width 2, 4 x 16 px"}
    assert all(float(line["ratio"]) > 0 for line in lines)
    assert [float(lines[2][name]) for name in ("value", "baseline_value", "ratio")] == [3, 2, 1.5]


def test_layers_are_checked_before_the_network_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda network: order.append("compiled"))
    for module in (model, attack):
        monkeypatch.setattr(module, "layers_deviation", lambda *given: order.append("checked") or "")
    monkeypatch.setattr(model, "peak_memory", lambda setting: 1)
    for what in ("model", "attack"):
        assert cli.run(["bench", what, *SMALL, "--layout", "contiguous", "--compiled"]) == 0
    assert order == ["checked", "compiled", "compiled", "checked", "compiled"]


def test_memory_that_cannot_be_known_has_a_reason() -> None:
    assert "torch.compile's own memory" in str(memory.peak_memory(Setting("plain10", 1, 16, 2, compiled=True)))


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="measured on Linux only")
def test_peak_memory_is_what_the_activations_take() -> None:
    bytes_of_a_stage = 128 * 8 * 32 * 32 * 4  # of one of its activations
    peak = memory.peak_memory(Setting("plain10", 128, 32, 8))
    assert isinstance(peak, int)
    assert 4 * bytes_of_a_stage < peak < 20 * bytes_of_a_stage


def test_a_process_that_fails_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    failed = subprocess.CompletedProcess([], 1, "", "Traceback\nMemoryError: no room\n")
    monkeypatch.setattr(subprocess, "run", lambda *given, **options: failed)
    assert "MemoryError: no room" in str(memory.peak_memory(Setting("plain10", 1, 16, 2)))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_attack_compares_fgsm_and_locsearch_with_plain_passes(dtype: str, tmp_path: Path) -> None:
    path = tmp_path / "attack.csv"
    command = ["bench", "attack", *SMALL, "--layout", "channels_last", "--dtype", dtype]
    assert cli.run([*command, "--csv", str(path)]) == 0
    lines = read(path)
    assert [(line["measure"], line["baseline"], line["unit"]) for line in lines] == [
        ("FGSM, time", "forward + input gradient", "ms"),
        ("LocSearchAdv, images a second", "forward", "images/s"),
    ]
    assert all(float(line["ratio"]) > 0 and line["subject"].startswith("plain10_shc") for line in lines)


@pytest.mark.parametrize("what", ["model", "attack"])
def test_a_network_with_a_wrong_layer_gets_no_speed(
    what: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for formulation in FORMULATIONS.values():
        forward = formulation.forward
        monkeypatch.setattr(formulation, "forward", lambda *given, right=forward: right(*given) * 1.01)
    with pytest.raises(SystemExit) as stopped:
        cli.run(["bench", what, *SMALL, "--layout", "contiguous"])
    assert stopped.value.code == 1
    said = capsys.readouterr()
    assert "wrong Y" in said.out
    assert "ms" not in said.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["op", "--rows", "17x"], "no row '17x'"),
        (["op", "--rows", "0x4x4"], "no row '0x4x4'"),
        (["op", "--rows", ""], "no row ''"),
        (["op", "--rounds", "0"], "rounds must be at least 1, got 0"),
        (["op", "--threads", "0"], "threads must be at least 1, got 0"),
        (["op", "--formulations", "fft"], "unknown formulation 'fft'"),
        (["op", "--batch", "3"], "batch is an option of bench model and attack"),
        (["model", "--rows", "16x"], "rows is an option of bench op"),
        (["model", "--networks", "vgg"], "unknown network 'vgg'"),
        (["attack", "--width", "0"], "width must be at least 1, got 0"),
        (["attack", "--image-size", "4"], "image_size must be at least 16, got 4"),
        (["host", "--csv", f"{__file__}/host.csv"], f"{__file__}/host.csv cannot be written: "),
    ],
)
def test_bad_options_end_in_one_line(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["bench", *arguments]) == 2
    assert capsys.readouterr().err.startswith(f"shconv: {said}")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_where_there_is_none_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["bench", "op", "--device", "cuda"]) == 2
    assert "cuda is not there: torch finds cpu on this machine" in capsys.readouterr().err


def test_help_names_the_benchmarks_and_the_options(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.run(["bench", "--help"])
    assert not stopped.value.code
    said = capsys.readouterr().out
    assert all(word in said for word in ("op,host,model,attack", "--rows", "--layout", "--dtype", "--csv", "--rounds"))
