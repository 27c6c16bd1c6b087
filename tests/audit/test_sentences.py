"""Every sentence that an audit makes of numbers, tried on made-up numbers: no word contradicts the number beside it."""

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shconv.audit.cases import NO_ATTACK, share
from shconv.audit.checks import c01_routes, c03_random_start, c05_transfer, c09_loss_surface, c11_ablations
from shconv.audit.checks.c02_strength import Strength
from shconv.audit.checks.c04_budget import Curve
from shconv.audit.checks.searching import Searched
from shconv.audit.verdict import check_sentences, seeds_sentence, twin_sentence, worst_case_sentence
from shconv.intervals import wilson
from shconv.paired import Paired

few = st.integers(0, 60)
paired = st.builds(Paired, few, few, few, few)
OF = r"(\d+) of (\d+)"


def numbers(pattern: str, text: str) -> list[float]:
    found = re.search(pattern, text)
    assert found, (pattern, text)
    return [float(each) for each in found.groups()]


@given(paired, paired, paired, few, few)
def test_strength(once: Paired, losses: Paired, doubled: Paired, told: int, part: int) -> None:
    found = Strength((50, 200), once, losses, doubled, told, min(told, part))
    text = found.text()
    if once.n:
        one, _, many, _ = numbers(rf"accuracy {OF} \([^)]*\) under one step, {OF} \([^)]*\) under PGD-200", text)
        word = "weaker than" if one > many else "stronger than" if one < many else "as strong as"
        assert f"One step is {word} PGD-200" in text
    if found.weak and one > many:
        assert "as high" in text  # what makes it weak stands there: the margins
    if losses.n:
        entropy, n, margins, _ = numbers(rf"PGD-50: accuracy {OF} .*? with the cross-entropy as loss, {OF}", text)
        assert ("saturates" in text) == found.saturated
        assert not found.saturated or entropy - margins >= 0.1 * n
    if doubled.n:
        (change,) = numbers(r"accuracy by ([+-][\d.]+) points", text)
        assert ("not converged" in text) == found.unsettled
        assert not found.unsettled or change < 0
    assert "0 of 0 " not in text
    assert (found.alarm is None) == (
        not min(once.n, losses.n, doubled.n) and not found.weak | found.saturated | found.unsettled
    )


@given(st.dictionaries(st.sampled_from(["FGSM", "PGD-50"]), paired, min_size=1))
def test_random_start(pairs: dict[str, Paired]) -> None:
    text = c03_random_start.text(pairs)
    for name, each in pairs.items():
        if not each.n:
            assert f"{name}:" not in text
            continue
        without, n, started, _ = numbers(rf"{name}: accuracy {OF} \([^)]*\) without a random start, {OF}", text)
        named = name in text.split(" break")[0]
        assert not named or without - started >= 0.1 * n
        if "no attack breaks" in text:
            assert not (without - started >= 0.1 * n and each.interval[0] > 0)
    assert ("No image was attacked" in text) == (not any(each.n for each in pairs.values()))


@given(st.dictionaries(st.sampled_from(["twin", "other"]), st.tuples(paired, paired), max_size=2))
def test_transfer(pairs: dict[str, tuple[Paired, Paired]]) -> None:
    text = c05_transfer.text(50, (3, 9), pairs)
    for name, (direct, added) in pairs.items():
        if not direct.n or not added.n:
            assert f"{name}: not tried" in text
            continue
        theirs, _, own = numbers(rf"{name}: accuracy {OF} \([^)]*\) where the white-box attack gives (\d+)", text)
        if re.search(rf"break more than the white-box attack \([^)]*{name}", text):
            assert theirs < own
        mixed, _, twice, _ = numbers(
            rf"{name}: .*?transfer alone, accuracy {OF} \([^)]*\) under both together and {OF}", text
        )
        if re.search(rf"add more to the white-box attack than a second run \([^)]*{name}", text):
            assert mixed < twice
        if "No transferred examples break significantly more" in text:
            assert direct.interval[0] <= 0
            assert added.interval[0] <= 0
    assert ("No transferred example was tried" in text) == (not any(a.n and b.n for a, b in pairs.values()))


