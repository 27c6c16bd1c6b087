"""Budgets in words, counts that shrink with them, and a plan that fits."""

import json
import math
import re
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from core_toys import EPS, Brightest, ToyCheck, attacking, colour_images
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from shconv import audit
from shconv.attacks import FGSM, IFGSM, GaussianNoise, LocSearchAdv, RandFGSM
from shconv.attacks.base import Attack
from shconv.attacks.cost import Cost
from shconv.audit.check import Check
from shconv.audit.clock import minutes
from shconv.audit.plan import HEADLINE, Plan, make_plan
from shconv.audit.probe import Pace, Probe, measure
from shconv.audit.setting import FULL, Effort, budget_seconds, usual_eps_l2
from shconv.audit.subject import Subject
from shconv.errors import InputError

PROBE = Probe(forward=0.001, backward=0.002)


def network(name: str = "model") -> Any:
    """As much of an audit as a plan looks at: it puts an effort into it, and checks read that."""
    found = SimpleNamespace(
        subject=SimpleNamespace(key=f"{name}/seed0"), probe=PROBE, effort=None, slower=1.0, blind=False
    )
    found.take = lambda effort: setattr(found, "effort", effort)
    return found


class Costly(ToyCheck):
    """So many backward passes for each of its restarts."""

    def cost(self, audit: Any) -> Cost:
        return self.passes.times(audit.effort.restarts)


def test_costs_add_and_multiply() -> None:
    assert Cost(1, 2) + Cost(3, 4) == Cost(4, 6)
    assert Cost(1, 2).times(3) == Cost(3, 6)
    assert PROBE.seconds(Cost(1000, 500)) == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("budget", "seconds"), [("90s", 90), ("5m", 300), ("1h", 3600), ("0.5m", 30), ("full", math.inf)]
)
def test_budgets_are_times(budget: str, seconds: float) -> None:
    assert budget_seconds(budget) == seconds


@pytest.mark.parametrize("budget", ["", "5", "m", "-5m", "5 m", "0s", "5d", "FULL", 300])
def test_other_budgets_are_refused(budget: Any) -> None:
    with pytest.raises(InputError, match="budget: got"):
        budget_seconds(budget)


def test_the_l2_radius_grows_with_eps_and_the_root_of_the_values() -> None:
    assert usual_eps_l2(8 / 255, 3072) == pytest.approx(0.5)
    assert usual_eps_l2(4 / 255, 3072) == pytest.approx(0.25)
    assert usual_eps_l2(8 / 255, 4 * 3072) == pytest.approx(1.0)


@given(st.floats(0.001, 1), st.floats(0.001, 1))
def test_a_smaller_share_never_gives_a_larger_count(a: float, b: float) -> None:
    small, large = (dict(vars(FULL.scaled(share))) for share in sorted((a, b)))
    assert large.pop("patience") <= small.pop("patience")  # 0, all images, of the whole share alone
    for name, count in small.items():
        if isinstance(count, int):
            assert 0 <= count <= large[name] <= getattr(FULL, name)
        elif isinstance(count, tuple):
            assert max(count) <= max(large[name])
            assert 1 <= len(count) <= len(large[name])


def test_the_whole_share_is_all_of_it() -> None:
    assert FULL.scaled(1.0) == FULL
    assert all(
        vars(FULL.scaled(1e-9))[field.name] != 0
        for field in fields(Effort)
        if field.name not in ("standard_images", "patience", "share")
    )


def test_the_plan_takes_the_largest_counts_that_fit() -> None:
    checks = [Costly(2, "strength", passes=Cost(0, 1000))]  # 1.6 s a restart
    efforts = {budget: make_plan([network()], checks, budget).effort.restarts for budget in (2.0, 12.0, 14.0, 1000.0)}
    assert efforts == {2.0: 1, 12.0: 1, 14.0: 2, 1000.0: FULL.restarts}


