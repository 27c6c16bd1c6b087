"""L-BFGS: the closed form between two classes, targets, the line search's start."""

import pytest
import torch
from attack_toys import Linear, inner_images

from shconv.attacks import LBFGS, DeepFool


@pytest.mark.parametrize("c", [1.0, 1e-4, 1e4])
def test_between_two_classes_of_a_linear_model_it_finds_the_boundary(c: float) -> None:
    model, x = Linear(2), inner_images(2)
    y = model(x).argmax(1)
    result = LBFGS(c=c, searches=14).run(model, x, y)
    gap = model(x).diff(dim=1)[:, 0].abs()
    wanted = gap / (model.weight[1] - model.weight[0]).norm()
    assert float(wanted.max()) < 0.3 * 32**0.5
    assert bool((result.distances["l2"] >= wanted * (1 - 1e-9)).all())
    torch.testing.assert_close(result.distances["l2"], wanted, rtol=0.03, atol=0)
    assert torch.equal(model(result.images).argmax(1), 1 - y)


@pytest.mark.parametrize("scale", [1e-4, 1e-6])
def test_a_small_gradient_is_not_taken_for_the_end(scale: float) -> None:
    """The boundary of a linear network does not move with the scale of its logits."""
    model, x = Linear(2), inner_images(3)
    model.weight *= scale
    y = model(x).argmax(1)
    result = LBFGS(searches=24).run(model, x, y)
    wanted = model(x).diff(dim=1)[:, 0].abs() / (model.weight[1] - model.weight[0]).norm()
    assert torch.equal(model(result.images).argmax(1), 1 - y)
    torch.testing.assert_close(result.distances["l2"], wanted, rtol=0.05, atol=1e-4)


def test_the_image_is_classified_as_its_target() -> None:
    model, x = Linear(6), inner_images(4)
    y = model(x).argmax(1)
    for aim in ("random", "likeliest"):
        result = LBFGS(aim=aim, searches=5).run(model, x, y)  # type: ignore[arg-type]
        moved = result.distances["l2"] > 0
        assert int(moved.sum()) >= 3
        assert torch.equal(model(result.images).argmax(1)[moved], result.target[moved])  # type: ignore[index]
        assert bool((result.target != y).all())
    assert torch.equal(result.target, model(x).topk(2, 1).indices[:, 1])  # type: ignore[arg-type]


def test_all_targets_untargeted_come_as_near_as_deepfool_on_a_linear_model() -> None:
    model, x = Linear(3), inner_images(2)
    y = model(x).argmax(1)
    ours = LBFGS("untargeted", "likeliest", targets=2).run(model, x, y).distances["l2"]
    torch.testing.assert_close(ours, DeepFool().run(model, x, y).distances["l2"] / 1.02, rtol=0.05, atol=0)
