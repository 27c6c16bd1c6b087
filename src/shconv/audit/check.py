"""What a check is: a module that looks at one way in which robustness can be only apparent."""

from typing import Protocol

from shconv.attacks.cost import Cost
from shconv.audit.audit import Audit
from shconv.audit.findings import Finding


class Check(Protocol):
    """A module of shconv.audit.checks."""

    NUMBER: int
    NAME: str
    SOURCE: str
    ALARM: str

    def applies(self, audit: Audit) -> str: ...

    def cost(self, audit: Audit) -> Cost: ...

    def run(self, audit: Audit) -> Finding: ...