@given(st.floats(0.01, 200), st.lists(st.floats(0, 30000), min_size=1, max_size=6))
def test_a_plan_fits_its_budget(budget: float, passes: list[float]) -> None:
    checks = [Costly(number, f"c{number}", passes=Cost(0, n)) for number, n in enumerate(passes, 1)]
    plan = make_plan([network(), network("twin")], checks, budget)
    assert sum(each.granted for each in plan.checks) <= budget * (1 + 1e-9)
    assert all(
        each.granted == each.seconds for each in plan.checks if each.number not in HEADLINE and not each.left_out
    )
    left = [each for each in plan.checks if each.left_out]
    assert not any(each.number in HEADLINE for each in left)
    if left or plan.seconds > budget:
        assert plan.effort.restarts == 1
        assert all("left out for lack of time: needs about" in each.left_out for each in left)


@pytest.mark.parametrize(
    ("seconds", "budget", "share"),
    [(0.1, 100.0, 1.0), (40.0, 100.0, 2**-0.75), (400.0, 100.0, 1 / 8), (400.0, 49.0, 2**-3.25)],
)
def test_more_than_an_eighth_of_the_counts_is_taken_only_where_it_is_cheap(
    seconds: float, budget: float, share: float
) -> None:
    """By the seconds that the full counts take: a budget need not be spent."""

    class Scaled(ToyCheck):
        def cost(self, audit: Any) -> Cost:
            return Cost(0, audit.effort.share * seconds / 0.0016)

    assert make_plan([network()], [Scaled(2, "strength")], budget).effort.share == pytest.approx(share)


def test_without_a_gradient_searches_come_first_and_get_the_time() -> None:
    class Searching(ToyCheck):
        def cost(self, audit: Any) -> Cost:
            return Cost(0, audit.effort.square_queries)

    numbers = (8, 3, 5, 2, 7, 6, 12)
    checks: list[Check] = [Searching(n, f"c{n}") if n == 6 else ToyCheck(n, f"c{n}") for n in numbers]
    plans = {}
    for blind in (False, True):
        one = network()
        one.blind = blind
        plans[blind] = make_plan([one], checks, 12.0)
    assert [each.number for each in plans[False].checks] == [*numbers]
    assert [each.number for each in plans[True].checks] == [2, 5, 6, 7, 8, 3, 12]
    assert plans[False].effort.square_queries < plans[True].effort.square_queries <= 5000
    assert plans[False].effort.compared_images == plans[True].effort.compared_images


def test_side_checks_have_a_third_of_the_time() -> None:
    class Scaled(ToyCheck):
        def cost(self, audit: Any) -> Cost:
            return Cost(0, audit.effort.share * 1000 / 0.0016)

    plan = make_plan([network()], [Scaled(8, "side"), ToyCheck(2, "strength", passes=Cost(0, 10))], 60.0)
    assert plan.checks[0].seconds <= 20 < 2**0.25 * 20.01 * 1.01


def test_without_a_gradient_the_checks_of_gradients_are_short_and_searches_are_not() -> None:
    blind = FULL.without_gradient()
    assert blind.compared_images < FULL.compared_images
    assert blind.indicator_images < FULL.indicator_images
    assert (blind.square_images, blind.hard_label_images) == (FULL.square_images, FULL.hard_label_images)
    assert FULL.scaled(0.01).without_gradient().square_images == FULL.square_images


def test_what_does_not_fit_is_left_out_by_name_and_the_worst_case_goes_first() -> None:
    checks = [
        ToyCheck(3, "side", passes=Cost(0, 1000)),
        ToyCheck(2, "strength", passes=Cost(0, 1000)),
        ToyCheck(8, "small side", passes=Cost(0, 400)),
    ]
    plan = make_plan([network()], checks, 3.2)
    assert [bool(each.left_out) for each in plan.checks] == [True, False, False]
    said = [line for line in plan.lines() if "left out for lack of time: needs about 1.6 s" in line]
    assert ["3 side" in line for line in said] == [True]
    assert [each.granted for each in plan.checks] == pytest.approx([0.0, 1.6, 0.64])


def test_the_headline_is_never_left_out_but_cut_and_that_is_said() -> None:
    plan = make_plan([network()], [ToyCheck(2, "far too long", passes=Cost(0, 1e6)), ToyCheck(8, "side")], 4.0)
    assert [bool(each.left_out) for each in plan.checks] == [False, False]
    assert "cut at 4.0 s" in plan.lines()[1]
    assert "attacks stop where their share of the time ends" in plan.lines()[-1]


