"""Figures: drawn from arrays and rows, not blank, and clear about what is damaged or was not run."""

import io
import itertools

import matplotlib.image
import numpy as np
import pytest
from matplotlib.axes import Axes

from shconv.errors import InputError
from shconv.report import load_run
from shconv.report.output.canvas import ROUTE_LOOKS, bars, canvas, on_axis
from shconv.report.paper.charts import falling
from shconv.report.paper.figures import draw, figure2, figure3, figure4


def drawn(run_folder):
    run_folder.add("table1", "resnet18", "clean", (1, 2))
    run_folder.add("table1", "resnet18_shc", "clean", (1, 2))
    return {figure.name: figure for figure in draw(load_run(run_folder.save()))}


def pixels(figure):
    return matplotlib.image.imread(io.BytesIO(figure.saved("png")))[..., :3]


def test_every_figure_is_there_and_none_is_blank(run_folder):
    run_folder.everything(n=20)
    figures = drawn(run_folder)
    with_arrays = {"figure2", "figure3_resnet18-seed0", "figure4_resnet18_shc-seed0", "routes", "training"}
    assert {name for name, figure in figures.items() if figure.figure} == with_arrays
    for name in with_arrays:
        image = pixels(figures[name])
        assert image.std() > 0.05, name
        assert min(image.shape[:2]) > 400, name


def test_what_is_not_there_is_named_and_has_no_picture(run_folder):
    figures = drawn(run_folder)
    assert {name: figure.figure for name, figure in figures.items()} == dict.fromkeys(
        ["figure2", "figure3_resnet18", "figure4_resnet18_shc", "routes", "training"]
    )
    assert figures["figure4_resnet18_shc"].title == "Figure 4. ResNet-18-SHC"


def arrays_of(run_folder, name):
    run_folder.figure_arrays()
    path = run_folder.folder / "arrays" / f"{name}.npz"
    with np.load(path) as file:
        return path, dict(file)


def test_figure3_frames_are_green_where_right_and_red_where_wrong(run_folder):
    path, arrays = arrays_of(run_folder, "figure3_resnet18-seed0")

    def shares():
        image = pixels(figure3(path))
        return [
            (np.abs(image - np.array(colour, np.float32) / 255).max(axis=-1) < 0.02).mean()
            for colour in ((0x1A, 0x7F, 0x37), (0xC6, 0x28, 0x28))
        ]

    mixed = shares()
    np.savez(path, **{**arrays, "correct": np.ones((2, 5), bool)})
    right = shares()
    assert right[1] < 1e-4 < mixed[1]
    assert right[0] > mixed[0]


def test_figure4_says_its_scales_and_survives_one_wild_pixel(run_folder):
    path, arrays = arrays_of(run_folder, "figure4_resnet18_shc-seed0")
    calm = pixels(figure4(path))
    arrays["both"][0, 0] = 1e3
    np.savez(path, **arrays)
    figure = figure4(path)
    assert "upper row shares one scale, the lower row does not" in figure.caption
    assert np.abs(pixels(figure) - calm).mean() < 0.05  # a scale up to the maximum would leave all white


def test_a_gradient_that_is_zero_everywhere_can_be_drawn(run_folder):
    zero = np.zeros((8, 8))
    run_folder.arrays("figure4_a-seed0", red=zero, both=zero, convolution=zero, hypernetwork=zero)
    assert figure4(run_folder.folder / "arrays" / "figure4_a-seed0.npz").figure


def test_a_class_name_is_no_formula(run_folder):
    run_folder.figure_arrays(label=r"$\frac{")
    assert r"$\frac{" in figure2(run_folder.folder / "arrays" / "figure2.npz").caption


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"sigma": np.zeros(3)}, "models of shape"),
        (
            {"sigma": np.zeros(3), "models": np.array(["a"]), "p_y": np.zeros((1, 4)), "rcd": np.zeros((1, 3))},
            r"p_y of shape \(J, K\)",
        ),
    ],
)
def test_damaged_arrays_are_named(run_folder, arrays, words):
    run_folder.arrays("figure2", **arrays)
    with pytest.raises(InputError, match=rf"figure2\.npz is damaged: it wants {words}"):
        drawn(run_folder)