@given(few, few, few, few, few)
def test_searches(stood: int, tried: int, broken: int, seen: int, hidden: int) -> None:
    tried = min(tried, stood)
    broken = min(broken, tried)
    seen = min(seen, broken)
    hidden = min(hidden, seen)
    found = Searched(stood, tried, broken, seen, hidden)
    text = found.text("searches without gradients")
    assert ("no image" in text.lower() and "break" not in text) == (not tried)
    assert ("break no image" in text) == (tried > 0 and broken == 0)
    if broken:
        assert numbers(rf"break {OF}", text) == [broken, tried]
        assert (f"fails on {hidden}" in text) == (seen > 0)
    assert found.alarm is (True if hidden else None if (stood and not tried) or (broken and not seen) else False)


@given(few, few)
def test_loss_surface(steeper: int, more: int) -> None:
    n = steeper + more + 1
    text = c09_loss_surface.text(steeper, n, "random signs")
    assert numbers(rf"higher on {OF}", text) == [steeper, n]
    if "On most images the loss rises higher" in text:
        assert steeper > n / 2
    if "On most images the loss rises no higher" in text:
        assert steeper < n / 2
    assert ("too few to say" in text) == (wilson(steeper, n)[0] <= 0.5 <= wilson(steeper, n)[1])


@given(st.lists(st.lists(st.booleans(), min_size=5, max_size=5), min_size=4, max_size=4))
def test_budget_curve(standing: list[list[bool]]) -> None:
    curve = Curve([0.0, 0.1, 0.5, 1.0], np.array(standing), 10)
    text = curve.text()
    shares = [float(each) for each in re.findall(r"(?:0|0\.1|0\.5|1): ([\d.]+) %", text)]
    assert len(shares) == 4
    if "The curve falls as it must" in text:
        assert shares == sorted(shares, reverse=True)
        assert shares[-1] == 0
    if "rises nowhere significantly" in text:
        assert shares != sorted(shares, reverse=True)
        assert shares[-1] == 0
    assert text.startswith("The attack fails") == bool(curve.faults())


@given(st.dictionaries(st.sampled_from(["convolution", "frozen"]), paired.filter(lambda each: each.n), max_size=2))
def test_routes(pairs: dict[str, Paired]) -> None:
    def row(each: Paired) -> dict[str, Any]:
        both, own = each.both + each.only_first, each.both + each.only_second
        return {
            "n": each.n,
            "accuracy": own / each.n,
            "both": both / each.n,
            "difference": each.difference,
            "interval": each.interval,
            "below": each.interval[0] > 0,
        }

    table = {"both": row(Paired(5, 0, 0, 5)), **{name: row(each) for name, each in pairs.items()}}
    text = c01_routes.text({"one step": table})
    below = any(each.interval[0] > 0 for each in pairs.values())
    assert ("The full gradient misleads" in text) == below
    assert ("No route gives a significantly lower accuracy" in text) == (not below)
    if below:
        own, both = numbers(r"is ([\d.]+) % through route \w+ and ([\d.]+) % through both", text)
        assert own < both


@given(st.lists(st.sampled_from(["PGD"]), max_size=1), st.lists(st.sampled_from(["M constant, PGD"]), max_size=1))
def test_ablations(gains: list[str], same: list[str]) -> None:
    text = c11_ablations.text(gains or (same and ["PGD"]) or [], same)
    assert ("stays" in text) == bool(same)
    assert ("No gain to explain" in text) == (not gains and not same)


CHECK = st.fixed_dictionaries(
    {
        "check": st.integers(1, 11),
        "alarm": st.sampled_from([True, False, None]),
        "not_run": st.sampled_from(["", "late"]),
    }
)


@given(st.lists(CHECK, max_size=11, unique_by=lambda row: row["check"]))
def test_every_check_that_ran_stands_in_one_list(rows: list[dict[str, Any]]) -> None:
    rows = [{**row, "name": f"name{row['check']}", "text": "said."} for row in rows]
    text = list(check_sentences(rows))
    where = {True: "Alarm, check", False: "No alarm:", None: "No answer:"}
    for row in rows:
        holding = [said for said in text if re.search(rf"check {row['check']}, name{row['check']}\b", said)]
        assert len(holding) == (0 if row["not_run"] else 1)
        assert row["not_run"] or holding[0].startswith(where[row["alarm"]])
    told = [row for row in rows if not row["not_run"] and row["alarm"] is not None]
    raised = sum(bool(row["alarm"]) for row in told)
    start = "No check gave an answer" if not told else f"{raised} of the" if raised else f"None of the {len(told)} "
    assert text[0].startswith(start)


