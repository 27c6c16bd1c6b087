"""What a check is: a module that looks at one way in which robustness can be only apparent."""

from typing import Protocol

from shconv.attacks.cost import Cost
from shconv.audit.audit import Audit
from shconv.audit.findings import Finding


class Check(Protocol):
    """A module of shconv.audit.checks. It may also have `applies(audit)`, which says why it is not for a network."""

    NUMBER: int
    NAME: str
    SOURCE: str

    def cost(self, audit: Audit) -> Cost: ...

    def run(self, audit: Audit) -> Finding: ...


def why_not(check: Check, audit: Audit) -> str:
    """Why a check does not apply to a network; "" where it does."""
    said: str = check.applies(audit) if hasattr(check, "applies") else ""
    return said
