"""How a network meets an attack: the fixed batch shape, routes, judgement, selection, what is not computed twice."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import shconv
from shconv.attacks import FGSM, IFGSM, GaussianNoise, RandFGSM
from shconv.data import ImageData
from shconv.errors import InputError
from shconv.experiments.network import Network, routed, routes_of
from shconv.experiments.outcomes import Outcomes, judge, summary
from shconv.experiments.study import Counts, row_id
from shconv.metrics import rcd, relative_confidence
from shconv.routes import gradient_route
from toys import Colours, colour_networks

ALL = np.arange(21)
ATTACKS = [None, GaussianNoise(0.2), FGSM(), IFGSM(objective="untargeted"), RandFGSM()]


def images(data: ImageData) -> tuple[Tensor, Tensor]:
    return torch.stack([data.test[i][0] for i in range(len(data.test))]).float() / 255, data.test.labels


def same(a, b) -> bool:
    return all(np.array_equal(a.arrays()[name], b.arrays()[name]) for name in a.arrays())


class Counting(nn.Module):
    """Counts forward passes and the images in each."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.sizes = inner, []

    def forward(self, x: Tensor) -> Tensor:
        self.sizes.append(len(x))
        logits: Tensor = self.inner(x)
        return logits


# ---- measure


@pytest.mark.parametrize("attack", ATTACKS)
def test_outcomes_are_those_of_a_direct_attack_and_a_forward_pass(make_study, attack):
    study = make_study()
    x, y = images(study.data)
    for network in study.networks:
        outcomes = study.measure(study.question(network, attack, ALL))
        result = attack.run(network.model, x, y, seed=0) if attack else None
        adversarial = x if result is None else result.images
        logits = network.model(adversarial).detach().double()
        moved = (adversarial - x).flatten(1).double()
        assert outcomes.index.tolist() == ALL.tolist()
        assert outcomes.correct.tolist() == (logits.argmax(1) == y).tolist()
        np.testing.assert_allclose(outcomes.p_y, logits.softmax(1)[range(21), y], rtol=1e-4)
        np.testing.assert_allclose(outcomes.linf, moved.abs().amax(1), atol=1e-6)
        np.testing.assert_allclose(outcomes.l2, moved.norm(dim=1), atol=1e-5)
        assert outcomes.queries.tolist() == (result.queries if result else torch.zeros(21)).tolist()


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("build", ["toy", "plain10_shc"])
def test_an_images_outcome_depends_neither_on_its_neighbours_nor_on_their_number(make_study, attack, build):
    deep = shconv.create_model("plain10_shc", num_classes=3, stem="small", width=4).eval()
    study = make_study((colour_networks()[1] if build == "toy" else deep,))
    (network,) = study.networks
    together = study.measure(study.question(network, attack, ALL))
    for index in ([13], [20, 4, 13], list(range(20, 11, -1))):
        alone = study.measure(study.question(network, attack, np.array(index)))
        assert len(alone.index) == len(index)
        expected = together.at(np.array(index))
        # rc's exponentials, in float64, hang on the image's place in its batch in their last digits.
        np.testing.assert_allclose(alone.rc, expected.rc, rtol=1e-10)
        assert same(replace(alone, rc=expected.rc), expected)


def test_every_forward_pass_has_the_batch_shape(make_study):
    counting = Counting(Colours().eval())
    study = make_study((counting,), batch_size=5)
    (network,) = study.networks
    study.measure(study.question(network, RandFGSM(), ALL[:7]))
    study.logits(network, images(study.data)[0][:13], 5)
    assert set(counting.sizes) == {5}


@pytest.mark.parametrize("batch_size", [1, 3, 20, 21, 30])
def test_logits_are_those_of_a_plain_forward_pass_for_any_number_of_images(make_study, batch_size):
    study = make_study(batch_size=batch_size)
    x = images(study.data)[0]
    for network in study.networks:
        expected = network.model(x).detach()
        for n in (1, 2, 20, 21):
            torch.testing.assert_close(study.logits(network, x[:n], batch_size), expected[:n], atol=1e-4, rtol=1e-5)


