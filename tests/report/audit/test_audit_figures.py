"""Figures of an audit: drawn from its arrays, not blank, and clear about what was not tried, not run or is damaged."""

import io

import matplotlib.image
import numpy as np
import pytest
from made_audit import add_audit, audit_arrays
from matplotlib.axes import Axes

from shconv.errors import InputError
from shconv.report import load_run
from shconv.report.audit.figures import draw_audit, draw_comparison


def drawn(run_folder, place=0):
    run = load_run(run_folder.save())
    return {figure.name: figure for figure in draw_audit(run, run.audits[place])}


def pixels(figure):
    return matplotlib.image.imread(io.BytesIO(figure.saved("png")))[..., :3]


def rewrite(run_folder, kind, **changes):
    """Change arrays of the one audit; None takes one out."""
    path = run_folder.folder / "arrays" / f"audit-resnet18_shc-seed0-{kind}.npz"
    with np.load(path) as file:
        arrays = {**file, **changes}
    np.savez(path, **{key: value for key, value in arrays.items() if value is not None})


def test_every_figure_is_there_and_none_is_blank(run_folder):
    add_audit(run_folder)
    figures = drawn(run_folder)
    kinds = ("budget", "routes", "surface", "gradients")
    assert list(figures) == [f"audit-resnet18_shc-seed0-{kind}" for kind in kinds]
    for name, figure in figures.items():
        image = pixels(figure)
        assert image.std() > 0.05, name
        assert min(image.shape[:2]) > 350, name


def test_what_was_not_run_is_named_and_has_no_picture(run_folder):
    add_audit(run_folder, "resnet18", finished=False)
    absent = [figure.title for figure in drawn(run_folder).values() if figure.figure is None]
    assert absent == ["Gradient routes: ResNet-18, seed 0", "Loss surface: ResNet-18, seed 0"]


def test_an_array_file_is_looked_for_in_the_runs_own_folder_only(run_folder, tmp_path):
    add_audit(run_folder)
    outside = tmp_path / "outside-budget.npz"
    np.savez(outside, epsilon=np.zeros(2), accuracy=np.zeros(2), chance=0.1)
    for row in run_folder.rows:
        if row.get("array"):
            row["array"] = f"../../{outside.name}"
    assert {figure.figure for figure in drawn(run_folder).values()} == {None}


def test_bars_stand_at_the_accuracies_and_a_route_that_met_no_image_has_none(run_folder, monkeypatch):
    widths, words = [], []
    barh, text = Axes.barh, Axes.text

    def recorded_bar(self, at, width, *rest, **options):
        widths.append(round(float(width), 9))
        return barh(self, at, width, *rest, **options)

    def recorded_text(self, x, y, said, **options):
        words.append(said)
        return text(self, x, y, said, **options)

    monkeypatch.setattr(Axes, "barh", recorded_bar)
    monkeypatch.setattr(Axes, "text", recorded_text)
    add_audit(run_folder)
    rewrite(
        run_folder,
        "routes",
        names=np.array(["both", "frozen", "mixture:0.3"]),
        accuracy=np.array([0.38, 0.0, 0.07]),
        low=np.array([0.3, 0.0, 0.04]),
        high=np.array([0.45, 1.0, 0.11]),
    )
    drawn(run_folder)
    assert widths == [38.0, 7.0]
    assert [said for said in words if said in ("38.0", "0.0", "7.0", "no image tried")] == [
        *("38.0", "no image tried", "7.0"),
    ]


def test_a_surface_without_a_twin_goes_along_random_signs(run_folder):
    add_audit(run_folder)
    with_twin = drawn(run_folder)["audit-resnet18_shc-seed0-surface"]
    rewrite(run_folder, "surface", twin_loss=None)
    alone = drawn(run_folder)["audit-resnet18_shc-seed0-surface"]
    assert "along the twin's gradient" in with_twin.caption
    assert "along random signs" in alone.caption
    assert alone.figure.get_figheight() < with_twin.figure.get_figheight()


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.filterwarnings("error")
def test_a_loss_that_overflows_can_be_drawn(run_folder, value):
    add_audit(run_folder)
    audit_arrays(run_folder)
    for part in (np.s_[:5], np.s_[:]):
        loss = np.ones((19, 17)) + np.arange(17)
        loss[part] = value
        rewrite(run_folder, "surface", loss=loss, twin_loss=None)
        assert drawn(run_folder)["audit-resnet18_shc-seed0-surface"].figure


def test_the_gradient_of_a_network_without_routes_is_one_map_and_grey_images_are_shown(run_folder):
    add_audit(run_folder)
    both = drawn(run_folder)["audit-resnet18_shc-seed0-gradients"]
    rewrite(run_folder, "gradients", convolution=None, hypernetwork=None, image=np.full((1, 32, 32), 0.5))
    alone = drawn(run_folder)["audit-resnet18_shc-seed0-gradients"]
    assert "Norm of the hypernetwork route" in both.caption
    assert "hypernetwork" not in alone.caption
    assert "upper row" not in alone.caption
    assert pixels(alone).shape[0] < pixels(both).shape[0]


@pytest.mark.parametrize(
    ("kind", "changes", "words"),
    [
        ("budget", {"accuracy": np.zeros(3)}, r"accuracy of shape \(E\)"),
        ("budget", {"chance": None}, "chance of shape"),
        ("routes", {"high": np.zeros(1)}, r"high of shape \(R\)"),
        ("surface", {"loss": np.zeros((2, 2))}, r"loss of shape \(A, B\)"),
        ("gradients", {"image": np.zeros((3, 4, 4))}, r"both of shape \(H, W\)"),
    ],
)
def test_damaged_arrays_are_named(run_folder, kind, changes, words):
    add_audit(run_folder)
    rewrite(run_folder, kind, **changes)
    with pytest.raises(InputError, match=rf"audit-resnet18_shc-seed0-{kind}\.npz is damaged: it wants {words}"):
        drawn(run_folder)


def test_networks_are_drawn_side_by_side_where_two_have_a_verdict(run_folder):
    add_audit(run_folder)
    add_audit(run_folder, "plain10", finished=False)
    assert draw_comparison(load_run(run_folder.save()).audits).figure is None
    add_audit(run_folder, "resnet18", masked=False)
    add_audit(run_folder, "x" * 200, masked=False)
    figure = draw_comparison(load_run(run_folder.save()).audits)
    assert pixels(figure).std() > 0.05
    assert min(label.get_window_extent().x0 for label in figure.figure.axes[0].get_yticklabels()) >= 0


def test_a_worst_case_that_leaves_images_untried_is_not_drawn(run_folder, monkeypatch):
    drawn_as = []
    errorbar = Axes.errorbar

    def recorded(self, *rest, **options):
        drawn_as.append(options.get("label"))
        return errorbar(self, *rest, **options)

    monkeypatch.setattr(Axes, "errorbar", recorded)
    add_audit(run_folder)
    add_audit(run_folder, "resnet18")
    draw_comparison(load_run(run_folder.save()).audits)
    assert drawn_as == [
        *("clean", "worst case, L∞ 8/255", "worst case, L∞ 8/255, confident images", "worst case, L2 0.5"),
    ]
