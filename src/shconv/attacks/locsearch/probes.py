"""The two pixel changes of LocSearchAdv, PERT and CYCLIC, and many probes evaluated in one fixed batch shape."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shconv.attacks.base import Model
from shconv.attacks.checks import check_logits, check_logits_shape
from shconv.attacks.objective import log_odds
from shconv.errors import InputError

MIDDLE = 0.5  # of the box: an image is recentred to [LB, UB] = [-1/2, 1/2]


def pert(values: Tensor, p: Tensor) -> Tensor:
    """p sign(v) of recentred values v (S, C), with one p (S,) a pixel. It may leave the box; sign(0) = 0."""
    return MIDDLE + p[:, None] * (values - MIDDLE).sign()


def cyclic(values: Tensor, r: float) -> Tensor:
    """r v of recentred values v (S, C), wrapped round by UB - LB = 1 where it leaves [LB, UB]. Stays in the box."""
    v = r * (values - MIDDLE)
    v = v + (v < -0.5).to(v) - (v > 0.5).to(v)
    return (v + MIDDLE).clamp(0.0, 1.0)


def probe_scores(
    model: Model, x: Tensor, y: Tensor, image: Tensor, pixel: Tensor, values: Tensor, batch_size: int
) -> NDArray[np.float64]:
    """Log-odds of the true class for P probes (P,): they order probes as p_y does, and do not saturate.

    Probe j is the image x[image[j]], x (N, C, H, W), with the channels of its pixel[j] set to values[j], values (P, C).
    """
    scores = []
    for start in range(0, len(image), batch_size):
        here = slice(start, start + batch_size)
        logits = _fixed_batch(model, x, image[here], pixel[here], values[here], batch_size)
        odds = log_odds(logits, y[image[here]])
        scores.append(odds.where(logits.isfinite().all(1), torch.nan))
    result: NDArray[np.float64] = torch.cat(scores).cpu().double().numpy()
    if np.isnan(result).any():
        raise InputError("model: returned logits with NaN or infinity for a probe; want finite logits")
    return result


def image_logits(model: Model, x: Tensor, y: Tensor, image: Tensor, batch_size: int) -> Tensor:
    """Logits (P, K) of the images x[image] as they are, in one fixed batch shape."""
    batches = [_fixed_batch(model, x, rows, None, None, batch_size) for rows in image.split(batch_size)]
    return check_logits(torch.cat(batches), y[image])


def _fixed_batch(
    model: Model, x: Tensor, image: Tensor, pixel: Tensor | None, values: Tensor | None, batch_size: int
) -> Tensor:
    """Logits (n, K) of n <= batch_size probes. The model always sees batch_size rows, so that a row's arithmetic does
    not depend on how many others there are; the padding's logits are dropped."""
    n = len(image)
    batch = x.index_select(0, torch.cat([image, image[-1:].expand(batch_size - n)]))
    if pixel is not None and values is not None:
        place = pixel[:, None, None].expand(-1, x.shape[1], 1)
        batch[:n].flatten(2).scatter_(2, place, values[:, :, None])
    return check_logits_shape(model(batch), batch_size)[:n]
