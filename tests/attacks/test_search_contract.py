"""What every attack promises that searches a ball or the nearest image: box, ball, determinism, any batch alike, a
model left as found."""

from dataclasses import replace

import pytest
import torch
from attack_toys import InUse, RowWise, everything_about
from torch import Tensor, nn

from shconv.attacks import (
    ANY_CHANGE,
    JSMA,
    LBFGS,
    PGD,
    Attack,
    DeepFool,
    GaussianBlur,
    HardLabel,
    MinimalAttack,
    RandomSigns,
    SaltAndPepper,
    SearchAttack,
    SemiRandom,
    Square,
    Standard,
)
from shconv.errors import InputError

WHITE_BOX = [
    PGD(0.03, steps=6),
    PGD(0.5, "l2", steps=6, restarts=2),
    PGD(0.03, steps=4, loss="dlr", targets=2),
    PGD(0.03, steps=5, loss="margin", random_start=False, step_size=0.01),
    PGD(0.5, "l2", steps=5, step_size=0.1, until_broken=True),
    PGD(0.03, steps=9, samples=2, until_broken=True, restarts=2),
]
OWN = [*WHITE_BOX, Square(0.03, queries=25), Square(0.5, "l2", queries=25), RandomSigns(0.03, draws=70)]
OTHERS = [
    HardLabel("boundary", 3.0, "l2", steps=40),
    HardLabel("hop_skip_jump", 0.5, "l2", steps=2),
    HardLabel("hop_skip_jump", 0.03, steps=2),
    Standard(0.03, attacks=("apgd-ce", "fab-t")),
    Standard(0.5, "l2", attacks=("apgd-dlr", "apgd-t")),
]
MINIMAL: list[MinimalAttack] = [
    DeepFool(steps=9),
    DeepFool("linf", overshoot=0.1, candidates=2),
    JSMA(gamma=1.0),
    JSMA("untargeted", "likeliest", targets=3, theta=-0.5, steps=12),
    SaltAndPepper(levels=7),
    GaussianBlur(levels=7),
    SemiRandom(share=0.3, steps=9),
    LBFGS(searches=2, iterations=4),
    LBFGS("untargeted", "likeliest", targets=2, searches=2, iterations=4),
]
DRAWING: list[Attack] = [a for a in [*OWN, *OTHERS] if "random_start=False" not in repr(a)]
DRAWING += [
    attack
    for attack in MINIMAL
    if getattr(attack, "aim", None) == "random" or type(attack) in (SaltAndPepper, SemiRandom)
]


def name_of(attack: Attack) -> str:
    return repr(attack).split(", steps_")[0].replace(" ", "")


every_attack = pytest.mark.parametrize("attack", [*OWN, *OTHERS, *MINIMAL], ids=name_of)
every_search = pytest.mark.parametrize("attack", [*OWN, *OTHERS], ids=name_of)
every_minimal = pytest.mark.parametrize("attack", MINIMAL, ids=name_of)
own_attacks = pytest.mark.parametrize("attack", OWN, ids=name_of)


