"""The state of a LocSearchAdv search over N images at once, and one round of it: probe, select, change, look."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shconv.attacks.base import Model
from shconv.attacks.locsearch.pixels import PixelPool, Pixels
from shconv.attacks.locsearch.probes import cyclic, image_logits, pert, probe_scores
from shconv.attacks.locsearch.rules import Rules

LOOKS = 16  # images in a batch of those that are looked at after a round; always full, as the probes' batches
NONE: Pixels = np.empty(0, np.int64)
P_BOUNDS = (0.5, 10.0)  # of the adaptive p
P_GROWS_ABOVE, P_SHRINKS_BELOW = 0.9, 0.3  # mean p_y of the selected probes


class Search:
    """What changes from round to round. Bookkeeping is numpy on the CPU; x and logits are where the images are."""

    def __init__(
        self, rules: Rules, model: Model, clean: Tensor, y: Tensor, generators: Sequence[np.random.Generator]
    ) -> None:
        n, _, height, width = clean.shape
        self.rules, self.model, self.y = rules, model, y
        self.look = min(LOOKS, rules.batch_size)  # images in a batch
        self.x = clean.clone(memory_format=torch.contiguous_format)  # (N, C, H, W), the current images
        self.pools = [PixelPool(rules, height, width, generator) for generator in generators]
        self.p = np.full(n, float(rules.p))
        self.queries = np.zeros(n, np.int64)
        self.logits = image_logits(model, self.x, y, self._there(np.arange(n)), self.look)  # of x, (N, K)
        self.going = np.ones(n, np.bool_)
        self._stop(np.arange(n))
        self.selected = NONE, NONE  # in the last round: image and pixel, each (S,), sorted by image

    def round(self) -> None:
        """One round for every image that goes on."""
        going = np.flatnonzero(self.going)
        self.selected = NONE, NONE
        if not going.size:
            return
        random = self.rules.order == "random"
        drawn = [self.pools[i].random() if random else self.pools[i].candidates() for i in going]
        image, pixel = going.repeat([len(pixels) for pixels in drawn]), np.concatenate(drawn)  # (P,)
        if not random and image.size:
            image, pixel = self._select(image, pixel)
        self._change(image, pixel)
        for i, pixels in zip(going, np.split(pixel, np.searchsorted(image, going[1:])), strict=True):
            self.pools[i].perturbed(pixels)
        self.selected = image, pixel
        there = self._there(going)
        self.logits[there] = image_logits(self.model, self.x, self.y, there, self.look)
        self.queries[going] += 1
        self._stop(going)

    def _select(self, image: Pixels, pixel: Pixels) -> tuple[Pixels, Pixels]:
        """Of P probes (P,), sorted by image, the t with the lowest score of each image (S,)."""
        self.queries += np.bincount(image, minlength=len(self.queries))
        there, place = self._there(image), self._there(pixel)
        values = self.x.flatten(2)[there, :, place]  # (P, C)
        if self.rules.probe == "cyclic":
            values = cyclic(values, self.rules.r)
        else:
            values = pert(values, self._there(self.p[image]).to(values))
        score = probe_scores(self.model, self.x, self.y, there, place, values, self.rules.batch_size)
        kept = lowest(-score if self.rules.order == "highest" else score, image, pixel, self.rules.pixels_per_step)
        if self.rules.adapt_p and self.rules.probe == "perturb":
            self._adapt(image[kept], score[kept])
        return image[kept], pixel[kept]

    def _adapt(self, image: Pixels, score: NDArray[np.float64]) -> None:
        """Double or halve p where the mean p_y of the selected probes, from their log-odds (S,), asks for it."""
        p_y = 1 / (1 + np.exp(-score.clip(-700, 700)))
        count = np.bincount(image, minlength=len(self.p))
        mean = np.bincount(image, p_y, len(self.p)) / count.clip(1)
        grows, shrinks = mean > P_GROWS_ABOVE, (mean < P_SHRINKS_BELOW) & (count > 0)
        self.p[grows] = (2 * self.p[grows]).clip(*P_BOUNDS)
        self.p[shrinks] = (self.p[shrinks] / 2).clip(*P_BOUNDS)

    def _change(self, image: Pixels, pixel: Pixels) -> None:
        there, place, flat = self._there(image), self._there(pixel), self.x.flatten(2)
        flat[there, :, place] = cyclic(flat[there, :, place], self.rules.r)

    def _stop(self, image: Pixels) -> None:
        """With stop_on_success, leave those images alone that k classes or more beat the true one of."""
        if self.rules.stop_on_success:
            there = self._there(image)
            logits = self.logits[there]
            ahead = (logits > logits.gather(1, self.y[there, None])).sum(1)
            self.going[image] = (ahead < self.rules.k).cpu().numpy()

    def _there(self, numbers: NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(numbers).to(self.y.device)


def lowest(score: NDArray[np.float64], image: Pixels, pixel: Pixels, t: int) -> Pixels:
    """Places (S,) of the t lowest scores of each image, sorted by image, then score, then pixel; `image` is sorted."""
    order = np.lexsort((pixel, score, image))
    first = np.searchsorted(image, image)  # where each image's probes begin
    kept: Pixels = order[np.arange(len(image)) - first < t]
    return kept
