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
        # what comes before the first attack and after the last: loading, the verdict, the report
        reserve = max(0.05 * budget, min(10.0, 0.2 * budget)) if math.isfinite(budget) else 0.0
        self.limit = budget - reserve
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


def minutes(seconds: float) -> str:
    """0.4 -> "0.4 s", 75 -> "1:15", 5000 -> "1:23:20", infinity -> "no limit"."""
    if math.isinf(seconds):
        return "no limit"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s" if whole >= 10 or not seconds else f"{seconds:.1f} s"
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"
