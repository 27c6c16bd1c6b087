"""The library of the C++ kernels: compiled once and cached, and the ways in which a machine cannot build it."""

import errno
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from cpu_toys import case, needs_kernels

from shconv.ops.cpu import building, compiled, library


@pytest.fixture
def fresh_kernels() -> Iterator[None]:
    library.kernels.cache_clear()
    yield
    library.kernels.cache_clear()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Our kernels take the compiler half a minute."""
    file = tmp_path / "source" / "small.cpp"
    file.parent.mkdir()
    file.write_text('extern "C" int three() { return 3; }')
    return file


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SHCONV_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def compiled_files(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a compiler was called for, from now on."""
    files, original = [], subprocess.run

    def noted(command: list[str], **options: Any) -> Any:
        files.extend(part for part in command if part.endswith(".cpp"))
        return original(command, **options)

    monkeypatch.setattr(subprocess, "run", noted)
    return files


@needs_kernels
def test_a_library_is_compiled_once_and_then_taken_from_the_cache(
    source: Path, cache: Path, compiled_files: list[str]
) -> None:
    assert building.built(source).three() == building.built(source).three() == 3
    assert len(compiled_files) == len(list(cache.glob("*.so"))) == 1
    source.write_text('extern "C" int three() { return 4; }')
    assert building.built(source).three() == 4
    assert len(compiled_files) == len(list(cache.glob("*.so"))) == 2


@needs_kernels
def test_processes_that_start_together_compile_once(source: Path, cache: Path, compiled_files: list[str]) -> None:
    with ThreadPoolExecutor(4) as threads:  # each with a lock of its own, as processes have
        assert len({each._name for each in threads.map(building.built, [source] * 4)}) == 1
    assert len(compiled_files) == 1


@needs_kernels
@pytest.mark.parametrize("damage", ["empty", "cut off", "another byte", "garbage", "of another name"])
def test_a_damaged_library_in_the_cache_is_built_anew(
    damage: str, source: Path, cache: Path, compiled_files: list[str]
) -> None:
    building.built(source)
    (kept,) = cache.glob("*.so")
    whole = kept.read_bytes()
    kept.unlink()  # this process has it loaded
    if damage == "of another name":
        kept.with_name(f"{kept.stem[:-1]}-{kept.suffix}").write_bytes(whole)
    else:
        other = bytes([whole[5000] ^ 1]) + whole[5001:]
        content = {"empty": b"", "cut off": whole[:5000], "another byte": whole[:5000] + other, "garbage": b"no" * 9999}
        kept.write_bytes(content[damage])
    for _ in range(2):
        assert building.built(source).three() == 3
        (again,) = cache.glob("*.so")
        assert again.name == building._named(again.stem.rpartition("-")[0], again.read_bytes())
    assert len(compiled_files) == 2


@needs_kernels
@pytest.mark.parametrize("cause", ["a file in its place", "no home", "a full disk"])
def test_a_library_that_cannot_be_kept_serves_this_process_all_the_same_and_the_log_says_why(
    cause: str, source: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if cause == "a file in its place":
        cache.write_text("")
    elif cause == "no home":
        for name in ("SHCONV_CACHE", "XDG_CACHE_HOME"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # what it does where there is none
    else:

        def full(descriptor: int) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "fsync", full)
    library = building.built(source)
    assert library.three() == 3
    assert not Path(library._name).exists()  # nothing is left behind
    (record,) = caplog.records
    assert "cannot be kept" in record.getMessage()
    assert not cache.is_dir() or not list(cache.glob("*.so*.tmp"))


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("SHCONV_COMPILED", "0", "turns the compiled kernels off"),
        ("SHCONV_CXX", "/nowhere/g++", "could not be built"),
        ("SHCONV_CXX", "false", "could not be built: Command '['false', '--version']' returned non-zero exit status 1"),
        ("SHCONV_CXX", "g++ '", """SHCONV_CXX is "g++ '": No closing quotation"""),
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
