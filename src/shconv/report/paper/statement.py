"""A sentence or two on what a run shows."""

from typing import NamedTuple


class Statement(NamedTuple):
    """``alarm`` where it speaks against a defence or against the run itself."""

    text: str
    alarm: bool = False
    evidence: str = ""  # the numbers it hangs on, where the text does not hold them all
    topic: str = ""

    def __str__(self) -> str:
        return f"{self.text} ({self.evidence})" if self.evidence else self.text
