"""Tables 1 to 4 and the summaries: cells worked out by hand from known outcomes."""

import pytest

from shconv.intervals import wilson
from shconv.paired import Paired
from shconv.report import load_run, published, write
from shconv.report.numbers import NOT_RUN
from shconv.report.paper.extra_steps import extra_steps, published_extra_steps, steps_to_reach
from shconv.report.paper.results import search_rows
from shconv.report.paper.summaries import attacks, other_attacks, quasi_boundary, summaries, training
from shconv.report.paper.tables import OWN_ROUTES, WORST_CASE, table1, table2, table3, table4
from shconv.report.paper.twins import twins


def cell(table, model, group, label="", variant=None):
    """The one cell of a network under a column."""
    column = [place for place, column in enumerate(table.columns) if (column.group, column.label) == (group, label)]
    lines = [line for line in table.lines if line.model == model and variant in (None, line.variant)]
    assert len(column) == len(lines) == 1
    return lines[0].cells[column[0]]


def ours(cell):
    return cell.text("ours", "± seeds")


def test_table1_sets_the_papers_number_ours_and_their_difference_side_by_side(run_folder):
    run_folder.add("table1", "resnet18", "clean", (141, 200), wanted=50000)
    noise = {"sigma": 0.2, "epsilon": 0.1}
    run_folder.add("table1", "resnet18", "gaussian", (117, 200), rcd=1.5, parameters=noise, wanted=50000)
    table = table1(load_run(run_folder.save()))
    clean = cell(table, "resnet18", "clean")
    assert (clean.text("paper"), ours(clean), clean.text("difference")) == ("71.16", "70.50", "−0.66")
    assert clean.interval == pytest.approx(wilson(141, 200))
    assert clean.text("images") == "200 of 50,000"
    noisy = cell(table, "resnet18", "Gaussian", "σ 0.2")
    assert (noisy.text("paper"), ours(noisy)) == ("58.43 / 1.29", "58.50 / 1.50")
    assert noisy.text("difference") == "+0.07 / +0.21"


def test_every_cell_of_a_network_of_the_run_is_there_and_says_not_run_and_no_other_network_is(run_folder):
    run_folder.add("other", "resnet18", "clean", (1, 2))
    run_folder.add("other", "resnet18_shc", "clean", (1, 2))
    run = load_run(run_folder.save())
    assert table4(run).lines == ()
    for table, expected in ((table1(run), 2 * 4), (table2(run), 2 * 4), (table3(run), 2 * 5)):
        cells = [cell for line in table.lines for cell in line.cells]
        assert [line.model for line in table.lines] == ["resnet18", "resnet18_shc"]
        assert sum(cell.paper is not None for cell in cells) == expected
        own = {place for place, column in enumerate(table.columns) if column.group == OWN_ROUTES}
        for line in table.lines:  # a vanilla network has no route of its own
            blank = own if not line.model.endswith("_shc") else set()
            texts = [each.said["ours"][0] for each in line.cells]
            assert texts == ["–" if place in blank else NOT_RUN for place in range(len(texts))]


def test_the_papers_numbers_stand_where_the_paper_has_them():
    assert published.TABLE1["plain10"][0].accuracy == 60.74
    assert published.TABLE1["resnet50_shc"][3] == published.Published(61.02, 1.96)
    assert published.TABLE2["resnet18_shc"][3] == published.TABLE4["resnet18_shc", "both"]
    assert published.TABLE2["resnet18"][3] == published.TABLE4["resnet18", "both"]
    assert published.TABLE3["resnet18_shc"][1] == published.Published(88.9, 1.11)


def test_table2_takes_the_gradient_of_both_routes_and_the_paper_stands_by_least_likely(run_folder):
    run_folder.add("other", "resnet18", "clean", (1, 2))
    run_folder.gradient("resnet18_shc", "fgsm", "least_likely", (40, 100), rcd=7.0)
    run_folder.gradient("resnet18_shc", "fgsm", "least_likely", (2, 100), route="convolution")
    run_folder.gradient("resnet18_shc", "fgsm", "untargeted", (30, 100), rcd=8.0)
    table = table2(load_run(run_folder.save()))
    least, untargeted = (cell(table, "resnet18_shc", "FGSM", label) for label in ("least-likely", "untargeted"))
    assert (least.text("paper"), ours(least)) == ("44.34 / 7.53", "40.00 / 7.00")
    assert (untargeted.text("paper"), ours(untargeted)) == ("–", "30.00 / 8.00")
    assert [column.group for column in table.columns[-6:]] == [WORST_CASE] * 3 + [OWN_ROUTES] * 3
    same, own = (cell(table, "resnet18_shc", group, "L∞ 0.02") for group in (WORST_CASE, OWN_ROUTES))
    assert (ours(same), same.text("attacks")) == ("30.00", "2 of 4")
    assert (ours(own), own.text("attacks")) == ("2.00", "3 of 12")
    assert ours(cell(table, "resnet18", OWN_ROUTES, "L∞ 0.02")) == "–"


