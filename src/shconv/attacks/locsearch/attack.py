"""LocSearchAdv: greedy local search for the pixels that fool a network, without gradients (Narodytska and
Kasiviswanathan 2016, Algorithm 3, with the changes of the paper)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import index as as_integer
from typing import SupportsIndex

import torch
from torch import Tensor

from shconv.attacks.base import Attack, Model, borrowed, generators
from shconv.attacks.budget import distances
from shconv.attacks.checks import Index, check_inputs
from shconv.attacks.locsearch.rules import Rules
from shconv.attacks.locsearch.search import Search
from shconv.attacks.locsearch.trace import LocSearchResult, Recorder, check_trace_steps

STREAM = 3


@dataclass(frozen=True)
class LocSearchAdv(Rules, Attack):
    """Every round probes candidate pixels one by one on the current image and changes the t most harmful for good.

    Images are recentred to [LB, UB] = [-1/2, 1/2]. A round: (1) PERT sets all channels v of a candidate pixel to
    p sign(v), which may leave the box; the probe's score is p_y. (2) The t pixels of lowest score are selected.
    (3) CYCLIC takes every channel v of those to r v, wrapped round by UB - LB where that leaves the box. (4) The next
    candidates are the pixels within half_width of those, in a square; a perturbed one is left out for exclude_rounds.
    The first candidates, and those where fewer than t are left, are a random initial_fraction of the image's pixels.
    Pixels left out are never drawn; an image that has no other stays as it is for that round.

    Defaults are the paper's 10 pixels in each of 150 rounds without stopping, for images of 256 pixels a side (smaller
    ones: `locsearch_for`). p is ours, the original calls it adaptive without numbers: 1 at first, doubled for an image
    when the mean p_y of its selected probes is above 0.9, halved below 0.3, within [0.5, 10]. So is max_probes, the
    probes of one round (None: all candidates). Ties go to the pixel that comes first, row by row.

    probe="cyclic" scores a pixel with the very step that would be taken: a far stronger search, to be reported beside
    the default. order="highest" is the original's pseudo-code, no better than order="random", the control: t pixels
    from the whole image, unprobed. stop_on_success leaves an image alone once k classes or more beat the true one.
    Probes of all images share model batches of batch_size rows, always full: an image's result does not depend on its
    neighbours. Queries count its probes and one look at the image after each round, not the look at the clean image.
    """

    def run(
        self,
        model: Model,
        images: Tensor,
        labels: Tensor,
        *,
        index: Index | None = None,
        seed: SupportsIndex = 0,
        trace: bool = False,
        trace_steps: Sequence[int] = (),
        progress: Callable[[int], object] | None = None,
    ) -> LocSearchResult:
        """Like every attack's `run`. trace=True keeps what happened at every step in the result's `.trace`.

        trace_steps: also keep the images after these steps (0 is the clean image); this turns the trace on.
        progress: called after each step with the number of finished steps.
        """
        check_trace_steps(trace_steps, self.steps)
        with borrowed(model) as model, torch.no_grad():
            clean, y, places = check_inputs(images, labels, index, seed)
            search = Search(self, model, clean, y, generators(as_integer(seed), STREAM, places))
            recorder = Recorder(self, search, trace_steps) if trace or trace_steps else None
            for step in range(1, self.steps + 1):
                search.round()
                if recorder is not None:
                    recorder.record(step, search)
                if progress is not None:
                    progress(step)
        queries = torch.from_numpy(search.queries).to(y.device)
        result_trace = None if recorder is None else recorder.trace(y)
        return LocSearchResult(search.x, None, queries, distances(search.x, clean), result_trace)
