"""What an attack costs, known before it runs."""

from typing import NamedTuple


class Cost(NamedTuple):
    """Passes over single images, an upper bound: an image that goes through the network ten times counts ten."""

    forwards: float
    backwards: float = 0.0

    def __add__(self, other: object) -> "Cost":
        if not isinstance(other, Cost):
            return NotImplemented
        return Cost(self.forwards + other.forwards, self.backwards + other.backwards)

    def times(self, count: float) -> "Cost":
        return Cost(count * self.forwards, count * self.backwards)
