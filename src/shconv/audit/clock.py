"""The time an audit has left. What a stopped run spent is kept in its folder and counts when it goes on."""

import json
import math
import time

from shconv.experiments.run_folder import RunFolder

_FILE = "clock.json"


class Clock:
    """Seconds spent on an audit, all of its networks together, and the seconds it may spend."""

    def __init__(self, folder: RunFolder, budget: float, started: float | None = None) -> None:
        """`budget` in seconds, infinite for none, from `started` (time.monotonic) or now on.

        A damaged file of a stopped run counts as no time spent.
        """
        self._folder, self._started = folder, time.monotonic() if started is None else started
        self.limit = usable(budget)
        try:
            self._before = float(json.loads((folder.path / _FILE).read_bytes())["spent"])
        except (OSError, ValueError, KeyError, TypeError):
            self._before = 0.0

    @property
    def spent(self) -> float:
        return self._before + time.monotonic() - self._started

    def left(self, until: float = math.inf) -> float:
        """Seconds until `until` seconds are spent, or all of the limit; never below 0."""
        return max(0.0, min(self.limit, until) - self.spent)

    def save(self) -> None:
        """Keep the time spent so far for a run that goes on after this one was stopped."""
        self._folder.save_json(_FILE, {"spent": round(self.spent, 3)})


def usable(budget: float) -> float:
    """Seconds of a budget without what is kept for the verdict and the report."""
    return min(0.95 * budget, max(0.8 * budget, budget - 10.0)) if math.isfinite(budget) else budget


def budget_for(seconds: float) -> float:
    """The budget of which so many seconds are usable."""
    return max(seconds / 0.95, min(seconds / 0.8, seconds + 10.0))


def minutes(seconds: float) -> str:
    """0.4 -> "0.4 s", 75 -> "1:15", 5000 -> "1:23:20", infinity -> "no limit"."""
    if math.isinf(seconds):
        return "no limit"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s" if whole >= 10 or not seconds else f"{seconds:.1f} s"
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"