def test_no_images_make_no_forward_pass_and_an_empty_outcome(make_study):
    counting = Counting(Colours().eval())
    study = make_study((counting,))
    outcomes = study.measure(study.question(next(study.networks), FGSM(), ALL[:0]))
    fields, arrays = summary(outcomes, study.measure(study.question(next(study.networks), None, ALL)))
    assert counting.sizes == [8, 8, 8]  # the clean images
    assert fields["n"] == 0
    assert fields["accuracy"] is None
    assert fields["interval"] == [0.0, 1.0]
    assert [fields[name] for name in ("rcd_mean", "rcd_median", "linf", "linf_max", "l2", "queries")] == [None] * 6
    assert all(len(values) == 0 for values in arrays.values())


# ---- routes


@pytest.mark.parametrize("route", ["both", "convolution", "hypernetwork", "strict"])
def test_an_attack_takes_the_gradient_of_its_route_and_the_whole_network_judges(make_study, route):
    study = make_study()
    _, shc = study.networks
    x, y = images(study.data)

    def gradient(of: str) -> Tensor:
        leaf = x.clone().requires_grad_()
        with gradient_route(shc.model, of):
            logits = shc.model(leaf)
        return torch.autograd.grad(F.cross_entropy(logits, logits.argmin(1), reduction="sum"), leaf)[0]

    g = gradient("both") - gradient("convolution") if route == "strict" else gradient(route)
    with routed(shc.model, route) as seen:
        adversarial = FGSM()(seen, x, y)
    sure = g.abs() > 1e-3 * g.abs().amax((1, 2, 3), keepdim=True)  # the others' signs hang on rounding
    assert sure.float().mean() > 0.9
    torch.testing.assert_close(adversarial[sure], (x - 0.02 * g.sign()).clamp(0, 1)[sure])
    outcomes = study.measure(study.question(shc, FGSM(), ALL, route))
    judged = judge(shc.model(adversarial).detach(), y)
    np.testing.assert_allclose(outcomes.p_y, judged["p_y"], rtol=1e-4)


def test_the_strict_route_is_the_gradient_of_both_less_that_of_the_convolution_route():
    model = colour_networks()[1].double()
    x = torch.rand(2, 3, 8, 8, dtype=torch.float64)

    def gradient(network: nn.Module) -> Tensor:
        leaf = x.clone().requires_grad_()
        return torch.autograd.grad(F.cross_entropy(network(leaf), torch.tensor([0, 2])), leaf)[0]

    both = gradient(model)
    with gradient_route(model, "convolution"):
        convolution = gradient(model)
    with gradient_route(model, "hypernetwork"):
        hypernetwork = gradient(model)
    with routed(model, "strict") as seen:
        strict = gradient(seen)
        torch.testing.assert_close(seen(x), model(x), rtol=0, atol=0)
    torch.testing.assert_close(strict, both - convolution, rtol=1e-10, atol=1e-14)
    assert not torch.allclose(strict, hypernetwork, rtol=1e-3)  # paths that mix the routes


def test_a_vanilla_network_has_one_route_only(make_study):
    vanilla, shc = make_study().networks
    assert (routes_of(vanilla), routes_of(shc)) == (("both",), ("both", "convolution", "hypernetwork"))
    with pytest.raises(InputError, match="no SHC layer"), routed(vanilla.model, "convolution"):
        pass


# ---- rows


