"""What machine this is, for the reports that a number is read with."""

import platform
from pathlib import Path


def processor() -> str:
    """The processor's model name where Linux tells it, else its architecture."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
