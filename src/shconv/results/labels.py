"""Where the numbers of a chart's points stand: next to them, and on nothing else that is drawn."""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Self

DIGIT, HEIGHT, RADIUS = 8.0, 12.0, 5.0  # pixels: a digit's width, a line's height, a point
NEAR, FAR, STEPS, RING = 10.0, 90.0, 16, 6.0  # distance of a label's edge from its point, directions, between rings


class Box(NamedTuple):
    left: float
    top: float
    right: float
    bottom: float

    def shared(self, other: "Box") -> float:
        """The area that both cover."""
        width = min(self.right, other.right) - max(self.left, other.left)
        return max(0.0, width) * max(0.0, min(self.bottom, other.bottom) - max(self.top, other.top))

    @classmethod
    def around(cls, x: float, y: float, width: float, height: float) -> Self:
        return cls(x - width / 2, y - height / 2, x + width / 2, y + height / 2)


class Marked(NamedTuple):
    """A point at (x, y), with a vertical line from low to high (pixels, so low is below), and its label."""

    x: float
    y: float
    low: float
    high: float
    text: str

    @property
    def drawn(self) -> tuple[Box, Box]:
        line = Box(self.x - 2, min(self.low, self.high), self.x + 2, max(self.low, self.high))
        return Box.around(self.x, self.y, 2 * RADIUS, 2 * RADIUS), line


def placed(points: Sequence[Marked], frame: Box) -> list[tuple[float, float]]:
    """The middle of each point's label: the nearest place within the frame that is free, else the freest."""
    taken = [box for point in points for box in point.drawn]
    middles = []
    for point in points:
        width = DIGIT * len(point.text)
        best, least = (point.x, point.y), math.inf
        for x, y in _around(point, width):
            box = Box.around(x, y, width, HEIGHT)
            inside = box.shared(frame) >= width * HEIGHT - 1e-6
            covered = sum(box.shared(other) for other in taken) + (0.0 if inside else 1e6)
            if covered < least:
                best, least = (x, y), covered
            if covered == 0:
                break
        taken.append(Box.around(*best, width, HEIGHT))
        middles.append(best)
    return middles


def led(point: Marked, at: tuple[float, float]) -> bool:
    """Whether a label stands so far from its point that a line has to lead there."""
    return math.dist(at, (point.x, point.y)) > NEAR + DIGIT * len(point.text) / 2 + RING / 2


def _around(point: Marked, width: float) -> Iterator[tuple[float, float]]:
    """Places on rings around the point, the left one first."""
    away = NEAR
    while away <= FAR:
        for step in range(STEPS):
            # Left, right, and on between the directions, each as likely to be free as the last.
            angle = math.pi * (1 + 2 * ((step * 5) % STEPS) / STEPS) if step else math.pi
            across, down = math.cos(angle), math.sin(angle)
            yield point.x + across * (away + width / 2), point.y + down * (away + HEIGHT / 2 - 4)
        away += RING