def test_pickled_arrays_are_refused(run_folder):
    run_folder.arrays("figure2", sigma=np.array([print], dtype=object))
    with pytest.raises(InputError, match=r"figure2\.npz is damaged"):
        drawn(run_folder)


def test_route_bars_stand_at_the_accuracies(run_folder, monkeypatch):
    heights = []
    bar = Axes.bar

    def recorded(self, at, height, *rest, **options):
        heights.append(list(height))
        return bar(self, at, height, *rest, **options)

    monkeypatch.setattr(Axes, "bar", recorded)
    run_folder.gradient("resnet18", "rand_fgsm", "least_likely", (2, 100))
    for route, right in (("both", 28), ("convolution", 3), ("hypernetwork", 98)):
        run_folder.gradient("resnet18_shc", "rand_fgsm", "least_likely", (right, 100), route=route)
    assert drawn(run_folder)["routes"].figure
    assert [[round(height, 9) for height in bars] for bars in heights] == [[2], [28], [3], [98], [], [], [], []]


def test_accuracy_over_distance_is_drawn_where_an_attack_looked_for_the_nearest_image(run_folder):
    run_folder.gradient("resnet18", "fgsm", "untargeted", (3, 4))
    assert "distances" not in [figure.name for figure in draw(load_run(run_folder.save()))]
    row = run_folder.add("table2", "resnet18", "deepfool", [False, True, False, False], route="both", median_l2=0.3)
    path = run_folder.folder / "outcomes" / f"{row['id'].replace('/', '--')}.npz"
    np.savez(path, index=[3, 0, 1, 2], correct=[False, True, False, False], l2=[0.5, 0.0, 0.25, 0.125])
    run = load_run(run_folder.save())
    assert falling(run.outcomes[row["id"]]) == ([0, 0.125, 0.25, 0.5], [100, 75, 50, 25])
    (figure,) = [figure for figure in draw(run) if figure.name == "distances"]
    (line,) = figure.figure.axes[0].get_lines()
    assert line.get_xdata().tolist() == [0, 0.125, 0.25, 0.5]
    assert line.get_ydata().tolist() == [100, 75, 50, 25]
    assert figure.figure.axes[0].get_title() == "deepfool"


def test_a_legend_of_long_names_stays_inside_the_figure(run_folder):
    for place in range(8):
        run_folder.trained(f"resnet18_with_a_rather_long_name_of_somebodys_own_experiment_{place}", 0, [0.1, 0.5])
    figure = drawn(run_folder)["training"].figure
    figure.draw_without_rendering()
    box, axes = figure.legends[0].get_window_extent(), figure.axes[0].get_window_extent()
    assert 0 <= box.x0 < box.x1 <= figure.bbox.x1
    assert 0 <= box.y0 < box.y1 <= axes.y0
    assert axes.height > 0.3 * figure.bbox.height


@pytest.mark.parametrize("count", [3, 8, 12])
def test_names_of_many_networks_stand_beside_each_other(count):
    names = [f"resnet{place}_with_the_name_of_a_study_shc" for place in range(count)]
    with canvas(2.9 + on_axis(names, 34)[1]) as figure:
        panels = figure.subplots(1, 2)
        shares = dict.fromkeys(range(count), (0.5, (0.4, 0.6)))
        for axes in panels:
            bars(axes, names, {"both": (ROUTE_LOOKS["both"], shares)}, 34)
        figure.draw_without_rendering()
        boxes = [text.get_window_extent() for text in panels[0].get_xticklabels()]
    assert all(left.x1 <= right.x0 for left, right in itertools.pairwise(boxes))
    assert min(box.y0 for box in boxes) >= 0
    assert panels[0].get_window_extent().height > 100
