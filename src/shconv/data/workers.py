"""How many processes read images where nobody says: as many as there are cores for, and as the memory that they share
with this process has room for; none where they cannot help."""

import os

from shconv.forked import usable_cores

MOST = 8  # some 4,000 ImageNet images a second
FEW = 2000  # images that one process reads in a second or two, which starting others would take too
AHEAD = 2  # batches that a worker prepares before they are asked for
SHARED = "/dev/shm"  # where workers put what they hand over


def automatic_workers(images: int, processes: int | None = None, batch_bytes: int = 0) -> int:
    """Workers for each of the processes on this node (default: those torchrun or accelerate launch started) that go
    through so many images, read from a disk: a core stays free for what the images are read for.

    batch_bytes: of one process's batch. Where shared memory cannot hold the batches under way there are fewer, or none.
    """
    if images < FEW:
        return 0
    processes = processes or int(os.environ.get("LOCAL_WORLD_SIZE") or 1)
    wanted = min(MOST, max(1, usable_cores() // processes - 1))
    room = shared_memory()
    while wanted and room is not None and processes * in_flight(wanted) * batch_bytes > room[1]:
        wanted -= 1
    return wanted


def in_flight(workers: int) -> int:
    """Batches that lie in shared memory at once: those prepared, the one that is taken over and the one in use."""
    return AHEAD * workers + 2


def shared_memory() -> tuple[int, int] | None:
    """(bytes in all, bytes free), where the system tells."""
    try:
        about = os.statvfs(SHARED)
    except (OSError, AttributeError):
        return None
    return about.f_blocks * about.f_frsize, about.f_bavail * about.f_frsize


def shared_memory_said() -> str:
    """Where workers put what they hand over, with its size where the system tells."""
    room = shared_memory()
    if room is None:
        return "shared memory"
    return f"{SHARED} ({room[0] / 2**20:.4g} MB, {room[1] / 2**20:.4g} MB free)"
