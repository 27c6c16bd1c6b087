"""The losses that attacks raise: their definitions, what they are blind to, where they saturate."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from shconv.attacks.losses import Loss, attack_loss, likeliest_wrong, margin
from shconv.errors import InputError

Z = torch.tensor([[3.0, 1.0, -1.0, 0.0, 2.0], [0.5, 4.0, 2.5, 1.0, 0.0]], dtype=torch.float64)
Y = torch.tensor([0, 2])
T = torch.tensor([1, 0])


def test_margin_is_the_lead_of_the_best_wrong_class() -> None:
    assert margin(Z, Y).tolist() == [2.0 - 3.0, 4.0 - 2.5]
    assert attack_loss("margin", Z, Y).tolist() == [-1.0, 1.5]
    assert attack_loss("margin", Z, Y, T).tolist() == [1.0 - 3.0, 0.5 - 2.5]


def test_cross_entropy_is_torchs() -> None:
    assert torch.equal(attack_loss("cross_entropy", Z, Y), F.cross_entropy(Z, Y, reduction="none"))
    assert torch.equal(attack_loss("cross_entropy", Z, Y, T), -F.cross_entropy(Z, T, reduction="none"))


def test_dlr_divides_by_the_spread_of_the_largest_logits() -> None:
    wanted = torch.tensor([-1.0 / (3 - 1), 1.5 / (4 - 1)], dtype=Z.dtype)
    torch.testing.assert_close(attack_loss("dlr", Z, Y), wanted)
    wanted = torch.tensor([-2.0 / (3 - (1 + 0) / 2), -2.0 / (4 - (1 + 0.5) / 2)], dtype=Z.dtype)
    torch.testing.assert_close(attack_loss("dlr", Z, Y, T), wanted)


@pytest.mark.parametrize("target", [None, T])
def test_dlr_is_blind_to_the_scale_of_the_logits(target: Tensor | None) -> None:
    torch.testing.assert_close(attack_loss("dlr", 1e4 * Z + 5, Y, target), attack_loss("dlr", Z, Y, target))


@pytest.mark.parametrize("loss", ["cross_entropy", "dlr", "margin"])
@pytest.mark.parametrize("target", [None, T])
def test_every_loss_rises_with_the_wrong_logit_and_falls_with_the_right_one(loss: Loss, target: Tensor | None) -> None:
    z = Z.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(attack_loss(loss, z, Y, target).sum(), z)
    wrong = torch.tensor([4, 1]) if target is None else target
    assert bool((gradient.gather(1, wrong[:, None]) > 0).all())
    if loss != "cross_entropy" or target is None:
        assert bool((gradient.gather(1, Y[:, None]) < 0).all())


def test_only_the_cross_entropy_loses_its_gradient_when_float32_saturates() -> None:
    z = (1000 * Z[:1].float()).requires_grad_()
    size = {
        loss: float(torch.autograd.grad(attack_loss(loss, z, Y[:1]).sum(), z)[0].abs().sum())
        for loss in ("cross_entropy", "dlr", "margin")
    }
    assert size["cross_entropy"] == 0.0
    assert size["margin"] == 2.0
    assert size["dlr"] > 0.0


def test_dlr_says_how_many_classes_it_needs() -> None:
    with pytest.raises(InputError, match="dlr needs 3 classes; got 2"):
        attack_loss("dlr", Z[:, :2], torch.tensor([0, 1]))
    with pytest.raises(InputError, match="targeted dlr needs 4 classes; got 3"):
        attack_loss("dlr", Z[:, :3], torch.tensor([0, 1]), torch.tensor([1, 2]))
    assert math.isfinite(float(attack_loss("dlr", Z[:, :3], torch.tensor([0, 1])).sum()))


def test_likeliest_wrong_classes_come_in_order_and_are_at_most_all_of_them() -> None:
    assert [c.tolist() for c in likeliest_wrong(Z, Y, 2)] == [[4, 1], [1, 3]]
    assert [c.tolist() for c in likeliest_wrong(Z, Y, 9)] == [[4, 1], [1, 3], [3, 0], [2, 4]]
