"""shconv plan: a table whose counts are those of the run it plans, for reproduce's options by their names."""

import math
from collections import Counter
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest

from shconv.report.folder.rows import read_rows
from toys import MINIATURE

QUICK = ["--probe-seconds", "0.01"]
LENGTHS = {"s": 1, "min": 60, "h": 3_600, "days": 86_400}


def parsed(out: str) -> dict[str, list[str]]:
    """The cells of each line by its stage; the head is checked."""
    head, rule, *lines = [line for line in out.splitlines() if line.startswith("|")]
    assert head.startswith("| Stage | Work | On one device | On ")
    assert set(rule) <= set("| :-")
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert {len(each) for each in cells} == {6}
    return {stage: rest for stage, *rest in cells}


def ends(cell: str) -> tuple[float, float]:
    """The seconds of a range, whose lower end may leave out the unit; of one number, twice that."""
    low, _, high = cell.rpartition(" to ")
    number, unit = high.split()
    least, own = f"{low or number} {unit}".split()[:2]
    return tuple(float(n.replace(",", "")) * LENGTHS[u] for n, u in ((least, own), (number, unit)))


def test_the_rows_of_a_plan_are_those_of_the_run(shconv, finished, pictures):
    ended = shconv("plan", "--data", f"folder:{pictures}", *MINIATURE, *QUICK, "--gpus", 2)
    assert ended.code == 0
    stages = parsed(ended.out)
    assert list(stages)[:2] == ["train plain10", "train plain10_shc"]
    assert stages["train plain10"][0] == "1 x 40 epochs of 1 batches of 64"
    rows, _ = read_rows(finished / "rows.jsonl")
    made = Counter(row.experiment for row in rows)
    searched = sum(row.step is not None for row in rows)  # their quasi decision boundary included
    expected = {
        "Table 1": made["table1"],
        "Table 2": made["table2"],
        "Table 3": searched,
        "Table 4": made["table4"],
        "quasi boundary": made["table3"] + made["quasi_boundary"] - searched,
    }
    images = {"Table 1": 18, "Table 2": 8, "Table 4": 8}  # all there are, and as many as MINIATURE asks for
    for stage, count in expected.items():
        assert stages[stage][0].startswith(f"{count} rows of {images.get(stage, 2)} images"), stage


def test_networks_for_grey_images_are_planned_with_one_channel(shconv):
    sizes = []
    for grey in ([], ["--grey"]):
        ended = shconv("plan", "--data", "cifar10", "--models", "plain10", "--width", 2, *QUICK, *grey)
        assert ended.code == 0, ended.err
        sizes.append(float(parsed(ended.out)["train plain10"][-1].removesuffix(" kB")))
    fewer = 2 * 4 * 2 * 2 * 3 * 3 / 1000  # kB: two of three channels of 2 kernels of 3 x 3, in float32, in two files
    assert sizes[0] - sizes[1] == pytest.approx(fewer, abs=0.11)


def test_times_add_up_and_are_divided_among_the_devices(shconv):
    ended = shconv("plan", "--data", "cifar10", "--width", 2, "--models", "plain10", *QUICK, "--gpus", 4)
    stages = parsed(ended.out)
    total = stages.pop("all")
    for column, end in product((1, 2), (0, 1)):
        whole = sum(ends(each[column])[end] for each in stages.values())
        assert ends(total[column])[end] == pytest.approx(whole, rel=0.05)
    assert all(least <= most for each in stages.values() for least, most in map(ends, each[1:3]))

    def check_share(stage: str, part: float) -> None:
        for one, many in zip(ends(stages[stage][1]), ends(stages[stage][2]), strict=True):
            assert many == pytest.approx(one * part, rel=0.05, abs=0.1), stage

    check_share("train plain10_shc", 1 / 4)
    # 2,000 images in batches of 128 are 16 units; 250 are two, which keep two devices busy; one image keeps one.
    share = {"Table 1": 4 / 16, "Table 2": 1 / 2, "Table 4": 1 / 2, "Table 3": 1, "Figures 2 to 4": 1}
    for stage, part in share.items():
        check_share(stage, part)
    assert "Measured on: " in ended.out
    assert "Assumed: " in ended.out
    assert "other programs kept" in ended.out


def test_the_papers_preset_needs_no_data_and_has_its_counts(shconv, monkeypatch):
    from shconv.planning.probe import NetworkCost, Probe, SharedCost

    routes = dict.fromkeys(("both", "convolution", "hypernetwork", "strict"), 1e-3)
    cost = NetworkCost(1e-3, 1e-3, routes, weights=10**8, train_image=10**8, attack_image=10**7)
    monkeypatch.setattr(Probe, "network", lambda *_: (cost, replace(cost, train=2e-3)))
    shared = SharedCost(1e-3, 0.0, {"lowest": (0.0, 129.0), "random": (0.0, 1.0)})
    monkeypatch.setattr(Probe, "shared", lambda *_: (shared, shared))
    stages = parsed(shconv("plan", "--preset", "paper", "--gpus", 8).out)
    assert [name for name in stages if name.startswith("train")] == [
        f"train {name}{ending}" for name in ("plain10", "resnet18", "resnet50") for ending in ("", "_shc")
    ]
    assert stages["train resnet50"][0] == "1 x 90 epochs of 5,004 batches of 256"
    epoch = 5_004 * 256 + math.ceil(50_000 / 256) * 256
    trained, tested = 5_004 * 256, epoch - 5_004 * 256
    expected = (90 * epoch * 1e-3, 90 * (2e-3 * trained + 1e-3 * tested))
    assert ends(stages["train resnet50"][1]) == pytest.approx(expected, rel=0.01)
    assert stages["train resnet50"][3] == "3.5 GB"  # 32 images a device, and three times the weights
    assert stages["Table 1"][0] == "24 rows of 50,000 images"
    assert stages["Table 2"][0] == "96 rows of 5,000 images"
    assert stages["Table 3"][0].startswith("135 rows of 500 images, 3 searches of 150 rounds")


def test_a_run_folders_options_can_be_planned(shconv, finished, pictures):
    ended = shconv("plan", "--config", finished / "config.toml", "--data", f"folder:{pictures}", *QUICK)
    assert ended.code == 0, ended.err
    assert parsed(ended.out)["train plain10"][0] == "1 x 40 epochs of 1 batches of 64"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--gpus", 0], "gpus must be at least 1, got 0"),
        (["--probe-seconds", 0], "probe_seconds must be a number above 0"),
        (["--models", "resnet19"], "unknown vanilla network 'resnet19'"),
        (["--data", "folder:nowhere"], "nowhere"),
    ],
)
def test_what_cannot_be_planned_is_refused(shconv, options, message):
    assert message in shconv("plan", *options).message
    assert list(Path.cwd().iterdir()) == []