def test_a_check_that_does_not_apply_costs_nothing_and_says_why() -> None:
    plan = make_plan([network()], [ToyCheck(1, "routes", passes=Cost(0, 1e9), why="has no SHC layer")], 1.0)
    assert plan.seconds == 0
    assert plan.checks[0].left_out == "has no SHC layer"


def test_without_a_limit_everything_is_planned_in_full() -> None:
    plan = make_plan([network()], [ToyCheck(2, "long", passes=Cost(0, 1e12))], math.inf)
    assert plan.effort == FULL
    assert not plan.checks[0].left_out


def test_given_counts_are_taken_as_they_are() -> None:
    effort = replace(FULL, restarts=2)
    assert make_plan([network()], [Costly(2, "c")], 100.0, effort).effort is effort


def test_others_have_the_headline_s_checks_only_and_a_share_of_the_time() -> None:
    checks = [
        ToyCheck(5, "transfer"),
        ToyCheck(8, "gradients", passes=Cost(20, 20)),
        ToyCheck(12, "worst", passes=Cost(0)),
    ]
    plan = make_plan([network(), network("twin")], checks, 100.0)
    assert [(each.network, each.number) for each in plan.checks] == [
        ("model/seed0", 5),
        ("model/seed0", 8),
        ("model/seed0", 12),
        ("twin/seed0", 5),
        ("twin/seed0", 12),
    ]
    side = 5 + 2 * plan.checks[1].seconds
    assert [plan.until(each) for each in plan.checks] == pytest.approx([25, side, 5, 100, 100], abs=0.1)


def test_a_side_check_may_take_twice_its_estimate_and_a_little() -> None:
    plan = make_plan([network()], [ToyCheck(8, "side", passes=Cost(0, 1000)), ToyCheck(5, "transfer")], 100.0)
    assert plan.until(plan.checks[0], now=10.0) == pytest.approx(10 + 2 * 1.6 + 5)


def test_the_white_box_has_half_of_what_its_network_has_left() -> None:
    checks = [ToyCheck(2, "strength", passes=Cost(0, 10)), ToyCheck(12, "worst", passes=Cost(0, 10_000))]
    plan = make_plan([network()], checks, 100.0)
    assert [plan.until(plan.checks[0], now) for now in (0.0, 20.0)] == pytest.approx([50, 60])


@pytest.mark.parametrize("budget", [7.0, math.inf])
def test_a_plan_is_stored_and_read_back(tmp_path: Path, budget: float) -> None:
    path = tmp_path / "plan.json"
    assert Plan.read(path) is None
    plan = make_plan([network()], [Costly(2, "c", passes=Cost(0, 1000)), ToyCheck(8, "d", why="no")], budget)
    path.write_text(json.dumps(plan.stored()))
    read = Plan.read(path)
    assert read == plan
    assert read is not None
    assert read.effort.share == plan.effort.share
    path.write_text("{}")
    with pytest.raises(InputError, match="damaged"):
        Plan.read(path)


ATTACKS: list[Attack] = [
    FGSM(EPS),
    IFGSM(EPS, steps=7),
    RandFGSM(EPS / 2, EPS / 2),
    RandFGSM(EPS / 2, EPS / 2, objective="untargeted"),
    GaussianNoise(0.1),
    LocSearchAdv(pixels_per_step=2, steps=3, max_probes=16, batch_size=16),
]


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: type(attack).__name__)
def test_an_attack_makes_no_more_passes_than_its_cost(attack: Attack) -> None:
    x, y = colour_images(6)
    passed = 0

    class Counting(Brightest):
        def forward(self, x: Tensor) -> Tensor:
            nonlocal passed
            passed += len(x)
            return super().forward(x)

    attack.run(Counting().eval(), x, y)
    cost = attack.cost
    assert cost is not None
    assert passed <= cost.forwards * len(x) <= 2.5 * passed + len(x)


def test_the_probe_tells_a_dear_network_from_a_cheap_one() -> None:
    class Dear(Brightest):
        def forward(self, x: Tensor) -> Tensor:
            for _ in range(200):
                x = x.sin().asin()
            return super().forward(x)

    x, y = colour_images(48)
    cheap, dear = (measure(Subject("Net", each.eval(), x, y), x, y) for each in (Brightest(), Dear()))
    for cost in (Cost(1, 0), Cost(0, 1)):
        assert dear.seconds(cost) > 5 * cheap.seconds(cost) >= 0
    assert cheap.seconds(Cost(1)) > 0


