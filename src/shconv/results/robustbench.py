"""AutoAttack's standard accuracy as RobustBench prints it, and as a file in the form of its model_info."""

import re
from fractions import Fraction
from pathlib import Path
from typing import Any

from shconv.attacks.budget import Budget
from shconv.files import replace_json
from shconv.results import Results
from shconv.results.measures import budget_of

STANDARD = "autoattack"  # the attack's name in rows


def save_standard(results: Results, folder: Path) -> list[str]:
    """Write a file for each network under AutoAttack, and say its two numbers as RobustBench's benchmark() does.

    What only its authors know (link, title, venue ...) is left empty. The clean accuracy is that of the same images.
    """
    said = []
    for row in results.records:
        if row["experiment"] != "evaluate" or row["attack"] != STANDARD or not row["n"]:
            continue
        images = results.images(row["model"], STANDARD)
        images = images[(images.seed == row["seed"]) & (images.route == row["route"])]
        clean, robust = float(images.clean_correct.mean()), float(images.correct.mean())
        about = _model_info(results, row["model"], budget_of(row), clean, robust, len(images))
        name = re.sub(r"[^\w.-]+", "-", f"{row['model']}-seed{row['seed']}")
        place = folder / "robustbench" / f"{name}.json"
        place.parent.mkdir(parents=True, exist_ok=True)
        replace_json(place, about)
        said.append(f"{row['model']}: clean accuracy {clean:.2%}, AutoAttack accuracy {robust:.2%} ({place})")
    return said


def _model_info(results: Results, model: str, budget: Budget, clean: float, robust: float, n: int) -> dict[str, Any]:
    data = results.facts.get("data.json", {})
    return {
        "link": "",
        "name": "",
        "authors": "",
        "additional_data": None,
        "number_forward_passes": 1,
        "dataset": str(data.get("name", "")).partition(":")[0],
        "venue": "",
        "architecture": model,
        "eps": eps_text(budget),
        "clean_acc": f"{100 * clean:.2f}",
        "reported": "",
        "autoattack_acc": f"{100 * robust:.2f}",
        "footnote": f"{budget.title}, {n:,} of {data.get('test_images', n):,} test images.",
        "unreliable": False,
    }


def eps_text(budget: Budget) -> str:
    """8/255 where it is such a number, as is usual for L-infinity; else 0.5."""
    levels = Fraction(budget.radius).limit_denominator(255 * 4) * 255
    if budget.norm == "linf" and levels.denominator == 1 and abs(float(levels) / 255 - budget.radius) < 1e-9:
        return f"{levels}/255"
    return f"{budget.radius:.6g}"
