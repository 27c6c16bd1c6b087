"""What every attack promises: the model is left as found, inputs are checked at the door, calls are pure."""

from contextlib import suppress
from dataclasses import FrozenInstanceError, asdict, fields, is_dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from attack_toys import InUse, everything_about
from torch import Tensor, nn

from shconv.attacks import FGSM, IFGSM, Attack, GaussianNoise, LocSearchAdv, RandFGSM, Substitute
from shconv.attacks.budget import distances
from shconv.errors import InputError

SEARCH = LocSearchAdv(pixels_per_step=2, steps=3, max_probes=5, batch_size=7)
UNBOUND = GaussianNoise(0.2, None)
LEARNER = Substitute(seeds=6, rounds=1, epochs=1)
ATTACKS: list[Attack] = [
    GaussianNoise(0.2),
    FGSM(),
    IFGSM(),
    RandFGSM(),
    SEARCH,
    Substitute(seeds=6, rounds=1, epochs=1),
]
every_attack = pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: type(attack).__name__)
needs_model = pytest.mark.parametrize("attack", ATTACKS[1:], ids=lambda attack: type(attack).__name__)


def linear(x: Tensor) -> Tensor:
    weight = torch.linspace(-1, 1, 3 * x[0].numel(), dtype=x.dtype).view(3, -1).sin()
    return x.flatten(1) @ weight.T


class RecordingLinear(torch.autograd.Function):
    """x W^T that notes which of its inputs a gradient is asked for."""

    asked: ClassVar[list[tuple[bool, ...]]] = []

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.save_for_backward(x, weight)
        return x @ weight.T

    @staticmethod
    def backward(ctx, dy: Tensor) -> tuple[Tensor | None, Tensor | None]:  # type: ignore[no-untyped-def]
        x, weight = ctx.saved_tensors
        RecordingLinear.asked.append(tuple(ctx.needs_input_grad))
        return dy @ weight, dy.T @ x if ctx.needs_input_grad[1] else None


class Network(InUse):
    def __init__(self, fails: bool = False) -> None:
        super().__init__(2 * 4 * 5, 3)
        self.fails = fails

    def read(self, hidden: Tensor) -> Tensor:
        if self.fails:
            raise RuntimeError("broken network")
        return RecordingLinear.apply(hidden, self.head.weight) + self.head.bias


