"""A worker is gone, or another process, or a scheduler sent SIGTERM: one line and exit code 75, for nothing has
to be set right; what has to be is exit code 2."""

import errno
import os
import signal
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from shconv.commands.evaluate import Evaluate
from shconv.data import loading
from shconv.errors import InputError
from shconv.experiments import table1_gaussian
from shconv.pretrained import ConvertedConfig

TINY = ("--width", 4, "--epochs", 1, "--batch-size", 8)


@pytest.fixture
def command(request, finished, pictures, tmp_path) -> list[object]:
    """One of the commands that read images through workers, tiny."""
    data = ["--data", f"folder:{pictures}", "--workers", 1, "--out", "out"]
    if request.param == "evaluate":
        return ["evaluate", finished / "models" / "plain10-seed0", *data, "--tables", 1]
    if request.param == "finetune":
        torch.manual_seed(0)
        file, arch = tmp_path / "trained.pth", "timm:test_resnet"
        torch.save({"state_dict": ConvertedConfig(arch, 3).vanilla().state_dict()}, file)
        return ["finetune", "--from", file, "--arch", arch, *data]
    models = ["--models", "plain10"] if request.param == "reproduce" else ["--model", "plain10"]
    return [request.param, *models, *data, *TINY]


@pytest.mark.parametrize("command", ["train", "reproduce", "evaluate", "finetune"], indirect=True)
def test_a_worker_that_is_killed_is_named_and_the_same_command_may_be_given_again(shconv, command, monkeypatch):
    def killed(self: object, index: list[int]) -> Tensor:
        assert get_worker_info() is not None
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    for reader in (loading._TestedImages, loading._TrainingImages):
        monkeypatch.setattr(reader, "__call__", killed)
    monkeypatch.setattr("shconv.commands.finetune.first_images", lambda data, n: torch.rand(4, 3, 8, 8))
    ended = shconv(*command)
    assert ended.code == 75
    said = ended.err.splitlines()[-1]
    assert said.startswith("shconv: worker (pid")
    assert said.endswith("; the same command continues")
    assert "Traceback" not in ended.err


ENDS = {
    "another process": (ConnectionAbortedError(errno.ECONNABORTED, "another process is gone"), 75),
    "a worker, at any moment": (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."), 75),
    "what was given": (InputError("no"), 2),
    "a file": (FileNotFoundError(errno.ENOENT, "No such file", "x"), 2),
    "the disk": (OSError(errno.ENOSPC, "No space left", "x"), 1),
}


@pytest.mark.parametrize("error", ENDS)
def test_the_exit_code_says_whether_something_has_to_be_set_right(shconv, finished, monkeypatch, error):
    raised, code = ENDS[error]

    def run(self: Evaluate) -> None:
        raise raised

    monkeypatch.setattr(Evaluate, "run", run)
    ended = shconv("evaluate", finished)
    assert ended.code == code
    assert len(ended.err.splitlines()) == 1


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_stop_in_the_middle_of_an_archive_that_then_cannot_be_closed_is_a_stop(
    shconv, finished, monkeypatch, number, code
):
    class Half:
        def __enter__(self) -> None: ...
        def __exit__(self, *error: object) -> None:
            raise ValueError("Can't close the ZIP file while there is an open writing handle on it")

    def run(self: Evaluate) -> None:
        with Half():  # what a zip file is in the middle of an entry, as np.savez leaves it
            os.kill(os.getpid(), number)

    monkeypatch.setattr(Evaluate, "run", run)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        ended = shconv("evaluate", finished)
    finally:
        signal.signal(signal.SIGINT, before)
    assert (ended.code, ended.err.strip()) == (code, "shconv: stopped; the same command continues from here")


def test_an_evaluation_ends_at_sigterm_and_goes_on_with_the_rows_that_are_missing(
    shconv, finished, pictures, monkeypatch
):
    monkeypatch.setattr("shconv.commands.evaluate.conclude", lambda folder, progress: None)
    command = ["evaluate", finished / "models" / "plain10-seed0", "--data", f"folder:{pictures}", "--tables", 1]
    original = table1_gaussian.rows
    before = signal.getsignal(signal.SIGTERM)

    def two_then_terminated(study):
        for number, row in enumerate(original(study)):
            if number == 2:
                os.kill(os.getpid(), signal.SIGTERM)
            yield row

    with monkeypatch.context() as patch:
        patch.setattr(table1_gaussian, "rows", two_then_terminated)
        ended = shconv(*command, "--out", "out")
    assert ended.code == 75
    assert ended.err.splitlines()[-1] == "shconv: stopped; the same command continues from here"
    assert signal.getsignal(signal.SIGTERM) == before
    stored = Path("out/rows.jsonl").read_bytes()
    assert len(stored.splitlines()) == 3
    assert shconv(*command, "--out", "out").code == 0
    assert Path("out/rows.jsonl").read_bytes().startswith(stored)