def test_the_rcd_of_a_row_is_that_of_the_metric(make_study):
    study = make_study()
    x, y = images(study.data)
    index = np.array([3, 17, 8, 9])
    for network in study.networks:
        row = study.row("table2", network, "fgsm", FGSM(), index, "both")
        adversarial = FGSM()(network.model, x, y)
        expected = rcd(network.model(x).detach(), network.model(adversarial).detach(), y)[index].numpy()
        stored = study.folder.outcomes(row["id"])
        np.testing.assert_allclose(stored["rcd"], expected, atol=1e-3)
        assert row["rcd_mean"] == pytest.approx(expected.mean(), abs=1e-3)
        assert row["rcd_median"] == pytest.approx(np.median(expected), abs=1e-3)
        assert stored["index"].tolist() == index.tolist()
        assert row["accuracy"] == stored["correct"].mean()
        assert row["n"] == 4


def test_a_row_that_is_there_is_not_computed_again(make_study):
    first = make_study()
    rows = [first.row("table2", network, "fgsm", FGSM(), ALL, "both") for network in first.networks]
    twins = tuple(Counting(network) for network in colour_networks())
    for twin in twins:
        twin.state_dict = twin.inner.state_dict  # type: ignore[method-assign]
    second = make_study(twins)
    assert [second.row("table2", network, "fgsm", FGSM(), ALL, "both") for network in second.networks] == rows
    assert [twin.sizes for twin in twins] == [[], []]


def test_other_weights_under_the_same_name_are_refused(make_study):
    make_study()
    with pytest.raises(InputError, match=r"plain10_shc/seed0\.weights"):
        make_study((colour_networks()[0], colour_networks(scale=50)[1].requires_grad_(False).apply(_moved)))


def test_another_selection_for_the_same_network_is_refused(make_study):
    make_study()
    with pytest.raises(InputError, match=r"plain10_shc/seed0\.pair"):
        make_study(colour_networks()[1:])


def _moved(module: nn.Module) -> None:
    for parameter in module.parameters(recurse=False):
        parameter.data += 0.01


def test_the_digest_tells_networks_apart_and_the_same_one_not():
    a, b = colour_networks()
    digests = [Network("n", 0, model).digest for model in (a, colour_networks()[0], b, Colours().eval())]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


def test_networks_that_hold_more_than_plain_tensors_have_a_digest_too():
    class Packed(nn.Module):
        """As quantized modules store their weights."""

        def __init__(self, scale: float) -> None:
            super().__init__()
            self.scale = torch.full((3,), scale)

        def get_extra_state(self) -> tuple[Tensor, torch.dtype]:
            return self.scale, torch.qint8

    def sparse(scale: float) -> nn.Module:
        network = nn.Module()
        network.register_buffer("kept", torch.eye(3).mul(scale).to_sparse())
        return network

    for make in (Packed, sparse):
        digests = [Network("n", 0, make(scale)).digest for scale in (1.0, 1.0, 2.0)]
        assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize(
    ("arguments", "id"),
    [
        (("table1", "clean", None), "table1/m/seed3/clean"),
        (("table1", "gaussian", GaussianNoise(0.4)), "table1/m/seed3/gaussian/sigma0.4"),
        (("table2", "fgsm", FGSM(), "both"), "table2/m/seed3/fgsm/least_likely/both"),
        (("table3", "locsearch", None, None, 30), "table3/m/seed3/locsearch/step30"),
    ],
)
def test_ids_say_what_a_row_is_about(arguments, id):
    experiment, *rest = arguments
    assert row_id(experiment, Network("m", 3, nn.Identity()), *rest) == id


# ---- selection


@pytest.mark.parametrize("wanted", [1, 4, 1000])
@pytest.mark.parametrize("seed", [0, 7])
def test_selected_are_the_first_of_a_seeded_shuffle_that_both_know_with_confidence(make_study, wanted, seed):
    study = make_study(seed=seed)
    x, y = images(study.data)
    confident = torch.ones(21, dtype=torch.bool)
    for network in study.networks:
        p = network.model(x).detach().softmax(1)
        confident &= (p.argmax(1) == y) & (p[range(21), y] > 0.9)
    assert 4 < confident.sum() < 21
    order = [i for i in np.random.default_rng(seed).permutation(21) if confident[i]]
    index = study.selected(study.pairs[0], wanted)
    stored = json.loads((study.folder.path / f"selection/plain10+plain10_shc-seed0-{wanted}.json").read_text())
    assert index.tolist() == order[:wanted]
    expected = {"pair": ["plain10", "plain10_shc"], "seed": 0, "wanted": wanted}
    labels = [study.data.classes[label] for label in study.data.test.labels[index].tolist()]
    spread = {name: labels.count(name) for name in study.data.classes if name in labels}
    highest = stored.pop("highest_confidence")
    assert 0.9 < highest <= 1
    expected |= {"min_confidence": 0.9, "candidates": 21, "classes": spread}
    assert stored == expected | {"found": len(index), "index": index.tolist()}