def batch(n: int = 4, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return torch.rand(n, 2, 4, 5, generator=generator).to(dtype), torch.arange(n) % 3


@every_attack
def test_model_is_left_as_found(attack: Attack) -> None:
    network = Network()
    before = list(everything_about(network))
    attack(network, *batch())
    assert list(everything_about(network)) == before


@needs_model
def test_model_is_left_as_found_after_an_exception(attack: Attack) -> None:
    network = Network(fails=True)
    before = list(everything_about(network))
    with pytest.raises(RuntimeError, match="broken network"):
        attack(network, *batch())
    assert list(everything_about(network)) == before


@needs_model
def test_model_runs_in_eval_mode(attack: Attack) -> None:
    network = Network()
    modes: list[bool] = []
    network.norm.register_forward_hook(lambda module, *_: modes.append(module.training))
    attack(network, *batch())
    assert modes
    assert not any(modes)


@pytest.mark.parametrize("attack", [FGSM(), IFGSM(), RandFGSM()], ids=lambda attack: type(attack).__name__)
def test_no_gradient_of_a_parameter_is_computed(attack: Attack) -> None:
    RecordingLinear.asked.clear()
    attack(Network(), *batch())
    assert RecordingLinear.asked == [(True, False)] * (attack.steps if isinstance(attack, IFGSM) else 1)


@every_attack
def test_inputs_are_not_changed(attack: Attack) -> None:
    images, labels = batch()
    copies = images.clone(), labels.clone()
    result = attack(linear, images, labels)
    assert result.data_ptr() != images.data_ptr()
    assert torch.equal(images, copies[0])
    assert torch.equal(labels, copies[1])


@every_attack
def test_two_calls_agree_and_calling_is_running(attack: Attack) -> None:
    images, labels = batch()
    result = attack.run(linear, images, labels, seed=5)
    assert torch.equal(attack(linear, images, labels, seed=5), result.images)
    assert not torch.equal(result.images, images)


@every_attack
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_result_does_not_depend_on_the_callers_gradient_mode(attack: Attack, mode: type) -> None:
    images, labels = batch()
    wanted = attack(linear, images, labels)
    with mode():
        assert torch.equal(attack(linear, images.clone(), labels.clone()), wanted)


@pytest.mark.parametrize("attack", [each for each in ATTACKS if each.exact], ids=lambda attack: type(attack).__name__)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_an_attack_with_a_budget_takes_no_images_too_coarse_for_it(attack: Attack, dtype: torch.dtype) -> None:
    with pytest.raises(InputError, match="want float32 or float64, in which distances are exact enough"):
        attack(linear, *batch(dtype=dtype))


@pytest.mark.parametrize(
    ("attack", "dtype"),
    [*((each, torch.float64) for each in ATTACKS), *((each, torch.bfloat16) for each in (SEARCH, UNBOUND))],
)
def test_result_has_the_images_dtype_and_no_graph(attack: Attack, dtype: torch.dtype) -> None:
    images, labels = batch(dtype=dtype)
    result = attack.run(linear, images.requires_grad_(), labels)
    assert result.images.dtype == dtype
    assert not result.images.requires_grad
    assert images.grad is None


@pytest.mark.parametrize("attack", [GaussianNoise(0.2), RandFGSM(), SEARCH], ids=lambda attack: type(attack).__name__)
def test_randomness_belongs_to_seed_and_index_not_to_the_order(attack: Attack) -> None:
    images, labels = torch.full((4, 2, 4, 5), 0.25, dtype=torch.float64), torch.zeros(4, dtype=torch.int64)

    def flat(x: Tensor) -> Tensor:
        return torch.stack([x.sum((1, 2, 3)), 0 * x.sum((1, 2, 3)), 1 + 0 * x.sum((1, 2, 3))], 1)

    places = [11, 3, 7, 0]
    result = attack(flat, images, labels, index=places, seed=1)
    backwards = attack(flat, images, labels, index=torch.tensor(places[::-1]), seed=1)
    alone = attack(flat, images[:1], labels[:1], index=np.array([7]), seed=1)
    assert torch.equal(backwards, result.flip(0))
    assert torch.equal(alone[0], result[2])
    assert not torch.equal(result[0], result[1])
    assert not torch.equal(attack(flat, images, labels, index=places, seed=2), result)
    assert torch.equal(attack(flat, images, labels, seed=1), attack(flat, images, labels, index=range(4), seed=1))


@every_attack
def test_distances_are_those_from_the_clean_image(attack: Attack) -> None:
    images, labels = batch(dtype=torch.float64)
    result = attack.run(linear, images, labels)
    delta = (result.images - images).flatten(1).numpy()
    np.testing.assert_allclose(result.distances["linf"].numpy(), np.abs(delta).max(1), rtol=1e-12)
    np.testing.assert_allclose(result.distances["l2"].numpy(), np.sqrt((delta**2).sum(1)), rtol=1e-12)


@every_attack
def test_a_network_that_works_in_place_is_attacked_as_any_other_or_refused(attack: Attack) -> None:
    def in_place(x: Tensor) -> Tensor:
        return linear(x.mul_(2) / 2)

    images, labels = batch()
    kept, found = images.clone(), None
    with suppress(InputError):
        found = attack(in_place, images, labels)
    assert found is None or torch.equal(found, attack(linear, images, labels))
    assert torch.equal(images, kept)


def test_distances_of_half_precision_images_are_not_rounded_to_it() -> None:
    a, b = (torch.tensor([[[[value]]]], dtype=torch.bfloat16) for value in (0.00390625, 1.0))
    assert distances(a, b)["linf"].tolist() == [0.99609375]  # bfloat16 has no such number


@every_attack
def test_attacks_are_frozen_dataclasses_of_plain_values(attack: Attack) -> None:
    assert is_dataclass(attack)
    assert type(attack)(**asdict(attack)) == attack
    assert hash(attack) == hash(type(attack)(**asdict(attack)))
    with pytest.raises(FrozenInstanceError):
        setattr(attack, fields(attack)[0].name, 1)


GOOD, CLASSES = batch(2)
BAD_INPUTS = {
    "8-bit images": (GOOD.mul(255).byte(), CLASSES, None, "float() / 255"),
    "0 to 255": (GOOD * 255, CLASSES, None, "[0, 1]"),
    "normalised": (GOOD - 0.5, CLASSES, None, "inside the network"),
    "NaN": (GOOD.clone().index_fill_(0, torch.tensor([1]), torch.nan), CLASSES, None, "NaN"),
    "one image without batch": (GOOD[0], CLASSES[:1], None, "(2, 4, 5)"),
    "no image": (GOOD[:0], CLASSES[:0], None, "(0, 2, 4, 5)"),
    "not a tensor": (GOOD.numpy(), CLASSES, None, "ndarray"),
    "too few labels": (GOOD, CLASSES[:1], None, "shape (2,)"),
    "one-hot labels": (GOOD, torch.eye(3)[CLASSES], None, "int64"),
    "32-bit labels": (GOOD, CLASSES.int(), None, "int32"),
    "negative label": (GOOD, CLASSES - 1, None, "-1"),
    "short index": (GOOD, CLASSES, [1], "2 integers"),
    "float index": (GOOD, CLASSES, [0.0, 1.0], "integers"),
    "negative index": (GOOD, CLASSES, [0, -1], "-1"),
}


@every_attack
@pytest.mark.parametrize("case", BAD_INPUTS)
def test_bad_input_is_refused_with_what_is_wanted(attack: Attack, case: str) -> None:
    images, labels, index, message = BAD_INPUTS[case]
    with pytest.raises(InputError) as error:
        attack(linear, images, labels, index=index)
    assert message in str(error.value)


@pytest.mark.parametrize("seed", [-1, 0.5, None])
def test_bad_seed_is_refused(seed: object) -> None:
    with pytest.raises(InputError, match="seed"):
        FGSM()(linear, GOOD, CLASSES, seed=seed)  # type: ignore[arg-type]


@every_attack
def test_values_beyond_the_box_by_rounding_are_taken_as_its_edge(attack: Attack) -> None:
    edge = GOOD.round()
    beyond = edge + (edge - 0.5) * 1e-6
    assert not torch.equal(beyond, edge)
    assert torch.equal(attack(linear, beyond, CLASSES), attack(linear, edge, CLASSES))


def donating(x: Tensor) -> Tensor:
    """What torch.compile makes of a network says this if a second gradient of one pass is wanted."""
    raise RuntimeError("This backward function was compiled with non-empty donated buffers")


BAD_MODELS = {
    "probabilities of one class": (lambda x: x.flatten(1)[:, :1], "2 classes"),
    "a feature map": (lambda x: x, "2, 4, 5); want float logits"),
    "a tuple": (lambda x: (linear(x),), "tuple"),
    "integers": (lambda x: linear(x).long(), "int64"),
    "one row missing": (lambda x: linear(x)[1:], "classes"),
    "NaN": (lambda x: linear(x) * torch.nan, "NaN"),
    "infinity": (lambda x: linear(x) + torch.inf, "infinity"),
    "fewer classes than labels": (lambda x: linear(x)[:, :2], "class 2"),
    "lazy weights": (nn.Sequential(nn.Flatten(), nn.LazyLinear(3)), "want a network that was called once"),
    "compiled for one gradient": (donating, "donated_buffer = False"),
    "weights of another type": (nn.Sequential(nn.Flatten(), nn.Linear(40, 3).double()), "want one type and device"),
    "kernels of another type": (nn.Sequential(nn.Conv2d(2, 3, 1).bfloat16(), nn.Flatten()), "weights of BFloat16"),
}


@every_attack
def test_a_network_made_in_inference_mode_is_attacked_without_a_gradient_or_refused(attack: Attack) -> None:
    with torch.inference_mode():
        network = Network()
    with suppress(InputError):
        attack(network, *batch())
        assert attack in (ATTACKS[0], SEARCH)
    assert network.head.weight.requires_grad


@needs_model
@pytest.mark.parametrize("case", BAD_MODELS)
def test_bad_model_output_is_refused(attack: Attack, case: str) -> None:
    model, message = BAD_MODELS[case]
    with pytest.raises(InputError) as error:
        attack(model, GOOD, torch.tensor([0, 2]))
    assert message in str(error.value)


BAD_PARAMETERS = [  # of budgets and steps: tests/test_numbers.py
    (FGSM, {"objective": "targeted"}),
    (FGSM, {"sign": "plus"}),
    (FGSM, {"clip": "no"}),
    (IFGSM, {"steps": 0}),
    (IFGSM, {"steps": 2.0}),
    (GaussianNoise, {"sigma": 0.1, "truncation": "fold"}),
    (LocSearchAdv, {"pixels_per_step": 0}),
    (LocSearchAdv, {"steps": True}),
    (LocSearchAdv, {"half_width": -1}),
    (LocSearchAdv, {"r": 2.5}),
    (LocSearchAdv, {"initial_fraction": 1.5}),
    (LocSearchAdv, {"probe": "pert"}),
    (LocSearchAdv, {"order": "best"}),
    (LocSearchAdv, {"pixels_per_step": 10, "max_probes": 9}),
    (LocSearchAdv, {"k": 0}),
]


@pytest.mark.parametrize(("kind", "parameters"), BAD_PARAMETERS)
def test_bad_hyper_parameter_is_refused_by_name(kind: type[Attack], parameters: dict[str, object]) -> None:
    *_, name = parameters
    with pytest.raises(InputError, match=f"{name}: got .*want"):
        kind(**parameters)


def test_unknown_choice_offers_the_known_ones() -> None:
    with pytest.raises(InputError, match="'least_likely' or 'untargeted'"):
        FGSM(objective="targeted")  # type: ignore[arg-type]
