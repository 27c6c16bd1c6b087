"""How a test marked quiet gets the machine to itself, where several workers run tests."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def share_of_the_machine(folder: Path, whole: bool) -> Iterator[None]:
    """Tests share a lock, a quiet one has it alone; who waits for it holds a gate that no other passes."""
    import fcntl

    with (folder / "gate").open("w") as gate, (folder / "machine").open("w") as machine:
        fcntl.flock(gate, fcntl.LOCK_EX)
        fcntl.flock(machine, fcntl.LOCK_EX if whole else fcntl.LOCK_SH)
        fcntl.flock(gate, fcntl.LOCK_UN)
        yield