def test_several_seeds_are_a_mean_a_standard_deviation_and_the_hull_of_their_intervals(run_folder):
    for seed, right in enumerate((40, 50, 60)):
        run_folder.gradient("resnet18", "fgsm", "least_likely", (right, 100), seed=seed, rcd=float(seed))
    seeds = cell(table2(load_run(run_folder.save())), "resnet18", "FGSM", "least-likely")
    assert seeds.accuracy == pytest.approx(0.5)
    assert seeds.said["± seeds"] == ("±10.00", "±1.00")
    assert seeds.rcd == pytest.approx(1.0)
    assert seeds.interval == pytest.approx((wilson(40, 100)[0], wilson(60, 100)[1]))
    assert ours(seeds) == "50.00±10.00 / 1.00±1.00"
    assert seeds.text("images") == "3 × 100 of 5,000"


def test_median_and_floored_are_kept_apart_from_the_mean(run_folder):
    run_folder.gradient("resnet18", "fgsm", "least_likely", (1, 10), rcd=9.0, rcd_median=2.0, rcd_floored=3)
    found = cell(table2(load_run(run_folder.save())), "resnet18", "FGSM", "least-likely")
    assert (found.rcd, found.text("RCD median"), found.text("floored")) == (9.0, "2.00", "3")


@pytest.mark.parametrize(("data", "wanted"), [("demo", "asked for were 5,000"), ("imagenet", "the paper's are 5,000")])
def test_a_selection_that_found_too_few_images_is_said(run_folder, data, wanted):
    run_folder.gradient("resnet18", "fgsm", "least_likely", (1, 700), outcomes=False)
    run_folder.search("resnet18", [1, 1, 1, 1, 1], [0] * 5, n=500, outcomes=False)
    if data == "imagenet":
        run_folder.on_imagenet()
    folder = run_folder.save()
    (folder / "selection").mkdir()
    selection = '{"pair": ["resnet18", "resnet18_shc"], "seed": 0, "wanted": 5000, "found": 700, "index": []}'
    (folder / "selection" / "a.json").write_text(selection)
    run = load_run(folder)
    assert table2(run).notes[0].endswith(f"700 images have confidence > 0.9; {wanted}.")
    assert table3(run).notes == ()  # has all of its images


def test_table3_finds_the_fifths_of_any_number_of_rounds(run_folder):
    run_folder.search("resnet18", [0.9, 0.8, 0.7, 0.6, 0.5], [1, 2, 3, 4, 5], steps=(5, 10, 14, 19, 24))
    run_folder.search("resnet18", [1, 1, 1, 1, 1], [0] * 5, attack="locsearch_random", steps=(5, 10, 14, 19, 24))
    run_folder.on_imagenet()
    columns = table3(load_run(run_folder.save())).columns
    assert [column.label for column in columns][:2] == ["paper: 30 of 150", "paper: 60 of 150"]
    run_folder.data["name"] = "folder:own"
    run = load_run(run_folder.save())
    table = table3(run)
    headings = [(column.group, column.label) for column in table.columns]
    assert headings[:2] == [("step 5 of 24", ""), ("step 10 of 24", "")]  # no other data's steps
    default = next(line for line in table.lines if (line.model, line.variant) == ("resnet18", "LocSearchAdv"))
    assert [ours(each) for each in default.cells] == [
        *("90.00 / 1.00", "80.00 / 2.00", "70.00 / 3.00", "60.00 / 4.00", "50.00 / 5.00"),
    ]
    variants = [line.variant for line in table.lines if line.model == "resnet18"]
    assert variants == ["LocSearchAdv", "LocSearchAdv, cyclic probe", "control: random pixels"]
    cyclic = next(line for line in table.lines if line.variant == variants[1])
    assert {each.said["ours"][0] for each in cyclic.cells} == {NOT_RUN}


def test_fifths_without_a_known_number_of_rounds_are_of_the_last_step(run_folder):
    run_folder.search("resnet18", [1] * 5, [0] * 5, steps=(2, 4, 6, 8, 10))
    for row in run_folder.rows:
        row["parameters"] = {}
    found = search_rows(load_run(run_folder.save()), "resnet18", "locsearch")
    assert {fifth: rows[0].step for fifth, rows in found.items()} == {1: 2, 2: 4, 3: 6, 4: 8, 5: 10}


