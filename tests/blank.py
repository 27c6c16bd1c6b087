"""In the place of a figure that no test looks at: to make the axes of one takes most of the time of a page."""

from collections.abc import Iterator
from typing import Any

import numpy as np


class Blank:
    """A figure, and every part of it: takes whatever is drawn, and holds nothing."""

    def __init__(self, **_: Any) -> None:
        pass

    def __getattr__(self, name: str) -> "Blank":
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __call__(self, *_: Any, **__: Any) -> "Blank":
        return self

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    def subplots(self, rows: int = 1, columns: int = 1, squeeze: bool = True, **_: Any) -> Any:
        grid = np.full((rows, columns), self)
        return (grid.item() if grid.size == 1 else grid.squeeze()) if squeeze else grid

    subfigures = subplots

    def get_ylim(self) -> tuple[float, float]:
        return 0.0, 1.0

    def get_legend_handles_labels(self) -> tuple[list[Any], list[str]]:
        return [], []
