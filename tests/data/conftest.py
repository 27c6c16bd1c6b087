"""Tests of data leave the user's cache folder alone."""

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder, not made yet."""
    folder = tmp_path_factory.mktemp("cache") / "shconv"
    monkeypatch.setenv("SHCONV_CACHE", str(folder))
    return folder
