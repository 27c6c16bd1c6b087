"""What the audit does with one attack: who judges, what counts, which images are attacked, and until when."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from core_toys import EPS, Brightest, Shift, colour_images, margins
from torch import nn

from shconv.attacks import FGSM, GaussianNoise, LocSearchAdv, RandFGSM
from shconv.attacks.base import borrowed
from shconv.audit.audit import Audit
from shconv.audit.clock import Clock
from shconv.audit.ledger import Ledger
from shconv.audit.probe import Probe
from shconv.audit.setting import Setting
from shconv.audit.subject import Subject
from shconv.errors import InputError
from shconv.experiments.progress import ExperimentProgress
from shconv.experiments.run_folder import RunFolder
from toys import colour_networks

MakeAudit = Callable[..., Audit]


@pytest.fixture
def make_audit(tmp_path: Path) -> Any:
    """An audit of a network on coloured images, in a folder of its name."""

    def make(network: nn.Module | None = None, n: int = 24, folder: str = "run", **setting: Any) -> Audit:
        x, y = colour_images(n)
        given = Setting(**{"eps": EPS, "eps_l2": 1.0, "budget": "full", **setting})
        network = (Brightest() if network is None else network).eval()
        with borrowed(network):
            subject = Subject("model", network, x, y, batch_size=given.batch_size)
            (tmp_path / folder).mkdir(exist_ok=True)
            place = RunFolder(tmp_path / folder)
            index = torch.arange(100, 100 + n)
            ledger = Ledger(place, "model/seed0", index.numpy(), "toy")
            clock, probe = Clock(place, given.seconds), Probe(0.0, 0.0)
            return Audit(subject, x, y, index, given, ledger, clock, probe, ExperimentProgress(False))

    return make


def test_an_attack_breaks_exactly_the_images_whose_margin_it_closes(make_audit: MakeAudit) -> None:
    audit = make_audit()
    outcome = audit.attack("shift", Shift(EPS))
    x, y = colour_images()
    assert outcome.attempted.all()
    assert outcome.complete
    wanted = [
        not bool(_right(made, label)) for made, label in zip(Shift(EPS)(audit.subject.model, x, y), y, strict=True)
    ]
    assert outcome.success.tolist() == wanted
    assert 0 < sum(wanted) < len(wanted)
    certain = (margins(x, y) > 2 * EPS).numpy()  # no step within the ball closes these
    assert not outcome.success[certain].any()
    row = audit.ledger.attacks()[0]
    assert (row["n"], row["successes"], row["accuracy"]) == (24, sum(wanted), (24 - sum(wanted)) / 24)


def _right(image: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    return Brightest()(image[None]).argmax(1)[0] == label


def test_an_image_once_broken_is_not_attacked_again_unless_asked_for(make_audit: MakeAudit) -> None:
    audit, seen = make_audit(), []
    first = audit.attack("weak", Shift(0.8 * EPS))
    audit.attack("strong", Shift(EPS, seen.extend))
    assert seen == (100 + np.flatnonzero(~first.success)).tolist()
    seen.clear()
    paired = audit.attack("paired", Shift(EPS, seen.extend), on=audit.correct)
    assert seen == list(range(100, 124))
    assert paired.success.sum() > first.success.sum() > 0


def test_the_worst_case_is_the_union_of_what_was_broken_and_names_who_was_first(make_audit: MakeAudit) -> None:
    audit = make_audit()
    weak = audit.attack("weak", Shift(0.8 * EPS), on=audit.correct)
    strong = audit.attack("strong", Shift(EPS), on=audit.correct)
    assert (audit.standing() == ~(weak.success | strong.success)).all()
    first = ["weak" if a else "strong" if b else None for a, b in zip(weak.success, strong.success, strict=True)]
    assert audit.ledger.broken_by("linf") == first


def test_threats_do_not_mix(make_audit: MakeAudit) -> None:
    audit = make_audit(eps_l2=100.0)
    audit.attack("shift", Shift(EPS), threat="l2")
    assert audit.standing("linf").all()
    assert not audit.standing("l2").all()


@pytest.mark.parametrize(
    ("attack", "threat"),
    [(Shift(2 * EPS), "linf"), (Shift(EPS), "l2"), (Shift(EPS, clip=False), "linf")],
    ids=["beyond eps", "beyond eps_l2", "out of the box"],
)
def test_an_example_outside_the_ball_or_the_box_does_not_count_and_is_counted_as_such(
    make_audit: MakeAudit, attack: Shift, threat: str
) -> None:
    audit = make_audit(eps_l2=0.5)
    x, y = colour_images()
    x[:, :, 0, 0], audit.images[:, :, 0, 0] = 0, 0  # a black and a white pixel, so that every step leaves the box
    x[:, :, 0, 1], audit.images[:, :, 0, 1] = 1, 1
    moved = attack(audit.subject.model, x, y)
    far = moved.sub(x).abs().amax((1, 2, 3)) > EPS + 1e-5
    far |= (moved.amin((1, 2, 3)) < -1e-5) | (moved.amax((1, 2, 3)) > 1 + 1e-5)
    if threat == "l2":
        far = moved.sub(x).flatten(1).norm(dim=1) > 0.5
    outcome = audit.attack("shift", attack, threat=threat)
    assert not outcome.success[far.numpy()].any()
    wrong = (Brightest()(moved).argmax(1) != y) & far
    assert audit.ledger.attacks()[0]["outside"] == int(wrong.sum()) > 0


def test_rounding_at_the_edge_of_the_ball_is_forgiven(make_audit: MakeAudit) -> None:
    audit = make_audit()
    audit.attack("shift", Shift(EPS + 1e-7))
    assert audit.ledger.attacks()[0]["outside"] == 0


def test_pixels_have_no_radius(make_audit: MakeAudit) -> None:
    audit = make_audit()
    attack = LocSearchAdv(pixels_per_step=8, steps=8, probe="cyclic", max_probes=16)
    assert audit.attack("LocSearchAdv", attack, threat="pixels").success.any()
    assert audit.ledger.attacks()[0]["epsilon"] is None
    assert audit.ledger.attacks()[0]["outside"] == 0


def test_examples_made_on_another_network_are_judged_on_this_one(make_audit: MakeAudit) -> None:
    """A source with the channels swapped misleads nobody, though every one of its examples fools the source."""

    class Swapped(Brightest):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x).roll(1, 1)

    audit = make_audit()
    attack = FGSM(EPS, objective="untargeted")
    own = audit.attack("FGSM", attack, on=audit.correct)
    transfer = audit.attack("FGSM", attack, on=audit.correct, model=Swapped(), source="swapped")
    assert own.success.sum() > transfer.success.sum()
    assert [row["source"] for row in audit.ledger.attacks()] == [None, "swapped"]


@pytest.mark.parametrize("route", ["both", "convolution", "hypernetwork", "strict", "frozen", "mixture:0.3"])
def test_an_shc_network_is_attacked_through_every_route_and_judged_whole(make_audit: MakeAudit, route: str) -> None:
    shc = colour_networks()[1]
    audit = make_audit(shc, batch_size=7)
    outcome = audit.attack("FGSM", FGSM(EPS, objective="untargeted"), route=route)
    assert outcome.adversarial is not None
    right = shc(outcome.adversarial).argmax(1) == audit.labels[torch.from_numpy(outcome.attempted)]
    assert (outcome.success[outcome.attempted] == ~right.numpy()).all()


def test_frozen_kernels_and_mixtures_give_other_examples(make_audit: MakeAudit) -> None:
    audit, made = make_audit(colour_networks()[1]), {}
    for route in ("both", "convolution", "frozen", "mixture:0", "mixture:5"):
        outcome = audit.attack("FGSM", FGSM(EPS, objective="untargeted"), route=route, on=audit.correct)
        made[route] = outcome.adversarial
    assert torch.equal(made["mixture:0"], made["convolution"])
    assert not torch.equal(made["both"], made["convolution"])
    assert not torch.equal(made["mixture:5"], made["both"])


@pytest.mark.parametrize("route", ["sideways", "mixture:much"])
def test_an_unknown_route_is_refused(make_audit: MakeAudit, route: str) -> None:
    with pytest.raises(InputError, match="route"):
        make_audit(colour_networks()[1]).attack("FGSM", FGSM(EPS), route=route)


def test_asked_again_the_stored_result_is_returned(make_audit: MakeAudit) -> None:
    audit, seen = make_audit(), []
    first = audit.attack("shift", Shift(EPS, seen.append), on=audit.correct)
    again = audit.attack("shift", Shift(EPS, seen.append), on=audit.correct)
    assert len(seen) == 1
    assert (first.success == again.success).all()
    assert len(audit.ledger.attacks()) == 1


@pytest.mark.parametrize("change", ["attack", "images"])
def test_one_label_stands_for_one_attack(make_audit: MakeAudit, change: str) -> None:
    audit = make_audit()
    audit.attack("shift", Shift(EPS), on=audit.correct)
    attack = Shift(EPS / 2) if change == "attack" else Shift(EPS)
    with pytest.raises(InputError, match="One label names one attack"):
        audit.attack("shift", attack, on=audit.correct if change == "attack" else audit.sample(3))


@pytest.mark.parametrize(
    "attack", [RandFGSM(EPS / 2, EPS / 2, objective="untargeted"), GaussianNoise(0.3, EPS)], ids=["RAND+FGSM", "noise"]
)
def test_results_do_not_depend_on_the_batch_size_and_do_on_the_seed(make_audit: MakeAudit, attack: Any) -> None:
    made = [
        make_audit(n=60, folder=str(k), batch_size=batch_size, seed=seed).attack("noisy", attack)
        for k, (batch_size, seed) in enumerate([(60, 0), (7, 0), (60, 1)])
    ]
    assert all(each.adversarial is not None for each in made)
    assert torch.equal(made[0].adversarial, made[1].adversarial)  # type: ignore[arg-type]
    assert (made[0].success == made[1].success).all()
    assert not torch.equal(made[0].adversarial, made[2].adversarial)  # type: ignore[arg-type]


def test_the_deadline_holds_between_batches_and_is_said(make_audit: MakeAudit, monkeypatch: pytest.MonkeyPatch) -> None:
    audit, calls = make_audit(batch_size=5), []
    monkeypatch.setattr(Clock, "left", lambda self, until=0.0: 0.0 if len(calls) == 2 else 100.0)
    outcome = audit.attack("shift", Shift(EPS, calls.append))
    assert outcome.attempted.tolist() == [i < 10 for i in range(24)]
    assert not outcome.complete
    assert not outcome.success[10:].any()
    row = audit.ledger.attacks()[0]
    assert (row["complete"], row["n"], row["accuracy"]) == (False, 10, None)


def test_a_batch_that_would_end_too_late_is_made_smaller_or_not_begun(
    make_audit: MakeAudit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Clock, "left", lambda self, until=0.0: 3.5)
    audit, sizes = make_audit(), []
    audit.probe = Probe(forward=1.0, backward=0.0)  # Shift costs one forward pass
    audit.attack("shift", Shift(EPS, lambda index: sizes.append(len(index))))
    assert sizes[0] == 1
    audit.paces = {"Shift ": 1.0}
    audit.attack("shift once more", Shift(EPS, lambda index: sizes.append(len(index))), threat="l2")
    audit.probe = Probe(forward=5.0, backward=0.0)
    assert not audit.attack("shift again", Shift(EPS / 2)).attempted.any()


def test_examples_that_would_fill_the_memory_are_not_held(
    make_audit: MakeAudit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shconv.audit.audit._HELD", 23 * 3 * 8 * 8)
    audit = make_audit()
    assert audit.attack("all", Shift(EPS)).adversarial is None
    assert audit.attack("some", Shift(EPS), on=audit.sample(23)).adversarial is not None


def test_attacks_leave_the_global_random_numbers_alone(make_audit: MakeAudit) -> None:
    audit = make_audit(nn.Sequential(Brightest(), nn.Dropout()))
    state = torch.random.get_rng_state()
    audit.attack("shift", Shift(EPS))
    assert torch.equal(state, torch.random.get_rng_state())


def test_samples_hold_correct_images_only_and_grow(make_audit: MakeAudit) -> None:
    audit = make_audit(n=30)
    audit.correct[::3] = False
    small, large, all_of_them = (audit.sample(n) for n in (4, 9, 1000))
    assert (small.sum(), large.sum()) == (4, 9)
    assert not (small & ~large).any()
    assert (all_of_them == audit.correct).all()
    other = make_audit(n=30, folder="other", seed=1)
    other.correct = audit.correct
    assert (other.sample(4) != small).any()


def test_random_numbers_belong_to_the_seed_and_the_words(make_audit: MakeAudit) -> None:
    audit = make_audit()
    draws = [audit.generator(*words).random(4).tolist() for words in [("a", 1), ("a", 2), ("b", 1), ("a", 1)]]
    assert draws[0] == draws[3]
    assert len({tuple(draw) for draw in draws}) == 3
    audit.setting = replace(audit.setting, seed=1)
    assert audit.generator("a", 1).random(4).tolist() != draws[0]


def test_confident_images_are_correct_ones_above_nine_tenths(make_audit: MakeAudit) -> None:
    audit = make_audit()
    x, y = colour_images()
    p_y = Brightest()(x).softmax(1).gather(1, y[:, None])[:, 0]
    assert audit.confident.tolist() == (p_y > 0.9).tolist()
    assert 0 < audit.confident.sum() < len(y)


def test_patience_ends_an_attack_after_so_many_images_that_stand(make_audit: MakeAudit) -> None:
    audit, seen = make_audit(batch_size=5), []
    x, y = colour_images()
    order = margins(x, y).argsort().tolist()
    outcome = audit.attack("shift", Shift(EPS, seen.extend), order=order, patience=3)
    assert seen == [100 + at for at in order[: len(seen)]]
    tried = outcome.success[order][: len(seen)]
    assert tried[:-3].any()
    assert not tried[-3:].any()
    assert outcome.complete
    row = audit.ledger.attacks()[0]
    assert (row["n"], row["spared"], row["shared"]) == (len(seen), 24 - len(seen), False)
    assert not audit.attack(
        "all", Shift(EPS), on=audit.standing()
    ).success.any()  # none of those left out would have been broken


def test_where_an_attack_takes_longer_than_estimated_something_is_kept(
    make_audit: MakeAudit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three times as long: the first batch is a quarter of the time's worth, and later ones know better."""
    now = [0.0]
    monkeypatch.setattr("shconv.audit.clock.time.monotonic", lambda: now[0])
    monkeypatch.setattr("shconv.audit.audit.time.monotonic", lambda: now[0])

    class Slow(Shift):
        def perturb(self, model: Any, x: torch.Tensor, *arguments: Any) -> Any:
            for _ in range(3 * len(x)):
                now[0] += 1.0
                model(x)
            return super().perturb(model, x, *arguments)

    audit = make_audit(budget="40s")
    audit.probe, audit.until = Probe(1.0, 0.0), audit.clock.limit
    audit.subject.model.watch = audit.watch
    outcome = audit.attack("slow", Slow(EPS))
    assert not outcome.complete
    assert outcome.attempted.sum() >= 0.6 * audit.clock.limit / 3
    assert now[0] <= 1.05 * audit.clock.limit