def test_a_lower_limit_selects_more_images(make_study):
    few, more = (make_study(colour_networks(scale=0.4), counts=Counts(min_confidence=least)) for least in (0.9, 0.34))
    assert len(few.selected(few.pairs[0], 21)) < len(more.selected(more.pairs[0], 21))


def test_a_smaller_selection_is_the_beginning_of_a_larger_one(make_study):
    study = make_study()
    large = study.selected(study.pairs[0], 6)
    assert study.selected(study.pairs[0], 2).tolist() == large[:2].tolist()


def test_no_confident_image_selects_nothing(make_study):
    study = make_study(colour_networks(scale=0.1))
    assert study.selected(study.pairs[0], 5).tolist() == []


def test_fewer_images_for_table_1_are_drawn_from_all_classes(make_study):
    study = make_study(counts=Counts(table1=9))
    network = next(study.networks)
    index = study.clean(network).index
    assert len(set(index.tolist())) == 9
    assert sorted(index) == index.tolist()
    assert set(study.data.test.labels[index].tolist()) == {0, 1, 2}
    other = make_study(counts=Counts(table1=9), folder="other", seed=1)
    assert other.clean(next(other.networks)).index.tolist() != index.tolist()
    assert set(study.selected(study.pairs[0], 100)) <= set(index)


def test_table_1_takes_every_image_where_it_may(make_study):
    study = make_study(counts=Counts(table1=5000))
    assert study.clean(next(study.networks)).index.tolist() == ALL.tolist()


# ---- outcomes


def test_outcomes_of_some_images_come_in_the_order_asked_for(make_study):
    study = make_study()
    outcomes = study.measure(study.question(next(study.networks), FGSM(), np.array([5, 2, 19, 7])))
    chosen = outcomes.at(np.array([19, 5]))
    assert chosen.index.tolist() == [19, 5]
    assert chosen.p_y.tolist() == [outcomes.p_y[2], outcomes.p_y[0]]


def test_judgement_holds_the_formula_of_the_scores():
    logits = torch.tensor([[2.0, 1.0, -1.0], [0.0, 3.0, 3.5]], dtype=torch.float64)
    y = torch.tensor([0, 1])
    judged = judge(logits, y)
    p = logits.softmax(1).numpy()
    assert judged["correct"].tolist() == [True, False]
    np.testing.assert_allclose(judged["p_y"], [p[0, 0], p[1, 1]])
    expected = [math.log(p[0, 0] / np.std(p[0, [1, 2]])), math.log(p[1, 1] / np.std(p[1, [0, 2]]))]
    np.testing.assert_allclose(judged["rc"], expected)
    np.testing.assert_allclose(judged["rc"], relative_confidence(logits, y))


def test_floored_images_are_counted_from_either_side():
    logits = torch.tensor([[2.0, 1.0, 1.0], [2.0, 1.0, 0.0], [2.0, 1.0, 0.5]])
    y = torch.zeros(3, dtype=torch.int64)
    rest = {name: np.zeros(3) for name in ("linf", "l2", "queries")} | {"index": np.arange(3)}
    clean = Outcomes.of(judge(logits, y) | rest, 0)
    moved = Outcomes.of(judge(logits[[1, 0, 2]], y) | rest, 0)
    assert summary(moved, clean)[0]["rcd_floored"] == 2
