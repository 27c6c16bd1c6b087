"""Workers that fail or die: what there was too little of, and the one line that says so. What is raised has the exit
code of what goes on with the same command."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from shconv.data.workers import shared_memory_said


@contextmanager
def naming_dead_workers() -> Iterator[None]:
    """Raises ChildProcessError where torch says that a worker is gone: it may at any moment, not only in `next`."""
    try:
        yield
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker"):
            raise
        reason = str(error).splitlines()[0].removeprefix("DataLoader ").rstrip(". ")
        raise failure(f"{reason}: it read images", lack_of(error) or "") from error


def failure(what: str, lack: str) -> ChildProcessError:
    """One line, and the exit code of what goes on with the same command."""
    lack = lack or f"most often memory or {shared_memory_said()} is too small"
    return ChildProcessError(
        errno.ECHILD, f"{what}: {lack}; take --workers 0, fewer workers or smaller batches; the same command continues"
    )


def lack_of(error: Exception) -> str | None:
    """What there was too little of, and how it is made more; None where the error tells of no such thing."""
    number, text = getattr(error, "errno", None), str(error).lower()
    if number in (errno.EMFILE, errno.ENFILE) or "too many open files" in text:
        return "too many files are open (ulimit -n says how many may be)"
    if number in (errno.ENOSPC, errno.EDQUOT) or any(word in text for word in ("no space", "shared mem", "bus error")):
        return f"{shared_memory_said()} is too small (docker run --shm-size=2g makes it larger)"
    if isinstance(error, MemoryError) or number in (errno.ENOMEM, errno.EAGAIN) or "allocate memory" in text:
        return "memory is too small"
    return None
