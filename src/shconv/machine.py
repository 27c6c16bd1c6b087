"""What machine this is, and how busy with other work, for the reports that a number is read with."""

import os
import platform
import time
from pathlib import Path


def processor() -> str:
    """The processor's model name where Linux tells it, else its architecture."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


class Others:
    """How much of the machine other programs take from here on."""

    def __init__(self) -> None:
        self._since = time.monotonic(), _busy(), _own()

    def cores(self) -> float | None:
        """Cores that others kept busy on average since; the load average less our own core where Linux does not say,
        None where nothing does."""
        (start, busy, own), now = self._since, _busy()
        elapsed = time.monotonic() - start
        if busy is not None and now is not None and elapsed > 0:
            return max(0.0, (now - busy - (_own() - own)) / elapsed)
        return max(0.0, os.getloadavg()[0] - 1) if hasattr(os, "getloadavg") else None


def _busy() -> float | None:
    """Seconds that all cores together have been at work since the machine started, where Linux tells it."""
    path = Path("/proc/stat")
    if not path.exists():
        return None
    user, nice, system, _, _, irq, soft = map(int, path.read_text(encoding="ascii").split("\n", 1)[0].split()[1:8])
    return (user + nice + system + irq + soft) / os.sysconf("SC_CLK_TCK")


def _own() -> float:
    return sum(os.times()[:4])