@given(paired.filter(lambda each: each.n), st.integers(1, 9), st.integers(1, 9))
def test_twin(counts: Paired, attacks: int, own: int) -> None:
    ours, theirs = (counts.both + counts.only_first) / counts.n, (counts.both + counts.only_second) / counts.n
    whole = {
        "network": {"accuracy": ours / 2, "attacks": attacks + own},
        "twin": {"accuracy": theirs, "attacks": attacks},
    }
    against = {
        "reason": "",
        "n": counts.n,
        "attacks": attacks,
        "left_out": [],
        "accuracy": ours,
        "twin_accuracy": theirs,
        "difference": counts.difference,
        "interval": list(counts.interval),
        "p": counts.p,
        "all": whole,
    }
    text = twin_sentence("net", "twin plain10", against)
    if "net is above" in text:
        assert ours > theirs
    if "net is below" in text:
        assert ours < theirs
    assert ("not significantly different" in text) == (counts.p >= 0.05)
    assert f"over the same {attacks} attack" in text
    assert f"over {attacks + own} attacks" in text
    assert "the twin plain10" not in text  # met no other attacks than those of the comparison


@pytest.mark.parametrize("reason", ["no attack was tried on plain10", "3 images of plain10 had none"])
def test_without_a_comparison_a_sentence_has_no_number_but_the_reason(reason: str) -> None:
    empty = dict.fromkeys(("accuracy", "twin_accuracy", "difference", "interval", "p"))
    text = twin_sentence("net", "twin plain10", {"reason": reason, "attacks": 0, **empty})
    assert text == f"No comparison with the twin plain10: {reason}."


@given(few, few, few, few, st.integers(1, 9), st.booleans())
def test_worst_case(left: int, broken: int, untried: int, wrong: int, attacks: int, tried: bool) -> None:
    clean = left + broken + untried
    n = clean + wrong + 1
    why = NO_ATTACK if not tried else f"{untried} images were not attacked" if untried else ""
    spread = {"classes": 2, "of_classes": 10, "largest": clean // 3}
    known = share(left, n) if not why else dict.fromkeys(("correct", "accuracy", "interval"))
    case = {
        "n": n,
        **known,
        "reason": why,
        "clean": clean,
        "untried": untried,
        "attacked": left + broken,
        "left": left,
        "attacks": attacks,
        "broken_by": {"PGD": broken} if broken else {},
        "confident": {**share(left // 2, clean // 2), "reason": why, "min_confidence": 0.5, **spread},
        "shared": {**share(left + broken // 2, n), "attacks": max(attacks - 1, 1), "reason": why},
    }
    text = worst_case_sentence("within L2 0.5", case)
    assert (f"correct on {left} of {n}" in text) == (not why)
    assert ("No image survived" in text) == (not why and left == 0)
    assert ("%" in text) == (not why)
    if "Most of them are of one class" in text:
        assert clean // 3 > (clean // 2) / 2
    assert ("too few to say much" in text) == (not why and 0 < clean // 2 < 20)
    if tried and untried:
        assert f"{left + broken} of {clean} correct images were attacked, and {left} of them" in text
    if "under these the accuracy" in text:
        (shared,) = numbers(r"under these the accuracy is ([\d.]+) %", text)
        (all_,) = numbers(r"correct on \d+ of \d+, ([\d.]+) %", text)
        assert shared >= all_


@given(st.lists(st.floats(0, 1), max_size=4), st.integers(0, 2))
def test_seeds(values: list[float], absent: int) -> None:
    over = {
        "accuracy": {f"seed{place}": each for place, each in enumerate(values)},
        "left_out": {f"other{place}": NO_ATTACK for place in range(absent)},
        "mean": float(np.mean(values)) if values else None,
        "sd": float(np.std(values, ddof=1)) if len(values) > 1 else None,
        "lowest": min(values, default=None),
        "highest": max(values, default=None),
    }
    text = seeds_sentence(over)
    assert ("No spread" in text) == (len(values) < 2)
    assert (f"Over {len(values)} training seeds" in text) == (len(values) > 1)
    assert text.count(NO_ATTACK) == absent