def test_table4_takes_its_own_rows_before_table2s_and_shows_strict_only_where_run(run_folder):
    run_folder.add("other", "resnet18", "clean", (1, 2))
    for route, right in (("both", 30), ("convolution", 3), ("hypernetwork", 98)):
        run_folder.gradient("resnet18_shc", "rand_fgsm", "least_likely", (right, 100), route=route)
    run_folder.gradient("resnet18_shc", "rand_fgsm", "least_likely", (5, 100), route="convolution", experiment="table4")
    table = table4(load_run(run_folder.save()))
    shown = {line.name: ours(line.cells[0]) for line in table.lines}
    assert shown == {
        "ResNet-18": NOT_RUN,
        "ResNet-18-SHC": "30.00",
        "ResNet-18-SHC-T": "98.00",
        "ResNet-18-SHC-W": "5.00",
    }
    assert table.lines[3].cells[0].text("paper") == "2.60 / 13.29"
    run_folder.gradient("resnet18_shc", "rand_fgsm", "untargeted", (50, 100), route="strict", experiment="table4")
    table = table4(load_run(run_folder.save()))
    assert table.lines[-1].variant == "hypernetwork route, strict"
    assert [each.said["ours"][0] for each in table.lines[-1].cells] == [NOT_RUN, "50.00"]


@pytest.mark.parametrize(("rcd", "step"), [(0.5, 5.0), (1.0, 10.0), (1.5, 15.0), (2.0, 20.0), (-1.0, 0.0), (2.5, None)])
def test_steps_are_interpolated_from_zero_and_never_beyond_the_curve(rcd, step):
    assert steps_to_reach(rcd, [(10, 1.0), (20, 2.0)]) == step


def test_extra_steps_of_the_paper_are_about_sixty():
    known = [more for model in ("plain10", "resnet18", "resnet50") for more in published_extra_steps(model)]
    reached = [more for more in known if more is not None]
    assert sum(reached) / len(reached) == pytest.approx(60, abs=10)
    # ResNet-18: RCD 1.49 at step 30, reached by SHC between 1.43 (90) and 1.66 (120)
    assert published_extra_steps("resnet18")[0] == pytest.approx(90 + 30 * 0.06 / 0.23 - 30)


def test_extra_steps_are_given_as_a_share_of_the_rounds(run_folder):
    steps = (5, 10, 15, 20, 25)
    run_folder.search("resnet18", [1] * 5, [2, 4, 6, 8, 10], steps=steps)
    run_folder.search("resnet18_shc", [1] * 5, [1, 2, 3, 4, 5], steps=steps)
    records = [record for record in extra_steps(load_run(run_folder.save())).records if record["pair"] == "ResNet-18"]
    assert [record["more_steps"] for record in records] == pytest.approx([5.0, 10.0, None, None, None])
    assert records[0]["more_share"] == pytest.approx(5 / 25)
    assert [record["status"] for record in records] == ["reached", "reached", *["not reached"] * 3]


def test_training_warns_more_than_three_points_below_the_twin(run_folder):
    for model, right in (("plain10", 90), ("plain10_shc", 87), ("resnet18", 90), ("resnet18_shc", 86)):
        run_folder.add("table1", model, "clean", (right, 100))
    run_folder.trained("resnet18", 0, [0.1, 0.2], parameters=123)
    records = {record["network"]: record for record in training(load_run(run_folder.save())).records}
    assert {name for name, record in records.items() if record["warning"]} == {"ResNet-18-SHC"}
    assert records["ResNet-18-SHC"]["warning"] == "4.0 points below its twin"
    assert records["ResNet-18"]["parameters"] == 123
    assert records["ResNet-18"]["clean_accuracy"] == 0.9  # Table 1's, not the log's
    assert (records["ResNet-18"]["images_per_second"], records["ResNet-18"]["seconds"]) == (900, 4.0)


