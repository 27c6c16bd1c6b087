"""LocSearchAdv: its two pixel changes, its draws, its stopping, its batches and its trace."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from shconv.attacks import LocSearchAdv
from shconv.attacks.locsearch.probes import cyclic, pert
from shconv.errors import InputError


def exact(x: Tensor) -> Tensor:
    """Logits of small whole weights: with dyadic images every sum is exact, whatever the order of its terms."""
    weight = (torch.arange(3 * x[0].numel(), device=x.device) * 37 % 11 - 5).to(x).view(3, -1)
    return (x.flatten(1)[:, None] * weight).sum(2) / 8


def dyadic_images(n: int, *shape: int, seed: int = 0) -> Tensor:
    levels = torch.randint(0, 257, (n, *shape), generator=torch.Generator().manual_seed(seed))
    return levels.double() / 256


def labels(n: int) -> Tensor:
    return torch.arange(n) % 3


@given(value=st.floats(0, 1), r=st.floats(0, 2))
def test_cyclic_follows_its_formula_and_stays_in_the_box(value: float, r: float) -> None:
    v = r * (value - 0.5)
    wanted = v + 1 if v < -0.5 else v - 1 if v > 0.5 else v
    result = cyclic(torch.tensor([[value]], dtype=torch.float64), r).item()
    assert result == pytest.approx(wanted + 0.5, abs=1e-15)
    assert 0 <= result <= 1


def test_cyclic_on_hand_made_values() -> None:
    values = torch.tensor([[0.0, 0.25, 0.5, 0.75, 1.0]], dtype=torch.float64)
    assert cyclic(values, 1.5).tolist() == [[0.75, 0.125, 0.5, 0.875, 0.25]]


def test_pert_sets_every_channel_to_p_times_its_sign_round_the_middle() -> None:
    values = torch.tensor([[0.2, 0.5, 0.9], [0.0, 1.0, 0.6]])
    assert pert(values, torch.tensor([1.0, 2.0])).tolist() == [[-0.5, 0.5, 1.5], [-1.5, 2.5, 2.5]]


@pytest.mark.parametrize(
    "rules", [LocSearchAdv(2, 6), LocSearchAdv(2, 6, probe="cyclic"), LocSearchAdv(2, 6, order="random")]
)
def test_an_images_result_does_not_depend_on_its_neighbours(rules: LocSearchAdv) -> None:
    images, y = dyadic_images(5, 3, 8, 9), labels(5)
    together = rules.run(exact, images, y, index=range(20, 25), trace=True)
    assert together.trace is not None
    for i in range(5):
        alone = rules.run(exact, images[i : i + 1], y[i : i + 1], index=[20 + i], trace=True)
        assert alone.trace is not None
        assert torch.equal(alone.images[0], together.images[i])
        assert torch.equal(alone.trace.logits[0], together.trace.logits[i])
        assert torch.equal(alone.trace.pixels[0], together.trace.pixels[i])
        assert alone.queries[0] == together.queries[i]


def test_model_sees_full_batches_of_one_shape_only() -> None:
    shapes: set[tuple[int, ...]] = set()

    def watched(x: Tensor) -> Tensor:
        shapes.add(tuple(x.shape))
        return exact(x)

    LocSearchAdv(2, 5, batch_size=13)(watched, dyadic_images(3, 2, 6, 7), labels(3))
    assert shapes == {(13, 2, 6, 7)}
    shapes.clear()
    LocSearchAdv(2, 5, batch_size=20)(watched, dyadic_images(3, 2, 6, 7), labels(3))
    assert shapes == {(20, 2, 6, 7), (16, 2, 6, 7)}, "the looks after each round are fewer than the probes"


def test_only_selected_pixels_change_each_by_one_cyclic_step_a_round_in_all_channels() -> None:
    images = dyadic_images(4, 3, 7, 12)
    result = LocSearchAdv(3, 5, half_width=2).run(exact, images, labels(4), trace=True, trace_steps=range(6))
    assert result.trace is not None
    assert torch.equal(result.trace.images[0], images)
    assert torch.equal(result.trace.images[5], result.images)
    for step in range(1, 6):
        wanted = result.trace.images[step - 1].flatten(2).clone()
        for i, chosen in enumerate(result.trace.pixels[:, step - 1]):
            assert len(set(chosen.tolist())) == 3
            wanted[i][:, chosen] = cyclic(wanted[i][:, chosen], 1.5)
        assert torch.equal(result.trace.images[step].flatten(2), wanted)


def test_a_selected_pixel_lies_in_a_square_round_the_last_ones_and_waits_its_rounds() -> None:
    rules = LocSearchAdv(2, 20, half_width=2, exclude_rounds=4)
    trace = rules.run(exact, dyadic_images(4, 3, 11, 13), labels(4), trace=True).trace
    assert trace is not None
    for chosen in trace.pixels:
        y, x = chosen // 13, chosen % 13
        for step in range(1, 20):
            near = ((y[step, :, None] - y[step - 1]).abs() <= 2) & ((x[step, :, None] - x[step - 1]).abs() <= 2)
            assert near.any(1).all()
            assert not set(chosen[step].tolist()) & set(chosen[max(0, step - 4) : step].flatten().tolist())
    again = [
        step
        for chosen in trace.pixels
        for step in range(5, 20)
        if set(chosen[step].tolist()) & set(chosen[step - 5].tolist())
    ]
    assert again, "no pixel was taken again as soon as its rounds were over"


def test_an_image_without_pixels_left_stays_as_it_is() -> None:
    result = LocSearchAdv(2, 7, half_width=1).run(
        exact, dyadic_images(2, 1, 3, 3), labels(2), trace=True, trace_steps=(5, 7)
    )
    assert result.trace is not None
    for chosen in result.trace.pixels:
        assert sorted(chosen[:5].flatten().tolist()) == [-1, *range(9)]
        assert (chosen[5:] == -1).all()
    assert torch.equal(result.trace.images[5], result.trace.images[7])
    assert torch.equal(result.trace.logits[:, 5], result.trace.logits[:, 7])


def test_a_round_without_a_selected_pixel_leaves_p_alone() -> None:
    def sure(x: Tensor) -> Tensor:
        return torch.tensor([9.0, 0.0]).expand(len(x), 2)

    trace = LocSearchAdv(2, 8).run(sure, dyadic_images(1, 1, 2, 3), torch.tensor([0]), trace=True).trace
    assert trace is not None
    assert trace.p.tolist() == [[1, 2, 4, 8, 8, 8, 8, 8]]


def test_probes_of_a_round_are_at_most_max_probes() -> None:
    trace = LocSearchAdv(2, 10, max_probes=9).run(exact, dyadic_images(3, 1, 20, 20), labels(3), trace=True).trace
    assert trace is not None
    assert (trace.queries.diff() == 9 + 1).all()


def test_the_first_round_probes_a_tenth_of_the_pixels_drawn_at_random() -> None:
    trace = LocSearchAdv(1, 1).run(exact, dyadic_images(3, 1, 20, 30), labels(3), trace=True).trace
    assert trace is not None
    assert trace.queries.tolist() == [[0, 60 + 1]] * 3


def test_random_order_draws_pixels_evenly_and_probes_nothing() -> None:
    n = 600
    result = LocSearchAdv(2, 5, order="random").run(exact, dyadic_images(n, 1, 4, 5), labels(n), trace=True)
    assert result.trace is not None
    assert result.queries.tolist() == [5] * n
    assert all(len(set(chosen.flatten().tolist())) == 10 for chosen in result.trace.pixels)
    counts = np.bincount(result.trace.pixels[:, 0].flatten().numpy(), minlength=20)
    expected = 2 * n / 20
    assert ((counts - expected) ** 2 / expected).sum() < 43.8  # chi-square, 19 degrees of freedom: 0.1 %


def test_cyclic_probes_hurt_more_than_random_pixels_and_the_highest_order_does_not() -> None:
    images = dyadic_images(6, 3, 12, 12)
    y = exact(images).argmax(1)

    def mean_confidence(**rules: object) -> float:
        attacked = LocSearchAdv(3, 8, initial_fraction=1.0, **rules)(exact, images, y)  # type: ignore[arg-type]
        return float(exact(attacked).log_softmax(1).gather(1, y[:, None]).mean())

    random = mean_confidence(order="random")
    assert mean_confidence(probe="cyclic") < min(random, mean_confidence()) - 1
    assert mean_confidence(probe="cyclic", order="highest") > random


def test_stop_on_success_leaves_an_image_alone_once_k_classes_beat_its_own() -> None:
    images, y = dyadic_images(12, 2, 9, 9), labels(12)
    stopped_early = 0
    for k in (1, 2):
        result = LocSearchAdv(2, 12, probe="cyclic", stop_on_success=True, k=k).run(
            exact, images, y, trace=True, trace_steps=(0, *range(1, 13))
        )
        assert result.trace is not None
        own = result.trace.logits.gather(2, y[:, None, None].expand(-1, 13, 1))
        success = ((result.trace.logits > own).sum(2) >= k).numpy()
        for i in range(12):
            first = int(success[i].argmax()) if success[i].any() else 12
            touched = (result.trace.pixels[i, :, 0] >= 0).tolist()
            assert touched == [True] * first + [False] * (12 - first)
            assert torch.equal(result.images[i], result.trace.images[first][i])
            assert int(result.queries[i]) == int(result.trace.queries[i, first])
            stopped_early += 0 < first < 12
    assert stopped_early > 3


def test_trace_confirms_the_result() -> None:
    images, y = dyadic_images(3, 3, 8, 8), labels(3)
    result = LocSearchAdv(2, 4).run(exact, images, y, trace=True)
    trace = result.trace
    assert trace is not None
    assert torch.equal(trace.logits[:, 0], exact(images))
    assert torch.equal(trace.logits[:, -1], exact(result.images))
    torch.testing.assert_close(trace.confidences, trace.logits.softmax(2)[torch.arange(3), :, y])
    assert trace.confidences.shape == (3, 5)
    assert torch.equal(trace.queries[:, -1], result.queries)
    assert trace.images == {}


def test_tracing_changes_neither_images_nor_queries() -> None:
    images, y = dyadic_images(3, 3, 8, 8), labels(3)
    plain, traced = (LocSearchAdv(2, 4).run(exact, images, y, trace=trace) for trace in (False, True))
    assert plain.trace is None
    assert torch.equal(plain.images, traced.images)
    assert torch.equal(plain.queries, traced.queries)


def test_progress_is_told_every_step() -> None:
    done: list[int] = []
    LocSearchAdv(1, 4).run(exact, dyadic_images(1, 1, 6, 6), labels(1), progress=done.append)
    assert done == [1, 2, 3, 4]


@pytest.mark.parametrize("step", [-1, 5, "last"])
def test_a_step_that_does_not_happen_cannot_be_kept(step: object) -> None:
    with pytest.raises(InputError, match="from 0 to 4"):
        LocSearchAdv(1, 4).run(exact, dyadic_images(1, 1, 6, 6), labels(1), trace_steps=[step])  # type: ignore[list-item]


def test_equal_scores_go_to_the_first_pixels() -> None:
    def constant(x: Tensor) -> Tensor:
        return torch.zeros(len(x), 3)

    trace = (
        LocSearchAdv(2, 2, half_width=1, initial_fraction=1.0)
        .run(constant, dyadic_images(1, 1, 4, 4), labels(1), trace=True)
        .trace
    )
    assert trace is not None
    assert trace.pixels[0].tolist() == [[0, 1], [2, 4]]


@pytest.mark.parametrize(
    ("p_y", "wanted"),
    [(0.95, [1, 2, 4, 8, 10, 10]), (0.85, [1] * 6), (0.35, [1] * 6), (0.25, [1, 0.5, 0.5, 0.5, 0.5, 0.5])],
)
def test_p_doubles_above_nine_tenths_and_halves_below_three_within_bounds(p_y: float, wanted: list[float]) -> None:
    def steady(x: Tensor) -> Tensor:
        return torch.tensor([p_y, 1 - p_y]).log().expand(len(x), 2)

    images, y = dyadic_images(2, 1, 6, 6), torch.zeros(2, dtype=torch.int64)
    for rules in (LocSearchAdv(2, 6), LocSearchAdv(2, 6, adapt_p=False), LocSearchAdv(2, 6, probe="cyclic")):
        trace = rules.run(steady, images, y, trace=True).trace
        assert trace is not None
        adapts = rules.adapt_p and rules.probe == "perturb"
        assert trace.p.tolist() == [wanted if adapts else [1] * 6] * 2


@given(
    height=st.integers(1, 7),
    width=st.integers(1, 7),
    channels=st.integers(1, 4),
    t=st.integers(1, 5),
    half_width=st.integers(0, 3),
    r=st.floats(0, 2),
    probe=st.sampled_from(["perturb", "cyclic"]),
    order=st.sampled_from(["lowest", "highest", "random"]),
    exclude_rounds=st.integers(0, 5),
    max_probes=st.none() | st.integers(5, 9),
    seed=st.integers(0, 10**6),
)
@settings(max_examples=40, deadline=None)
def test_any_search_stays_in_the_box_and_changes_at_most_t_pixels_a_round(
    height, width, channels, seed, t, **rules
) -> None:  # type: ignore[no-untyped-def]
    images = torch.rand(3, channels, height, width, generator=torch.Generator().manual_seed(seed))
    result = LocSearchAdv(t, 3, batch_size=16, **rules).run(exact, images, labels(3), seed=seed, trace=True)
    assert result.images.min() >= 0
    assert result.images.max() <= 1
    assert ((result.images != images).any(1).flatten(1).sum(1) <= 3 * t).all()
    assert result.trace is not None
    limit = rules["max_probes"] or height * width
    assert (result.trace.queries.diff() <= (0 if rules["order"] == "random" else limit) + 1).all()


def test_confident_predictions_are_still_searched() -> None:
    """Where p_y rounds to 1 for every probe, the probes are still told apart."""

    def confident(x: Tensor) -> Tensor:
        first = 60 + 0.01 * (x[:, 0, 3, 4] - 0.5).abs()
        return torch.stack([first, torch.zeros_like(first)], 1).float()

    images = torch.full((1, 1, 6, 6), 0.75)
    rules = LocSearchAdv(1, 1, initial_fraction=1.0, probe="cyclic", r=0.5)
    trace = rules.run(confident, images, torch.tensor([0]), trace=True).trace
    assert trace is not None
    assert trace.confidences.float().min() == 1
    assert trace.pixels.item() == 3 * 6 + 4


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("stop", [False, True])
def test_search_on_cuda_is_the_search_on_the_cpu(stop: bool) -> None:
    images, y = dyadic_images(4, 3, 9, 9), labels(4)
    rules = LocSearchAdv(2, 6, stop_on_success=stop)
    here = rules.run(exact, images, y, trace=True)
    there = rules.run(exact, images.cuda(), y.cuda(), trace=True)
    assert there.images.is_cuda
    assert there.queries.is_cuda
    assert torch.equal(there.images.cpu(), here.images)
    assert math.isclose(float(there.distances["l2"].sum()), float(here.distances["l2"].sum()))
