"""The counts of a plan: what the experiments themselves do, counted while they do it."""

from collections import Counter
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from shconv.attacks import FGSM, PAPER, PGD, DeepFool, Substitute
from shconv.experiments import quasi_boundary, table1_gaussian, table2_gradient, table3_locsearch, table4_routes
from shconv.experiments.study import Counts
from shconv.planning import probe as probe_module
from shconv.planning.probe import NetworkCost, Probe, SharedCost, _kept
from shconv.planning.workload import Facts, Stage, Workload
from shconv.training import RECIPES, ModelConfig
from toys import colour_data, colour_networks

COUNTS = Counts(table1=60, table2=12, table3=16)
BATCH = 8


class Rows(nn.Module):
    """Counts the images that pass, the padding included."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.passed = inner, 0

    def forward(self, x: Tensor) -> Tensor:
        self.passed += len(x)
        logits: Tensor = self.inner(x)
        return logits


def workload(**changes: object) -> Workload:
    """A second for every image that passes a network, and nothing else."""
    routes = {"both": 1.0, "convolution": 1.0, "hypernetwork": 1.0, "strict": 2.0}
    cost = NetworkCost(1.0, 1.0, routes, weights=100, train_image=10, attack_image=10)
    shared = SharedCost(0.0, 0.0, {"lowest": (0.0, (5 * 128 + 3 * 16) / 16), "random": (0.0, 3 * 16 / 16)})
    about = {"seeds": 1, "batch_size": BATCH, "workers": 0} | changes
    costs = {"plain10": cost, "plain10_shc": cost}
    return Workload(Facts(100, 60, 3, 8, 8), RECIPES["short"], COUNTS, costs=costs, shared=shared, **about)


def test_rows_and_passes_of_a_plan_are_those_of_the_experiments(make_study):
    networks = tuple(Rows(network) for network in colour_networks())
    study = make_study(networks, data=colour_data(60), counts=COUNTS, batch_size=BATCH)
    stages = {stage.name: stage for stage in workload().tables()}
    experiments = {"Table 1": table1_gaussian, "Table 2": table2_gradient, "Table 4": table4_routes}
    for name, experiment in experiments.items():
        before = sum(network.passed for network in networks)
        rows = list(experiment.rows(study))
        images = {row["n"] for row in rows}
        assert images == {60 if name == "Table 1" else 12}
        assert stages[name].work.startswith(f"{len(rows)} rows of {images.pop()} images")
        passed = sum(network.passed for network in networks) - before
        assert stages[name].seconds == passed


def test_other_attacks_are_counted_by_what_they_say_they_cost_and_none_is_run_for_it(monkeypatch):
    others = (PGD(0.1, steps=3), DeepFool(steps=2), Substitute(seeds=5, rounds=2), FGSM())
    monkeypatch.setattr(Substitute, "run", None)
    (stage,) = [each for each in workload(others=others).tables() if each.name == "Table 2, other attacks"]
    assert stage.work == "8 rows of 12 images, at most"
    assert stage.seconds == 2 * (16 * (1 + 3 + 1 + 1) + 16 * (1 + 2 + 1) + 5 * 2**2 + 1 + 16 * (1 + 1))
    assert not any(each.name == "Table 2, other attacks" for each in workload().tables())


def test_searches_and_looks_of_a_plan_are_those_of_table_3(make_study):
    networks = tuple(Rows(network) for network in colour_networks())
    study = make_study(networks, data=colour_data(60), counts=COUNTS, batch_size=BATCH)
    list(table1_gaussian.rows(study))
    before = sum(network.passed for network in networks)
    rows = list(table3_locsearch.rows(study))
    passed = sum(network.passed for network in networks) - before
    # Two rounds of eight images: 6 probes each in one batch of 128, then some 60 in four; three looks in batches of 16,
    # at the clean images and after each round. The random search has the looks alone.
    stages = {stage.name: stage for stage in workload().tables()}
    assert stages["Table 3"].work.startswith(f"{len(rows)} rows of 16 images, 3 searches of 2 rounds")
    assert stages["Table 3"].seconds == passed
    before = sum(network.passed for network in networks)
    assert len(list(quasi_boundary.rows(study))) == 3
    assert stages["quasi boundary"].work == "3 rows of 16 images"
    assert stages["quasi boundary"].seconds == sum(network.passed for network in networks) - before


def test_training_passes_every_batch_of_every_epoch_and_the_test_images_after_each():
    first, second = workload(seeds=2).training(devices=4, micro_batches=2)
    assert (first.name, second.name) == ("train plain10", "train plain10_shc")
    assert first.seconds == 2 * 7 * (1 * 64 + 64)  # one batch of 64 of the 100 images; 60 test images in one batch
    assert first.memory == 3 * 100 + 8 * 10  # weights, gradients, momentum; 64 images over 8 shares
    assert first.seconds_on(4) == first.seconds / 4


@pytest.mark.parametrize(("devices", "share"), [(1, 1.0), (2, 0.6), (5, 0.2), (64, 0.2)])
def test_devices_share_whole_units(devices, share):
    assert Stage("", "", 10.0, 5, 0, 0).seconds_on(devices) == pytest.approx(10 * share)


def test_augmentation_goes_on_beside_training_where_there_are_workers():
    slow = SharedCost(8.0, 0.0, {"lowest": (0.0, 0.0), "random": (0.0, 0.0)})
    images = []
    for workers in (0, 2, 16):
        load = workload(workers=workers)
        load = Workload(**{**vars(load), "shared": slow})
        images.append((next(iter(load.training(1, 1))).seconds / 7 - 64) / 64)
    assert images == [9.0, 4.0, 1.0]


def test_a_probe_measures_every_part_and_counts_the_searches_rows():
    probe = Probe(torch.device("cpu"), 0.01, 1)
    config = ModelConfig("plain10_shc", 3, stem="small", width=2)
    least, cost = probe.network(config, RECIPES["short"], 16, 16, 4, ("both", "strict"))
    assert 0 < least.train <= cost.train
    assert 0 < least.forward <= cost.forward
    assert all(0 < least.gradient[route] <= usual for route, usual in cost.gradient.items())
    assert set(cost.gradient) == {"both", "strict"}
    assert cost.weights == sum(each.nbytes for each in config.build().state_dict().values())
    pixels = 4 * 2 * 16 * 16  # bytes of the first convolution's two channels
    assert cost.attack_image > pixels
    least_shared, shared = probe.shared(RECIPES["short"], 16, 16, table3_locsearch.searches(16))
    assert 0 < least_shared.augment <= shared.augment
    assert 0 < least_shared.noise <= shared.noise
    assert all(0 < least_shared.search_round[order][0] <= usual for order, (usual, _) in shared.search_round.items())
    # A look at 16 images a round for eight; and beside it at most 121 probes each in batches of 128.
    steps = table3_locsearch.searches(16)["locsearch"].steps
    assert shared.search_round["random"][1] == 2 * (steps + 1) / steps
    assert 16 + 2 <= shared.search_round["lowest"][1] <= (8 * 128 + 16) / 8 * (steps + 1) / steps
    assert probe.smaller


class Clock:
    """Work that takes as long as it says, on a clock that only it moves: a probe sees what a machine would show."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, took: Callable[[int, int], float], ours: float) -> None:
        self.now, self.took, self.calls = 0.0, took, Counter[int]()
        threads = torch.get_num_threads()
        monkeypatch.setattr(probe_module.time, "process_time", lambda: ours * threads * self.now)
        for name in ("monotonic", "perf_counter"):
            monkeypatch.setattr(probe_module.time, name, lambda: self.now)

    def __call__(self, images: int) -> None:
        self.calls[images] += 1
        self.now += self.took(images, self.calls[images])


