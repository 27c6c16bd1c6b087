"""JSMA: the best pair against all pairs, and its walk on linear models."""

import pytest
import torch
from attack_toys import Linear, inner_images
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from shconv.attacks import JSMA
from shconv.attacks.jsma import best_pair


def score_of_all_pairs(u: Tensor, v: Tensor) -> Tensor:
    us, vs = u[:, None] + u, v[:, None] + v
    return torch.where((us > 0) & (vs > 0), us * vs, -torch.inf).fill_diagonal_(-torch.inf)


@given(st.lists(st.tuples(st.integers(-6, 6), st.integers(-6, 6)), min_size=0, max_size=14), st.integers(0, 99))
@settings(max_examples=200, deadline=None)
def test_the_best_pair_is_the_best_of_all_pairs(points: list[tuple[int, int]], seed: int) -> None:
    rough = torch.tensor(points, dtype=torch.float64).reshape(-1, 2)  # whole numbers, so that there are ties
    smooth = torch.randn(40, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    for u, v in (rough.T, smooth.T):
        pair, scores = best_pair(u, v), score_of_all_pairs(u, v)
        if pair is None:
            assert not len(u) or float(scores.max()) == -torch.inf
        else:
            assert scores[pair[0], pair[1]] == scores.max()


@pytest.mark.parametrize("theta", [1.0, -1.0])
def test_a_linear_models_walk_takes_the_best_pairs_until_the_target_wins(theta: float) -> None:
    model, x = Linear(4), inner_images(6)
    y = model(x).argmax(1)
    result = JSMA(theta=theta, gamma=1.0).run(model, x, y, seed=2)
    w = model.weight.flatten(1)
    for i in range(6):
        t, z, looks = int(result.target[i]), x[i].flatten().clone(), 1  # type: ignore[index]
        fooled = False
        while not (fooled := int(model(z.view(1, 2, 4, 4)).argmax()) == t):
            free = (z < 1 if theta > 0 else z > 0).nonzero()[:, 0]
            u, v = theta * w[t][free], -theta * (w.sum(0) - w[t])[free]
            scores = score_of_all_pairs(u, v)
            if not len(free) or float(scores.max()) == -torch.inf:
                break
            best = int(scores.argmax())
            z[free[[best // len(free), best % len(free)]]] = 1.0 if theta > 0 else 0.0
            looks += 1
        assert int(result.queries[i]) == 1 + looks
        assert torch.equal(result.images[i].flatten(), z if fooled else x[i].flatten())


def test_no_more_than_the_share_gamma_changes_and_more_is_tried_with_more_targets() -> None:
    model, x = Linear(6), inner_images(20)
    y = model(x).argmax(1)
    few = JSMA(gamma=0.2).run(model, x, y)
    changed = (few.images != x).flatten(1).sum(1)
    assert int(changed.max()) <= 6
    one, all_ = (JSMA("untargeted", "likeliest", targets=k, gamma=0.2)(model, x, y) for k in (1, 5))
    fooled = [(model(z).argmax(1) != y) for z in (one, all_)]
    assert bool((fooled[1] | ~fooled[0]).all())
    assert int(fooled[1].sum()) > int((few.distances["l2"] > 0).sum())
    fewer = (all_ != x).flatten(1).sum(1) <= (one != x).flatten(1).sum(1)
    assert bool((fewer | ~fooled[0]).all())