def test_a_twin_is_subtracted_column_by_column_with_the_interval_of_the_seeds(run_folder):
    for seed, ours in enumerate((24, 25, 23)):
        run_folder.gradient("resnet18", "fgsm", "untargeted", (20, 100), seed=seed)
        run_folder.gradient("resnet18_shc", "fgsm", "untargeted", (ours, 100), seed=seed)
    run_folder.add("table1", "resnet18", "clean", (80, 100))  # of one network alone nothing is to be subtracted
    first, *worst = twins(load_run(run_folder.save())).records
    assert (first["network"], first["column"], first["seeds"]) == ("ResNet-18-SHC", "FGSM, untargeted", 3)
    assert (first["vanilla"], first["shc"], first["points"]) == pytest.approx((0.2, 0.24, 4.0))
    half = 4.302653 * 1.0 / 3**0.5  # Student's t of two degrees of freedom, a standard deviation of 1 point
    assert first["interval"] == pytest.approx((4 - half, 4 + half), abs=1e-5)
    assert [record["column"] for record in worst] == [
        f"worst case, L∞ {budget}" for budget in ("0.02", "0.0625", "0.1")
    ]


def test_of_one_seed_the_interval_is_that_of_the_images(run_folder):
    run_folder.add("table1", "resnet18", "clean", (70, 100))
    run_folder.add("table1", "resnet18_shc", "clean", (60, 100))
    (record,) = twins(load_run(run_folder.save())).records
    paired = Paired(60, 0, 10, 30)  # SHC beside its twin; the helper lets the first images be right
    assert record["points"] == pytest.approx(-10)
    assert record["interval"] == pytest.approx([100 * end for end in paired.interval])


def test_quasi_boundary_prints_the_fields_that_are_there(run_folder):
    run_folder.add("quasi_boundary", "resnet18_shc", "locsearch", [], step=30, agreement=0.9, map_distance=0.1)
    grid = quasi_boundary(load_run(run_folder.save()))
    keys = [column.key for column in grid.columns]
    assert "agreement" in keys
    assert "map_distance" in keys
    assert "image_distance" not in keys
    assert grid.shown()[0][-1] == "90.00"


def test_attacks_list_what_was_used_and_reached(run_folder):
    used = {"epsilon": 0.02, "step_size": 0.001, "steps": 5}
    for seed, reached in ((0, 0.004), (1, 0.005)):
        run_folder.gradient("resnet18", "ifgsm", "untargeted", (1, 2), seed=seed, parameters=used, linf_max=reached)
    run_folder.search("resnet18", [1] * 5, [0] * 5)
    records = {record["attack"]: record for record in attacks(load_run(run_folder.save())).records}
    assert records["I-FGSM"]["parameters"] == "epsilon 0.02, step_size 0.001, steps 5"
    assert records["I-FGSM"]["linf_max"] == 0.005
    assert records["I-FGSM"]["seconds"] == 1.0
    assert records["LocSearchAdv"]["rows"] == 5
    assert records["LocSearchAdv"]["seconds"] == 0.5  # five columns of one search are not five searches


def test_attacks_that_were_named_have_a_table_and_stand_first_on_the_page(run_folder, blank):
    for network in ("mine", "yours"):
        run_folder.add("table1", network, "clean", (9, 10))
        run_folder.add("evaluate", network, "pgd", (4, 10), objective="untargeted", route="both")
    folder = run_folder.save()
    (grid,) = [grid for grid in summaries(load_run(folder)) if grid.name == "own_attacks"]
    assert [(each["attack"], each["network"], each["accuracy"]) for each in grid.records] == [
        ("clean", "mine", 0.9),
        ("clean", "yours", 0.9),
        ("pgd, untargeted", "mine", 0.4),
        ("pgd, untargeted", "yours", 0.4),
    ]
    page = write(folder).read_text()
    assert page.index("<h1>Networks under attack</h1>") < page.index('id="own_attacks"') < page.index('id="words"')
    assert "ot run" not in page  # of the paper's tables, which nobody asked for


def test_other_attacks_on_table_2s_images_have_a_table_of_their_own(run_folder):
    run_folder.gradient("resnet18", "fgsm", "untargeted", (3, 10))
    assert "table2_others" not in [grid.name for grid in summaries(load_run(run_folder.save()))]
    distances = {"median_l2": 0.25, "median_linf": None}
    free, held = {"norm": "linf", "radius": None}, {"norm": "l2", "radius": 0.5}
    run_folder.add("table2", "resnet18", "deepfool", (0, 10), rcd=2.0, route="both", threat=free, **distances)
    run_folder.add("table2", "resnet18", "pgd_l2", (4, 10), rcd=1.0, route="both", threat=held)
    run = load_run(run_folder.save())
    first, second = other_attacks(run).records
    assert (first["attack"], first["budget"], first["accuracy"], first["median_l2"]) == ("deepfool", None, 0, 0.25)
    assert (second["attack"], second["budget"], second["accuracy"], second["median_l2"]) == (
        "pgd_l2",
        "L2 0.5",
        0.4,
        None,
    )
    assert "table2_others" in [grid.name for grid in summaries(run)]