@pytest.fixture(autouse=True)
def optional(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    attack = request.node.callspec.params.get("attack") if hasattr(request.node, "callspec") else None
    if isinstance(attack, HardLabel):
        pytest.importorskip("foolbox")
    if isinstance(attack, Standard):
        pytest.importorskip("pyautoattack")
        monkeypatch.setattr("shconv.attacks.standard.STEPS", 6)  # these promises do not hang on 100


def batch(n: int = 4, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Images of which some pixels lie at the edges of the box, with the classes that the row-wise model gives them."""
    x = torch.rand(n, 2, 6, 6, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    x = (1.4 * x - 0.2).clamp(0, 1)
    return x.to(dtype), RowWise()(x).argmax(1)


@every_search
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_result_is_in_the_box_and_in_the_ball_to_the_last_bit(
    attack: SearchAttack, dtype: torch.dtype, row_wise: RowWise
) -> None:
    x, y = batch(dtype=dtype)
    adversarial = attack(row_wise, x, y)
    delta = (adversarial.double() - x.double()).flatten(1)
    reached = delta.abs().amax() if getattr(attack, "norm", "linf") == "linf" else delta.norm(dim=1).max()
    assert adversarial.dtype == dtype
    assert float(reached) <= attack.epsilon  # type: ignore[attr-defined]
    assert torch.equal(adversarial, adversarial.clamp(0, 1))


@every_search
def test_no_budget_returns_the_clean_image(attack: SearchAttack, row_wise: RowWise) -> None:
    x, y = batch()
    assert torch.equal(replace(attack, epsilon=0.0)(row_wise, x, y), x)  # type: ignore[call-arg]


@every_minimal
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_image_is_misclassified_inside_the_box_or_as_it_was(
    attack: MinimalAttack, dtype: torch.dtype, row_wise: RowWise
) -> None:
    x, y = batch(12, dtype)
    y = torch.where(torch.arange(12) % 6 == 0, (y + 1) % 5, y)  # some are misclassified from the start
    result = attack.run(row_wise, x, y)
    wrong, moved = row_wise(result.images).argmax(1) != y, result.distances["l2"] > 0
    assert result.images.dtype == dtype
    assert torch.equal(result.images, result.images.clamp(0, 1))
    assert torch.equal(moved, wrong & (row_wise(x).argmax(1) == y))
    assert bool(moved.any())
    assert result.queries[::6].tolist() == [1] * 2
    assert attack.budget == ANY_CHANGE


@every_attack
def test_a_network_may_compute_in_a_wider_type_than_its_images(attack: Attack, row_wise: RowWise) -> None:
    x, y = batch()
    assert attack(lambda z: row_wise(z.double()), x, y).dtype == x.dtype


@every_attack
def test_torchs_default_type_does_not_matter(attack: Attack, row_wise: RowWise) -> None:
    x, y = batch()
    wanted = attack(row_wise, x, y)
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(attack(row_wise, x, y), wanted)
    finally:
        torch.set_default_dtype(torch.float32)


@every_attack
def test_an_image_gets_the_same_result_in_any_batch(attack: Attack, row_wise: RowWise) -> None:
    x, y = batch()
    index = torch.arange(20, 24)
    whole = attack.run(row_wise, x, y, index=index, seed=3)
    order = torch.tensor([2, 0, 3, 1])
    for part in (order[:1], order[1:]):
        other = attack.run(row_wise, x[part], y[part], index=index[part], seed=3)
        assert torch.equal(other.images, whole.images[part])
        assert torch.equal(other.queries, whole.queries[part])
    assert not torch.equal(whole.images, x)


@every_attack
def test_the_layout_of_images_and_gradients_does_not_matter(attack: Attack, row_wise: RowWise) -> None:
    x, y = batch()

    def model(z: Tensor) -> Tensor:
        if z.requires_grad:
            z.register_hook(lambda g: g.contiguous(memory_format=torch.channels_last))
        return row_wise(z.contiguous())

    wanted = attack(lambda z: row_wise(z.contiguous()), x, y)
    assert torch.equal(attack(model, x.contiguous(memory_format=torch.channels_last), y), wanted)


@pytest.mark.parametrize("attack", DRAWING, ids=name_of)
def test_seed_chooses_the_random_numbers_and_nothing_else_does(attack: Attack, row_wise: RowWise) -> None:
    x, y = batch()
    torch.manual_seed(0)
    first = attack.run(row_wise, x, y, seed=5)
    state = torch.get_rng_state()
    again = attack.run(row_wise, x, y, seed=5)
    assert torch.equal(first.images, again.images)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(attack(row_wise, x, y, seed=6), first.images)


@every_attack
def test_cost_bounds_the_passes_and_the_queries(attack: Attack, row_wise: RowWise) -> None:
    class Counting(nn.Module):
        forwards = backwards = 0

        def forward(self, x: Tensor) -> Tensor:
            self.forwards += len(x)
            logits = row_wise(x)
            if logits.requires_grad:
                logits.register_hook(self.count)
            return logits

        def count(self, gradient: Tensor) -> None:
            self.backwards += len(gradient)

    model = Counting()
    x, y = batch()
    result = attack.run(model, x, y)
    assert 0 < model.forwards <= len(x) * attack.cost.forwards
    assert model.backwards <= len(x) * attack.cost.backwards
    assert int(result.queries.max()) <= attack.cost.forwards
    assert (model.backwards > 0) == (attack.cost.backwards > 0)


@pytest.mark.parametrize("attack", [*OWN, *MINIMAL], ids=name_of)
def test_every_pass_sees_the_whole_batch_in_its_order(attack: Attack, row_wise: RowWise) -> None:
    x, y = batch()

    def watching(z: Tensor) -> Tensor:
        assert z.shape == x.shape
        assert float((z - x).detach().abs().amax()) <= (getattr(attack, "epsilon", None) or 1) * 1.2
        return row_wise(z)

    attack(watching, x, y)


@every_attack
def test_model_is_left_as_found(attack: Attack) -> None:
    network = InUse(2 * 6 * 6, 5)
    before = list(everything_about(network))
    attack(network, *batch())
    assert list(everything_about(network)) == before


@every_attack
def test_a_model_without_gradient_is_no_error(attack: Attack, row_wise: RowWise) -> None:
    x, y = batch()
    result = attack(lambda z: row_wise(z.detach()), x, y)
    assert bool(result.isfinite().all())


@own_attacks
def test_the_strongest_of_the_images_seen_is_returned(attack: Attack, row_wise: RowWise) -> None:
    x, y = batch()
    seen: list[Tensor] = []

    def watching(z: Tensor) -> Tensor:
        seen.append(z.detach().clone())
        return row_wise(z)

    adversarial = attack(watching, x, y)

    def rise(z: Tensor) -> Tensor:
        logits = row_wise(z)
        return logits.scatter(1, y[:, None], -torch.inf).amax(1) - logits.gather(1, y[:, None])[:, 0]

    rises = torch.stack([rise(z) for z in seen])  # (looks, N)
    holds = getattr(attack, "until_broken", True)
    first_wrong = (rises > 0).int().argmax(0)
    wanted = rises.amax(0)
    if holds:
        wanted = torch.where((rises > 0).any(0), rises.gather(0, first_wrong[None])[0], wanted)
    if getattr(attack, "samples", 1) == 1:
        assert torch.equal(rise(adversarial), wanted)


@every_attack
def test_half_precision_images_are_refused(attack: Attack, row_wise: RowWise) -> None:
    x, y = batch()
    with pytest.raises(InputError, match="float32 or float64"):
        attack(row_wise, x.bfloat16(), y)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: PGD(0.1, norm="l1"),  # type: ignore[arg-type]
        lambda: PGD(0.1, loss="hinge"),  # type: ignore[arg-type]
        lambda: PGD(0.1, steps=0),
        lambda: PGD(0.1, targets=-1),
        lambda: PGD(0.1, restarts=2, random_start=False),
        lambda: Square(0.1, queries=0),
        lambda: Square(0.1, share=1.5),
        lambda: RandomSigns(0.1, draws=0),
        lambda: HardLabel("coin", 0.1),  # type: ignore[arg-type]
        lambda: Standard(0.1, attacks=("apgd",)),
        lambda: Standard(0.1, attacks=()),
        lambda: DeepFool("l1"),  # type: ignore[arg-type]
        lambda: DeepFool(overshoot=-0.1),
        lambda: DeepFool(steps=0),
        lambda: DeepFool(candidates=0),
        lambda: LBFGS("nearest"),  # type: ignore[arg-type]
        lambda: LBFGS(aim="best"),  # type: ignore[arg-type]
        lambda: LBFGS(c=0.0),
        lambda: LBFGS(searches=0),
        lambda: JSMA(theta=0.0),
        lambda: JSMA(theta=-1.5),
        lambda: JSMA(gamma=0.0),
        lambda: JSMA(targets=0),
        lambda: SaltAndPepper(1.5),
        lambda: SaltAndPepper(levels=0),
        lambda: GaussianBlur(-1.0),
        lambda: SemiRandom(share=0.0),
        lambda: SemiRandom("linf"),
    ],
)
def test_a_hyper_parameter_out_of_range_is_refused(wrong: type) -> None:
    with pytest.raises(InputError):
        wrong()
