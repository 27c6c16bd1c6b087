"""How many processes read images where nobody says: as many as there are cores for, none where they cannot help."""

import os

MOST = 8  # some 4,000 ImageNet images a second
FEW = 2000  # images that one process reads in a second or two, which starting others would take too


def automatic_workers(images: int, processes: int | None = None) -> int:
    """Workers for each of the processes on this node (default: those torchrun or accelerate launch started) that go
    through so many images, read from a disk: a core stays free for what the images are read for."""
    if images < FEW:
        return 0
    processes = processes or int(os.environ.get("LOCAL_WORLD_SIZE") or 1)
    return min(MOST, max(1, usable_cores() // processes - 1))


def usable_cores() -> int:
    """Those that this process may use, where the system tells."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
