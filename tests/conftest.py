"""What every test shares: one torch thread, seeded random numbers, the same hypothesis examples in every run; and one
finished miniature run that many tests look at."""

import contextlib
import gc
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import settings

gc.disable()  # until the tests are collected: what is imported and collected stays
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS has no other way to give the same bits each time
os.fsync = lambda file: None  # no test outlives a power failure, and a disk may take longer than a test
settings.register_profile("deterministic", derandomize=True, deadline=None, print_blob=True)
settings.load_profile("deterministic")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("numprocesses", None) and "PYTEST_XDIST_WORKER" not in os.environ:
        return  # runs no test: workers start while this process would load torch
    # Under nohup, and in the background of a shell, these are ignored, and tests of signals would wait for ever.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    import torch

    torch.set_num_threads(1)
    for kind in (torch.cuda, torch.xpu, torch.mtia):
        if not kind.is_available():  # torch keeps a seed for it, with the stack of the call: milliseconds a seed
            kind.manual_seed_all = lambda seed: None


def pytest_collection_finish() -> None:
    """What is loaded by now stays: the garbage collector need not go through it, a quarter of a second, each time."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True)
def seeded() -> None:
    import torch

    torch.manual_seed(0)


@pytest.fixture
def on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """accelerate looks for a device once in a process: here before every test, so that their order does not matter."""
    from accelerate.state import AcceleratorState

    monkeypatch.setenv("ACCELERATE_USE_CPU", "1")
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture
def unpainted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are drawn and their files named, but hold nothing: painting takes nearly all the time of a page."""
    monkeypatch.setattr("shconv.report.output.canvas.Drawn.saved", lambda figure, kind: b"")


@pytest.fixture
def blank(unpainted: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor are they drawn: what is read for them is, and that is all."""
    from blank import Blank

    monkeypatch.setattr("shconv.report.output.canvas.Figure", Blank)


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """What will take long is said after a glance at the machine: a run's own measurements take seconds."""
    monkeypatch.setattr("shconv.planning.estimate.MEASURED", 0.01)


MadeOnce = Callable[[str, Callable[[Path], object]], Path]


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> MadeOnce:
    """made_once("data", make): the folder that make(folder) has filled for the first test of any worker that asks for
    that name. It is not to be written to."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent  # the workers' own folders lie in it

    def made(name: str, make: Callable[[Path], object]) -> Path:
        folder, whole = root / name, root / f"{name}.whole"
        with FileLock(root / f"{name}.lock"):
            if not whole.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                make(folder)
                whole.touch()
        return folder

    return made


@pytest.fixture(scope="session")
def pictures(made_once: MadeOnce) -> Path:
    """Three classes, 12 training and 6 test images of 8 x 8 each."""
    from toys import colour_folder

    return made_once("pictures", lambda folder: colour_folder(folder / "colours")) / "colours"


@pytest.fixture(scope="session")
def finished(made_once: MadeOnce, pictures: Path) -> Path:
    """The folder of a whole `shconv reproduce` on `folder:colours`, its figures not painted; what it said lies beside
    it, in out and err."""
    from shconv.cli import run
    from toys import MINIATURE

    def reproduce(folder: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("ACCELERATE_USE_CPU", "1")
            patch.setattr("shconv.report.output.canvas.Drawn.saved", lambda figure, kind: b"")
            patch.chdir(pictures.parent)
            with (
                (folder / "out").open("w") as out,
                (folder / "err").open("w") as err,
                contextlib.redirect_stdout(out),
                contextlib.redirect_stderr(err),
            ):
                asked = ["reproduce", "--data", "folder:colours", *MINIATURE, "--out", os.path.relpath(folder / "run")]
                assert run(asked) == 0

    return made_once("finished", reproduce) / "run"