def measured(
    monkeypatch: pytest.MonkeyPatch, took: Callable[[int, int], float], seconds: float, ours: float = 1.0
) -> tuple[float, float]:
    clock = Clock(monkeypatch, took, ours)
    probe = Probe(torch.device("cpu"), seconds, 1)
    probe.share = seconds
    return probe.seconds(clock, 64)


def test_the_first_run_of_each_size_does_not_count(monkeypatch):
    found = measured(monkeypatch, lambda n, call: 0.001 * n + (5.0 if call == 1 else 0.0), 60.0)
    assert found == pytest.approx((0.001, 0.001))


@pytest.mark.parametrize("seconds", [0.5, 1.0, 3.0])
def test_a_batch_that_stands_for_a_larger_one_is_not_taken_in_proportion(monkeypatch, seconds):
    found = measured(monkeypatch, lambda n, call: 0.05 + 0.01 * n, seconds)
    assert found == pytest.approx((0.01 + 0.05 / 64,) * 2)  # what 64 images really take


def test_what_other_programs_had_of_the_processor_is_no_part_of_the_lower_end(monkeypatch):
    assert measured(monkeypatch, lambda n, call: 0.001 * n, 60.0, ours=0.25) == pytest.approx((0.00025, 0.001))


def test_no_line_through_disturbed_sizes_makes_a_larger_batch_cost_next_to_nothing(monkeypatch):
    low, high = measured(monkeypatch, lambda n, call: 0.5 if n == 1 else 0.4, 1.0)
    assert low == high == pytest.approx(0.4 / 2 / 4)


def test_a_run_that_others_disturbed_widens_the_range_and_does_not_move_it(monkeypatch):
    low, high = measured(monkeypatch, lambda n, call: 0.001 * n * (40 if n == 64 and call == 3 else 1), 60.0)
    assert (low, high) == pytest.approx((0.001, 0.001))
    low, high = measured(monkeypatch, lambda n, call: 0.001 * n * (1 + call % 3), 60.0)
    assert (low, high) == pytest.approx((0.001, 0.002))


def test_what_autograd_keeps_grows_with_the_images_and_not_with_the_weights():
    layer = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU())
    kept = [_kept(lambda n=n: layer(torch.rand(n, 3, 8, 8))) for n in (1, 2, 4)]
    assert kept == [n * 64 * (3 + 4) * 4 for n in (1, 2, 4)]


def test_the_papers_attacks_are_all_planned():
    assert set(table2_gradient.ATTACKS) == {name for name in PAPER if name not in ("gaussian", "locsearch")}
