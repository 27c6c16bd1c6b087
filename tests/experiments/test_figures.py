"""Figures 2 to 4: the arrays that the report draws, computed again from the networks."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import shconv
from shconv.attacks import GaussianNoise
from shconv.experiments import figure2_noise, figure3_traces, figure4_gradients, table3_locsearch
from shconv.experiments.network import Network, Pair
from shconv.experiments.study import Counts, Study
from shconv.metrics import rcd
from shconv.report.paper import figures
from shconv.routes import record_filter_maps
from toys import CLASSES, Colours, colour_data, colour_networks

COUNTS = Counts(table3=3)
SIDE = 8


@pytest.fixture
def study(make_study):
    return make_study(counts=COUNTS)


def load(study: Study, name: str) -> dict[str, np.ndarray]:
    with np.load(study.folder.path / "arrays" / f"{name}.npz", allow_pickle=False) as arrays:
        return dict(arrays)


def first_image(study: Study) -> tuple[torch.Tensor, torch.Tensor, int]:
    place = int(study.selected(study.pairs[0], 3)[0])
    image, label = study.data.test[place]
    return image[None].float() / 255, torch.tensor([label]), place


def test_figure_2_is_one_image_under_growing_noise(study):
    figure2_noise.save(study)
    arrays = load(study, "figure2")
    x, y, place = first_image(study)
    assert arrays["sigma"].tolist() == [0, 0.05, 0.1, 0.15, 0.2, 0.25]
    assert arrays["models"].tolist() == ["plain10", "plain10_shc"]
    assert str(arrays["label"]) == CLASSES[int(y)]
    assert arrays["images"].shape == (6, 3, SIDE, SIDE)
    np.testing.assert_allclose(arrays["images"][0], x[0], atol=1e-7)
    for j, network in enumerate(study.networks):
        clean = network.model(x).detach()
        for k, sigma in enumerate(arrays["sigma"]):
            noisy = GaussianNoise(float(sigma))(network.model, x, y, index=[place], seed=0)
            np.testing.assert_allclose(arrays["images"][k], noisy[0], atol=1e-7)
            logits = network.model(noisy).detach()
            assert arrays["p_y"][j, k] == pytest.approx(float(logits.softmax(1)[0, y]), rel=1e-4)
            assert arrays["rcd"][j, k] == pytest.approx(float(rcd(clean, logits, y)), abs=1e-3)
        assert arrays["rcd"][j, 0] == 0


def test_figure_3_is_the_search_on_one_image_of_the_pair(study):
    figure3_traces.save(study)
    arrays = load(study, "figure3_plain10-seed0")
    x, y, place = first_image(study)
    attack = table3_locsearch.searches(SIDE)["locsearch"]
    marks, rounds = (1, 2), attack.steps
    assert arrays["marks"].tolist() == list(marks)
    assert arrays["models"].tolist() == ["plain10", "plain10_shc"]
    assert arrays["images"].shape == (2, 2, 3, SIDE, SIDE)
    assert arrays["maps"].shape == (2, 3, 3)
    for j, network in enumerate(study.networks):
        result = attack.run(network.model, x, y, index=[place], seed=0, trace_steps=(0, *marks))
        clean = network.model(x).detach()
        assert arrays["p_y"][j].shape == arrays["rcd"][j].shape == (rounds + 1,)
        for k, mark in enumerate(marks):
            image = result.trace.images[mark]
            np.testing.assert_allclose(arrays["images"][j, k], image[0], atol=1e-6)
            logits = network.model(image).detach()
            assert arrays["p_y"][j, mark] == pytest.approx(float(logits.softmax(1)[0, y]), rel=1e-4)
            assert arrays["rcd"][j, mark] == pytest.approx(float(rcd(clean, logits, y)), abs=1e-3)
            assert arrays["correct"][j, k] == bool(logits.argmax() == y)
    shc = study.pairs[0].members[1].model
    with record_filter_maps(shc) as maps:
        shc(torch.from_numpy(arrays["images"][1]))
    np.testing.assert_allclose(arrays["maps"], maps["second"], rtol=1e-5)


def test_figures_are_about_the_image_that_the_search_of_table_3_moves_most(study):
    pair = study.pairs[0]
    list(table3_locsearch.rows(study))
    index = study.selected(pair, 3)
    falls = []
    for network in pair.members:
        after = study.folder.outcomes(f"table3/{network.key}/locsearch/step2")["p_y"]
        before = study.measure(study.question(network, None, index)).p_y
        falls.append(before - after)
    wanted = index[np.maximum(*falls).argmax()]
    assert table3_locsearch.most_moved(study, pair).tolist() == [wanted]
    assert wanted != index[0]  # else this could not fail
    figure2_noise.save(study)
    image, _ = study.data.test[int(wanted)]
    np.testing.assert_allclose(load(study, "figure2")["images"][0], image.float() / 255, atol=1e-7)


def test_strict_gradients_are_those_of_both_routes_without_the_convolutions(study):
    figure4_gradients.save(study)
    arrays = load(study, "figure4_plain10_shc-seed0")
    np.testing.assert_allclose(arrays["strict"], arrays["both"] - arrays["convolution"], rtol=1e-3, atol=1e-5)


def test_figure_4_is_the_red_gradient_of_every_route(study):
    figure4_gradients.save(study)
    arrays = load(study, "figure4_plain10_shc-seed0")
    x, y, _ = first_image(study)
    shc = study.pairs[0].members[1].model
    np.testing.assert_allclose(arrays["red"], x[0, 0], atol=1e-7)
    assert str(arrays["label"]) == CLASSES[int(y)]
    assert str(arrays["objective"]) == "least_likely"
    for route in ("both", "convolution", "hypernetwork"):
        leaf = x.clone().requires_grad_()
        with shconv.gradient_route(shc, route):
            logits = shc(leaf)
        J = F.cross_entropy(logits, logits.argmin(1))
        expected = torch.autograd.grad(J, leaf)[0][0, 0]
        np.testing.assert_allclose(arrays[route], expected, rtol=1e-3, atol=1e-6)
        assert np.abs(arrays[route]).max() > 0


def test_the_routes_of_figure_4_add_up_for_a_network_with_one_layer(make_study):
    torch.manual_seed(1)
    shc = shconv.to_shc(Colours(), where=lambda name, _: name == "first").eval()
    torch.nn.init.uniform_(shc.first.hyper.hidden.weight, 0, 1)
    torch.nn.init.normal_(shc.first.hyper.output.weight, std=0.5)
    study = make_study((shc,), counts=COUNTS)
    figure4_gradients.save(study)
    arrays = load(study, "figure4_plain10_shc-seed0")
    np.testing.assert_allclose(arrays["convolution"] + arrays["hypernetwork"], arrays["both"], rtol=1e-4, atol=1e-5)


def test_figure_4_of_a_network_without_a_gradient_is_zero(make_study):
    _, shc = colour_networks()
    shc.forward = torch.no_grad()(shc.forward)
    study = make_study((shc,), counts=COUNTS)
    figure4_gradients.save(study)
    arrays = load(study, "figure4_plain10_shc-seed0")
    assert arrays["red"].any()
    assert not any(arrays[route].any() for route in ("both", "convolution", "strict"))
    assert figures.figure4(study.folder.path / "arrays" / "figure4_plain10_shc-seed0.npz").figure is not None


def test_every_file_has_the_arrays_that_the_report_draws(study):
    for each in (figure2_noise, figure3_traces, figure4_gradients):
        each.save(study)
    folder = study.folder.path / "arrays"
    draw = {"figure2": figures.figure2, "figure3": figures.figure3, "figure4": figures.figure4}
    files = sorted(path.stem for path in folder.iterdir())
    assert files == ["figure2", "figure3_plain10-seed0", "figure4_plain10_shc-seed0"]
    for name in files:
        assert draw[name.partition("_")[0]](folder / f"{name}.npz").figure is not None


def test_figures_that_are_there_are_not_computed_again(study, monkeypatch):
    for each in (figure2_noise, figure3_traces, figure4_gradients):
        each.save(study)
    monkeypatch.setattr(type(study.folder), "save_arrays", None)
    for each in (figure2_noise, figure3_traces, figure4_gradients):
        each.save(study)


def test_figure_2_is_made_again_when_networks_have_joined(study):
    figure2_noise.save(study)
    vanilla, shc = colour_networks()
    more = Pair((Network("resnet18", 0, vanilla), Network("resnet18_shc", 0, shc)))
    other = Pair((Network("plain10", 1, vanilla), Network("plain10_shc", 1, shc)))
    pairs = (*study.pairs, more, other)
    figure2_noise.save(Study(study.folder, study.data, pairs, COUNTS, 8, study.device, study.progress))
    assert load(study, "figure2")["models"].tolist() == ["plain10", "plain10_shc", "resnet18", "resnet18_shc"]


def test_a_network_alone_has_no_figure_3(make_study):
    study = make_study(colour_networks()[1:], counts=COUNTS)
    figure3_traces.save(study)
    assert not (study.folder.path / "arrays").exists()


@pytest.mark.parametrize("batch_size", [1, 4])
def test_a_batch_smaller_than_the_marks_will_do(make_study, batch_size):
    study = make_study(counts=COUNTS, batch_size=batch_size, data=colour_data(12, side=16))
    figure3_traces.save(study)
    arrays = load(study, "figure3_plain10-seed0")
    assert arrays["marks"].tolist() == [1, 2, 4, 5, 6]
    assert arrays["correct"].shape == (2, 5)