def test_a_pass_costs_something_by_itself() -> None:
    probe = Probe(forward=0.001, backward=0.002, forward_pass=0.05, backward_pass=0.1)
    assert probe.batch(Cost(10, 10), 4) == pytest.approx(10 * (0.05 + 0.004) + 10 * (0.1 + 0.008))
    assert probe.fitting(Cost(10, 10), probe.batch(Cost(10, 10), 7)) == pytest.approx(7)
    assert probe.fitting(Cost(10, 10), 1.0) < 1
    assert probe.seconds(Cost(10, 10)) == pytest.approx(probe.batch(Cost(10, 10), 25) / 25)


def test_an_attack_that_is_slower_than_estimated_gets_smaller_batches() -> None:
    pace = Pace(Probe(forward=0.1, backward=0.0), Cost(10))
    assert pace.fitting(20.0) == 20
    pace.took(30.0, 10)  # three times as long
    assert pace.fitting(20.0) == 6
    assert pace.fitting(0.0) == 0
    unknown = Pace(PROBE, None)
    assert unknown.fitting(1.0) == math.inf
    unknown.took(5.0, 10)
    assert unknown.fitting(3.0) == 6


def test_a_first_batch_has_a_quarter_of_the_time_and_later_ones_half_unless_all_fit() -> None:
    pace = Pace(Probe(forward=1.0, backward=0.0), Cost(1))
    assert [pace.next(100, 40.0), pace.next(5, 40.0), pace.next(100, math.inf)] == [10, 5, 100]
    pace.took(20.0, 10)  # twice as long
    assert [pace.next(100, 40.0), pace.next(16, 40.0), pace.next(17, 40.0)] == [10, 16, 10]
    assert pace.next(100, 2.6) == 1
    assert pace.next(100, 2.4) == 0


def test_what_one_attack_took_is_known_to_the_next_of_its_kind() -> None:
    assert Pace(Probe(forward=1.0, backward=0.0), Cost(1), slower=2.5).next(100, 50.0) == 10


def test_times_are_read_as_clocks() -> None:
    assert [minutes(s) for s in (0.2, 59, 60, 75, 3600, 5000, math.inf)] == [
        "0.2 s",
        "59 s",
        "1:00",
        "1:15",
        "1:00:00",
        "1:23:20",
        "no limit",
    ]


def test_the_plan_is_shown_before_anything_is_attacked(capsys: pytest.CaptureFixture[str]) -> None:
    checks = [attacking(2, "strength"), ToyCheck(5, "transfer", why="no twin and no sources given")]
    audit.run(Brightest().eval(), colour_images(), EPS, checks=checks, budget="90s")
    shown = capsys.readouterr().err
    assert 0 < shown.index("2 strength") < shown.index("no twin and no sources given") < shown.index("breaks")
    assert re.search(r"budget 1:[0-2]\d", shown)  # 80 s less what went before the plan


def test_where_time_is_short_cheap_checks_get_all_they_want_and_dear_ones_the_same() -> None:
    seconds = {"a": 1.0, "b": 20.0, "c": 2.0, "d": 90.0}
    checks = [
        ToyCheck(k, name, passes=Cost(0, s / 0.0016))
        for k, (name, s) in zip((1, 2, 5, 6), seconds.items(), strict=True)
    ]
    plan = make_plan([network()], checks, 23.0)
    assert [plan.until(each) for each in plan.checks] == pytest.approx([1.5, 11.5, 23 / 6, 23.0])
    assert plan.until(plan.checks[2], now=12.0) == pytest.approx(15.0)
    assert plan.until(plan.checks[1], now=12.0) == pytest.approx(17.5)


def test_time_spent_before_the_plan_does_not_count_against_the_first_check() -> None:
    plan = make_plan([network()], [ToyCheck(1, "a"), ToyCheck(5, "b")], 10.0, begun=7.0)
    assert [plan.until(each) for each in plan.checks] == pytest.approx([12.0, 17.0], abs=0.1)


def test_no_random_number_is_drawn_for_a_plan() -> None:
    state = torch.random.get_rng_state()
    make_plan([network()], [Costly(2, "c")], 5.0)
    assert torch.equal(state, torch.random.get_rng_state())
