"""Which pixels of one image LocSearchAdv may look at in a round: its neighbourhoods, exclusions and random draws."""

from collections import deque

import numpy as np
from numpy.typing import NDArray

from shconv.attacks.locsearch.rules import Rules

Pixels = NDArray[np.int64]  # y * W + x, one number a pixel


class PixelPool:
    """The pixels of one image, with what was perturbed in its last rounds. On the CPU, whatever the images' device."""

    def __init__(self, rules: Rules, height: int, width: int, generator: np.random.Generator) -> None:
        self.rules, self.shape, self.generator = rules, (height, width), generator
        self.recent: deque[Pixels] = deque(maxlen=rules.exclude_rounds)
        self.last: Pixels = np.empty(0, np.int64)

    def candidates(self) -> Pixels:
        """The pixels to probe: the free ones in the squares round those perturbed last.

        With fewer than t of them, as at the start, random free pixels join them, up to initial_fraction of the image.
        """
        free, near = self._free(), self._near()
        pixels = np.flatnonzero(near & free)
        if pixels.size < self.rules.pixels_per_step:
            wanted = max(self.rules.pixels_per_step, round(self.rules.initial_fraction * free.size))
            pixels = np.concatenate([pixels, self._draw(np.flatnonzero(free & ~near), wanted - pixels.size)])
        if self.rules.max_probes is not None:
            pixels = self._draw(pixels, self.rules.max_probes)
        return pixels

    def random(self) -> Pixels:
        """t pixels drawn from all the free ones, or all of these where they are fewer."""
        return self._draw(np.flatnonzero(self._free()), self.rules.pixels_per_step)

    def perturbed(self, pixels: Pixels) -> None:
        """End a round, in which these pixels (possibly none) were perturbed."""
        self.last = pixels
        self.recent.append(pixels)

    def _free(self) -> NDArray[np.bool_]:
        free = np.ones(self.shape[0] * self.shape[1], np.bool_)
        for pixels in self.recent:
            free[pixels] = False
        return free

    def _near(self) -> NDArray[np.bool_]:
        near, d = np.zeros(self.shape, np.bool_), self.rules.half_width
        for y, x in zip(*(place.tolist() for place in np.divmod(self.last, self.shape[1])), strict=True):
            near[max(y - d, 0) : y + d + 1, max(x - d, 0) : x + d + 1] = True
        return near.ravel()

    def _draw(self, pixels: Pixels, count: int) -> Pixels:
        if pixels.size <= count:
            return pixels
        return self.generator.choice(pixels, count, replace=False, shuffle=False)
