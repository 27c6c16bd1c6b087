"""The command line in this process."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from shconv.cli import run


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
def quick(on_the_cpu: None, blank: None, hurried: None) -> None: ...


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


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables and page are the report's own matter, and take seconds."""
    for command in ("running", "evaluate", "reproduce"):
        monkeypatch.setattr(f"shconv.commands.{command}.conclude", lambda folder, progress: None)


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(finished, tmp_path / "copied"))
