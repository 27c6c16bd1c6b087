"""What every test shares: one torch thread, seeded random numbers, the same hypothesis examples in every run."""

import gc
import os

import pytest
import torch
from hypothesis import settings

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS has no other way to give the same bits each time
torch.set_num_threads(1)
settings.register_profile("deterministic", derandomize=True, deadline=None, print_blob=True)
settings.load_profile("deterministic")


def pytest_collection_finish() -> None:
    """What is loaded by now stays: the garbage collector need not go through it, a quarter of a second, each time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture
def unpainted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are drawn and their files named, but hold nothing: painting takes nearly all the time of a page."""
    monkeypatch.setattr("shconv.report.output.canvas.Drawn.saved", lambda figure, kind: b"")
