"""The command line in this process, and one finished miniature run that many tests look at."""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from accelerate.state import AcceleratorState

from shconv.cli import run
from toys import colour_folder

# Networks of four channels that know their three classes after a second of training.
MINIATURE = ["--models", "plain10", "--width", "4", "--epochs", "40", "--batch-size", "8"]
MINIATURE += ["--table2-images", "8", "--table3-images", "2"]


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str

    @property
    def message(self) -> str:
        """What a refused command says: it is all there is, in one or two lines, and no traceback."""
        assert self.code == 2
        assert self.out == ""
        assert self.err.startswith("shconv: ")
        assert len(self.err.splitlines()) <= 2
        return self.err


Shconv = Callable[..., Ended]


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch: pytest.MonkeyPatch, unpainted: None) -> Iterator[None]:
    monkeypatch.setenv("ACCELERATE_USE_CPU", "1")
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture
def shconv(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shconv:
    """shconv("train", "--width", "4"), in an empty folder."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def call(*arguments: object) -> Ended:
        capfd.readouterr()
        try:
            code = run([str(argument) for argument in arguments])
        except SystemExit as stopped:  # the parser's own
            code = int(stopped.code or 0)
        out, err = capfd.readouterr()
        return Ended(code, out, err)

    return call


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes, 12 training and 6 test images of 8 x 8 each."""
    return colour_folder(tmp_path_factory.mktemp("data") / "colours")


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> Path:
    """The folder of a whole `shconv reproduce`, not to be written to; what it said lies beside it, in out and err."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ACCELERATE_USE_CPU", "1")
        patch.chdir(pictures.parent)
        with (
            (folder.parent / "out").open("w") as out,
            (folder.parent / "err").open("w") as err,
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            assert run(["reproduce", "--data", "folder:colours", *MINIATURE, "--out", os.path.relpath(folder)]) == 0
    return folder


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(finished, tmp_path / "copied"))
