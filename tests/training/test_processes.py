"""Training in several processes: the same batches, the same curve, one writer; and they stop and fail together."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import together
import torch
from torch import nn

import shconv
from shconv.data.loading import share_of
from shconv.training import correct_in, load_checkpoint
from shconv.training.synchronized import CPUSyncBatchNorm2d, synchronized

Told = dict[str, Any]

# Of a loss and of a weight: one process and two add float32 numbers in another order, and steps enlarge the difference.
TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}


@pytest.fixture(scope="module")
def folder(made_once: Callable[..., Path]) -> Path:
    """What two processes left, and what each told."""
    return made_once("together", lambda folder: together.in_processes(2, folder, together.both))


@pytest.fixture(scope="module")
def two(folder: Path) -> Told:
    """What the main one of two processes saw; the other saw the same."""
    first, second = together.told(2, folder)
    for name in ("synchronised", "apart", "odd"):
        assert first[name]["rows"] == second[name]["rows"]
    assert (first["full disk"], first["count"]) == (second["full disk"], second["count"])
    first["diverged"]["others"] = second["diverged"]["own"]
    return first


def check_same(here: Told, there: Told) -> None:
    for a, b in zip(here["rows"], there["rows"], strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-5)
        assert {k: v for k, v in a.items() if k != "loss"} == {k: v for k, v in b.items() if k != "loss"}
    for name, tensor in here["weights"].items():
        torch.testing.assert_close(tensor, there["weights"][name], **TOLERANCE)


def test_two_were_started_and_both_took_part(two: Told) -> None:
    assert two["count"] == 2


def test_with_synchronised_batch_norm_two_processes_train_shc_as_one_does(two: Told, tmp_path: Path) -> None:
    alone = together.curve(tmp_path, together.SHC, together.RECIPE)
    check_same(two["synchronised"], alone)
    apart = [row["loss"] for row in two["apart"]["rows"]]
    assert apart != pytest.approx([row["loss"] for row in alone["rows"]], rel=1e-3)  # without, they differ


def test_their_checkpoint_loads_and_computes_the_logged_accuracy(two: Told, folder: Path) -> None:
    model, config, info = load_checkpoint(folder / "synchronised")
    assert config == together.SHC
    assert not any(isinstance(module, (CPUSyncBatchNorm2d, nn.SyncBatchNorm)) for module in model.modules())
    assert info["engine"] == {"processes": 2, "accumulation": 1, "batch_norm_images": 16}
    test = together.DATA.test
    assert correct_in(model, test, 16, "cpu") / len(test) == two["synchronised"]["rows"][-1]["test_accuracy"]


def test_unequal_shares_and_micro_batches_count_by_their_images(
    two: Told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shconv, "create_model", lambda **kw: together.NoNorm(kw["num_classes"], kw["width"]))
    check_same(two["odd"], together.odd(tmp_path))


@pytest.mark.parametrize("name", together.DEFENCES)
def test_a_defence_draws_for_each_image_what_it_draws_in_one_process(
    two: Told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(shconv, "create_model", lambda **kw: together.NoNorm(kw["num_classes"], kw["width"]))
    check_same(two[name], together.attacked(tmp_path, name))


def test_two_processes_train_a_classifier_and_its_detector_as_one_does(two: Told, tmp_path: Path) -> None:
    check_same(two["detector"], together.guarded(tmp_path))


def test_compiled_two_processes_with_a_defence_end_and_learn_the_same(
    two: Told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shconv, "create_model", lambda **kw: together.NoNorm(kw["num_classes"], kw["width"]))
    check_same(two["compiled"], together.attacked(tmp_path, "fgsm-rs"))


def test_a_signal_to_one_stops_all_at_the_same_step_and_nothing_is_different_afterwards(two: Told) -> None:
    assert (two["preempted"]["code"], two["preempted"]["steps"]) == (75, 6)
    assert two["preempted"]["rows"] == two["apart"]["rows"]
    for name, tensor in two["apart"]["weights"].items():
        assert torch.equal(tensor, two["preempted"]["weights"][name])


def test_what_two_began_one_can_end_as_if_alone_from_the_start(two: Told, folder: Path, tmp_path: Path) -> None:
    assert two["fewer"] == {"code": 75, "steps": 6}
    fewer = Path(shutil.copytree(folder / "fewer", tmp_path / "fewer"))
    check_same(
        together.curve(fewer, together.SHC, together.RECIPE),
        together.curve(tmp_path / "alone", together.SHC, together.RECIPE),
    )


def test_a_loss_that_is_nan_in_one_is_blamed_on_its_images_alone(two: Told) -> None:
    seen = two["diverged"]
    assert seen["index"] == seen["others"] != seen["own"]
    assert json.loads(seen["said"]) == {"epoch": 1, "step": 1, "loss": "nan", "processes": [1], "index": seen["index"]}


def test_where_the_writer_fails_all_end_with_its_error(two: Told) -> None:
    assert two["full disk"] == {"errno": 28}


@pytest.mark.parametrize("count", [1, 2, 3, 7])
@pytest.mark.parametrize("n", [1, 2, 13, 256])
def test_shares_are_all_there_is_in_order_and_equal_to_within_one(n: int, count: int) -> None:
    shares = [list(range(n))[share_of(n, rank, count)] for rank in range(count)]
    assert [i for share in shares for i in share] == list(range(n))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_the_test_images_are_counted_once_however_many_processes_share_them(count: int) -> None:
    torch.manual_seed(0)
    model, test = together.SHC.build().eval(), together.DATA.test
    alone = correct_in(model, test, 8, "cpu")
    shared = [correct_in(model, test, 8, "cpu", share=(rank, count)) for rank in range(count)]
    assert alone == sum(each or 0 for each in shared)


def test_synchronising_keeps_names_and_tensors_and_what_is_no_batch_norm() -> None:
    network = together.SHC.build()
    before = network.state_dict()
    same = synchronized(network, torch.device("cpu")).state_dict()
    assert before.keys() == same.keys()
    assert all(before[name].data_ptr() == same[name].data_ptr() for name in before)
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms
    assert all(type(norm) is CPUSyncBatchNorm2d for norm in norms)


def test_in_one_process_the_synchronised_batch_norm_is_torchs_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.distributed.all_reduce", lambda tensor: None)
    torch.manual_seed(0)
    for settings in ({}, {"momentum": None}, {"affine": False}, {"eps": 0.1}):
        ours, theirs = CPUSyncBatchNorm2d(4, **settings), nn.BatchNorm2d(4, **settings)
        for mode in (True, True, False):
            x = torch.randn(5, 4, 3, 2, requires_grad=True)
            y, wanted = ours.train(mode)(x), theirs.train(mode)(x)
            torch.testing.assert_close(y, wanted)
            weights = torch.randn_like(y)
            got, right = (torch.autograd.grad((each * weights).sum(), x, retain_graph=True)[0] for each in (y, wanted))
            torch.testing.assert_close(got, right, rtol=1e-4, atol=1e-6)
        for a, b in zip(ours.buffers(), theirs.buffers(), strict=True):
            torch.testing.assert_close(a, b)
