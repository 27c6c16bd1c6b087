"""The library of the C++ kernels: compiled once and cached, and the ways in which a machine cannot build it."""

import ctypes
import logging
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cpu_toys import case, needs_kernels

from shconv.ops.cpu import compiled, library


@pytest.fixture
def fresh_kernels() -> Iterator[None]:
    library.kernels.cache_clear()
    yield
    library.kernels.cache_clear()


@needs_kernels
def test_a_library_is_compiled_once_and_then_taken_from_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SHCONV_CACHE", str(tmp_path / "cache"))
    source = tmp_path / "source" / "small.cpp"  # our kernels take the compiler half a minute
    source.parent.mkdir()
    source.write_text('extern "C" int three() { return 3; }')
    built = library.build(source)
    assert list((tmp_path / "cache").glob("*.so")) == [built]
    assert ctypes.CDLL(str(built)).three() == 3
    before = built.stat().st_mtime_ns
    assert library.build(source) == built
    assert built.stat().st_mtime_ns == before
    source.write_text('extern "C" int three() { return 4; }')
    assert library.build(source) != built


@needs_kernels
def test_processes_that_start_together_compile_once(tmp_path, monkeypatch):
    monkeypatch.setenv("SHCONV_CACHE", str(tmp_path))
    compilers, original = [], subprocess.run

    def counted(command, **options):
        compilers.append("--version" not in command)
        return original(command, **options)

    monkeypatch.setattr(subprocess, "run", counted)
    source = tmp_path / "source" / "small.cpp"
    source.parent.mkdir()
    source.write_text('extern "C" int three() { return 3; }')
    with ThreadPoolExecutor(4) as threads:  # each with a lock of its own, as processes have
        assert len(set(threads.map(library.build, [source] * 4))) == 1
    assert sum(compilers) == 1


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("SHCONV_COMPILED", "0", "turns the compiled kernels off"),
        ("SHCONV_CXX", "/nowhere/g++", "could not be built"),
        ("SHCONV_CXX", "false", "could not be built"),
        ("SHCONV_CXX", f"{sys.executable} -c 'import sys; sys.exit(len(sys.argv) > 2)'", "could not be built"),
    ],
)
@pytest.mark.usefixtures("fresh_kernels")
def test_without_a_working_compiler_there_is_one_reason_and_one_warning(
    variable: str,
    value: str,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("SHCONV_CACHE", str(tmp_path))
    monkeypatch.setenv(variable, value)
    x, weight, _, _, geometry = case(2, 4, 4, (5, 5), (3, 3), 1, 1, 1)
    with caplog.at_level(logging.WARNING, logger="shconv"):
        reasons = [compiled.reasons_against(x, weight, geometry) for _ in range(3)]
    assert all(len(reason) == 1 and said in reason[0] for reason in reasons)
    assert len(caplog.records) == (variable != "SHCONV_COMPILED")
    assert not list(tmp_path.glob("*.so"))
