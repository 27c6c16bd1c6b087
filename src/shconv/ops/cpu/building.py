"""Builds a shared library from C++ with the machine's own compiler, once: it is kept in the cache folder. The digest of
its bytes is part of its name, so a damaged file is found out and built anew."""

import ctypes
import hashlib
import logging
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path

import torch

from shconv.files import cache_folder, one_at_a_time, replace_file

_FLAGS = ["-std=c++17", "-O3", "-fPIC", "-shared", "-pthread", "-w"]
_NATIVE = "-march=native"  # left out where a compiler does not know it
_SECONDS = 300.0  # that a compiler, or another process that compiles, may take
_log = logging.getLogger(__name__)


def built(source: Path) -> ctypes.CDLL:
    """The library of a source file, compiled if the cache has none; safe against other processes doing the same.

    Where it cannot be kept, this process has it for itself, and the log says so. Raises OSError, ValueError or
    subprocess.SubprocessError where there is no working compiler.
    """
    compiler = _compiler()
    name = f"{source.stem}-{_key(compiler, source.parent)}"
    if (found := _kept(name)) is not None:
        return found
    with _one_at_a_time(name), tempfile.TemporaryDirectory(prefix="shconv-") as folder:
        if (found := _kept(name)) is not None:  # another process was first
            return found
        made = Path(folder) / f"{name}.so"
        _compile(compiler, source, made)
        try:
            return ctypes.CDLL(str(_keep(made, name)))
        except OSError as error:
            _log.warning("the compiled %s cannot be kept, each process builds it anew: %s", source.name, error)
            return ctypes.CDLL(str(made))


def _compiler() -> list[str]:
    told = next((each for each in ("SHCONV_CXX", "CXX") if os.environ.get(each)), None)
    if told is not None:
        try:
            return shlex.split(os.environ[told])
        except ValueError as error:
            raise ValueError(f"{told} is {os.environ[told]!r}: {error}") from error
    found = shutil.which("g++") or shutil.which("clang++") or shutil.which("c++")
    if found is None:
        raise FileNotFoundError("no C++ compiler (g++, clang++ or c++) on the path")
    return [found]


def _kept(name: str) -> ctypes.CDLL | None:
    """From the cache folder; None where no whole file of that name loads."""
    with suppress(OSError):
        for file in cache_folder().glob(f"{name}-*.so"):
            with suppress(OSError):
                if file.name == _named(name, file.read_bytes()):
                    return ctypes.CDLL(str(file))
    return None


def _keep(made: Path, name: str) -> Path:
    """Into the cache folder, in place of what is damaged there."""
    content, folder = made.read_bytes(), cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / _named(name, content)
    replace_file(kept, content)
    for other in set(folder.glob(f"{name}-*.so")) - {kept}:
        with suppress(OSError):
            other.unlink()
    return kept


def _named(name: str, content: bytes) -> str:
    return f"{name}-{hashlib.sha256(content).hexdigest()[:16]}.so"


def _one_at_a_time(name: str) -> AbstractContextManager[None]:
    """Processes that start together wait for the one that compiles."""
    try:
        return one_at_a_time(cache_folder() / name, _SECONDS)
    except OSError:  # no home
        return nullcontext()


def _compile(compiler: list[str], source: Path, made: Path) -> None:
    command, folder = [*compiler, *_FLAGS, str(source), "-o", str(made)], str(made.parent)
    native = _run([*command, _NATIVE], _SECONDS, folder)
    if native.returncode:
        _run(command, _SECONDS, folder).check_returncode()
        _log.warning("%s does not build for this very processor: %s", compiler[0], native.stderr.strip()[:300])


def _run(command: list[str], seconds: float, folder: str) -> subprocess.CompletedProcess[str]:
    """folder: for the compiler's own files, which stay where it is killed."""
    environment = {**os.environ, "TMPDIR": folder}
    return subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=seconds, env=environment)


def _key(compiler: list[str], folder: Path) -> str:
    """What a library depends on: the folder of its source, flags, compiler, processor and torch."""
    version = _run([*compiler, "--version"], 60.0, tempfile.gettempdir())
    version.check_returncode()
    parts = [*compiler, version.stdout, *_FLAGS, _NATIVE, torch.__version__, platform.machine(), _processor()]
    digest = hashlib.sha256("\0".join(parts).encode(errors="surrogateescape"))
    for file in sorted(folder.iterdir()):
        digest.update(b"\0".join((b"", os.fsencode(file.name), file.read_bytes())))
    return digest.hexdigest()[:24]


def _processor() -> str:
    """The instruction set, as far as the system tells it: a cache may be shared by different machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.lower().startswith(("flags", "features"))), platform.processor())
