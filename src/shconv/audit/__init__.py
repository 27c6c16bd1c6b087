"""Is the robustness of a classifier real? `run` tries hard to break it and says what it tried: twelve checks and the
worst case per image."""

from shconv.audit.findings import Finding
from shconv.audit.run import Report, run
from shconv.audit.setting import Effort

__all__ = ["Effort", "Finding", "Report", "run"]
