"""Files replaced in one step, and folders kept to one process: a full disk, an interruption or a power cut leaves the
file that was there before."""

import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import chain, count
from pathlib import Path
from typing import Any

import filelock

from shconv.errors import InputError


def replace_file(path: Path, *content: bytes | memoryview, keep: Path | None = None) -> None:
    """Write a whole file beside `path`, then put it in its place; what was there becomes `keep`, where that is given.

    Other processes may write the same file meanwhile: the last one's is there in the end. Raises OSError with the
    file's name, and `path` is as it was, or at worst now called `keep`.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with named(path):
            with open(temporary, "wb") as file:
                for part in content:
                    file.write(part)
                file.flush()
                os.fsync(file.fileno())
            if keep is not None and path.exists():
                os.replace(path, keep)
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(path.parent)


@contextmanager
def named(path: Path) -> Iterator[None]:
    """An OSError in here has a file's name: a full disk does not say whose write it refused."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def cache_folder() -> Path:
    """Where what can be made again is kept: SHCONV_CACHE, else shconv/ in XDG_CACHE_HOME or ~/.cache.

    Raises OSError where the user has no home.
    """
    try:
        if folder := os.environ.get("SHCONV_CACHE"):
            return Path(folder).expanduser().absolute()
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "shconv"
    except RuntimeError as error:
        raise FileNotFoundError("there is no home folder; SHCONV_CACHE can name another one") from error


def check_writable(path: Path) -> None:
    """Raises InputError where a file cannot be written, before work is done for it. Makes its folder, no file."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        is_new = not path.exists()
        path.open("ab").close()
        if is_new:
            path.unlink()
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}") from error


def replace_json(path: Path, value: Any) -> None:
    """replace_file with `value` as JSON."""
    replace_text(path, json.dumps(value, indent=1) + "\n")


def replace_text(path: Path, text: str) -> None:
    """replace_file with text that may hold names which are not UTF-8: such a byte is written as \\udcNN."""
    replace_file(path, escaped(text).encode())


def escaped(text: str) -> str:
    """Text that can be encoded: Python's stand-ins for bytes in names that are not UTF-8 as \\udcNN."""
    return text.encode("utf-8", "backslashreplace").decode()


def unescaped(text: str) -> str:
    """The inverse of `escaped`, for the bytes of names."""
    return re.sub(r"\\(udc[89a-f][0-9a-f])", lambda found: chr(int(found[1][1:], 16)), text)


_held: dict[Path, int | None] = {}  # folders locked by this process, with their locks' inodes


class InUse(InputError):  # noqa: N818 (says what is the matter, as KeyboardInterrupt does)
    """Another process has the folder."""


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """A folder for this process alone, made if need be. Raises InUse where another one has it, InputError where it is
    a file, or on a disk without locks."""
    if path.exists() and not path.is_dir():
        raise InputError(f"{path} is a file; wanted a folder")
    path.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(path / ".lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise InUse(f"{path} is in use by another process; wait for it or take another folder") from None
    except OSError as error:
        if error.filename is not None:  # it could not be opened
            raise
        raise InputError(f"{path} cannot be locked ({error.strerror}); take one on a disk that has locks") from error
    try:
        _held[path] = _inode(path)
        yield
    finally:
        _held.pop(path, None)
        lock.release()


def check_held(path: Path) -> None:
    """Raises InputError where a folder that is locked here was moved or removed since, and perhaps made anew by another
    run: what is written now would be apart from what was written before."""
    now = _inode(path)  # None where somebody removed the lock alone
    if path in _held and (not path.is_dir() if now is None else now != _held[path]):
        raise InputError(f"{path} was moved or removed meanwhile; wanted: back in its place, then the same command")


def _inode(path: Path) -> int | None:
    """Of a folder's lock, which no other file can have while it is held; None where it is not there."""
    try:
        return (path / ".lock").stat().st_ino
    except OSError:
        return None


@contextmanager
def one_at_a_time(path: Path, seconds: float) -> Iterator[None]:
    """Processes take turns, by a lock beside `path`. Where files cannot be locked, or another one takes longer than so
    many seconds, they do not. Its folder is made if need be."""
    lock: filelock.BaseFileLock | None = None
    with suppress(OSError, NotImplementedError):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(f"{path}.lock")
        lock.acquire(timeout=seconds)
    try:
        yield
    finally:
        if lock is not None:
            lock.release()


def _sync_folder(folder: Path) -> None:
    """The new names on disk too, where the system lets a folder be opened for it."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:  # some network file systems refuse; the names are in place all the same
        pass
    finally:
        os.close(handle)


def own_folder(folder: Path, is_taken: Callable[[Path], bool]) -> Path:
    """`folder`, or the first of folder-2, folder-3 ... that is not taken by something else."""
    names = chain([folder], (folder.with_name(f"{folder.name}-{number}") for number in count(2)))
    return next(each for each in names if not is_taken(each))
