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
from shconv.attacks.cost import Cost
from shconv.attacks.locsearch.rules import Rules
from shconv.attacks.locsearch.search import Search
from shconv.attacks.locsearch.trace import LocSearchResult, Recorder, check_trace_steps
from shconv.attacks.spelling import other_names

STREAM = 3


@other_names
@dataclass(frozen=True)
class LocSearchAdv(Rules, Attack):
    """A search that probes candidate pixels one by one and changes the t most harmful ones in each round.

    Images are shifted to [LB, UB] = [-1/2, 1/2]. A round has four steps. (1) PERT sets all channels v of a candidate
    pixel to p sign(v), which may leave the box; the probe's score is p_y. (2) The t pixels with the lowest score are
    selected. (3) CYCLIC changes every channel v of these to r v, wrapped by UB - LB if that leaves the box. (4) The
    next candidates are the pixels in a square of half_width around them; a changed pixel is left out for
    exclude_rounds.

    The first candidates are a random initial_fraction of the image's pixels. They are drawn again if fewer than t
    candidates are left. Excluded pixels are never drawn; an image without other pixels stays unchanged in that round.

    The defaults are the paper's 10 pixels in each of 150 rounds without stopping, for images of 256 pixels a side
    (smaller ones: `locsearch_for`). p is ours, because the original calls it adaptive without numbers: 1 at first,
    doubled for an image if the mean p_y of its selected probes is above 0.9, halved below 0.3, within [0.5, 10].
    max_probes, the largest number of probes in a round (None: all candidates), is ours too. Of equal scores the first
    pixel counts, row by row.

    Args:
        probe: "cyclic" scores a pixel by the real next change. This search is far stronger and is reported next to the
            default.
        order: "highest" is the original's pseudo-code. "random" is the control: t pixels of the whole image, unprobed.
        stop_on_success: stop with an image when at least k classes beat the true one.
        batch_size: probes of all images share model batches of this size, always full, so an image's result does not
            depend on other images. The looks after a round have full batches of at most 16.

    Queries count an image's probes and one pass after each round, without the pass on the clean image.
    """

    @property
    def cost(self) -> Cost | None:
        return None if self.max_probes is None else Cost(1 + self.steps * (self.max_probes + 1))

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
