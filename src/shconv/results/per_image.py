"""What became of each image under one attack, a line each."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from shconv.errors import InputError
from shconv.experiments.outcomes import Outcomes
from shconv.experiments.run_folder import Row
from shconv.results.measures import budget_of

if TYPE_CHECKING:
    from pandas import DataFrame

ABOUT = ("experiment", "model", "seed", "attack", "objective", "route", "step")
MEASURED = ("prediction", "correct", "p_y", "rc", "linf", "l2", "queries", "outside")


def per_image(
    row: Row, found: Outcomes, clean: Outcomes | None, labels: Sequence[int], files: Sequence[str]
) -> "DataFrame":
    """The outcomes of a row. labels, files: of every test image, empty where they are not known."""
    import pandas as pd

    about = {name: row.get(name) for name in ABOUT}
    columns: dict[str, Any] = {name: getattr(found, name) for name in MEASURED}
    columns["prediction"] = pd.array(found.prediction, dtype="Int64")
    columns["prediction"][found.prediction < 0] = pd.NA
    if clean is not None:
        before = clean.at(found.index)
        columns["clean_prediction"] = pd.array(before.prediction, dtype="Int64")
        columns["clean_prediction"][before.prediction < 0] = pd.NA
        columns |= {"clean_correct": before.correct, "rcd": before.rc - found.rc}
    named = {"label": _at(labels, found.index), "file": _at(files, found.index)}
    return pd.DataFrame({**about, "threat": threat_title(row), "index": found.index, **named, **columns})


def threat_title(row: Row) -> str | None:
    """Of a row's budget; None without an attack."""
    return None if row["attack"] == "clean" else budget_of(row).title


def _at(values: Sequence[Any], index: NDArray[np.int64]) -> list[Any]:
    if len(values) and len(index) and index.max() >= len(values):
        raise InputError(
            f"images.csv is damaged: it has {len(values)} images, the results are about image {index.max()}"
        )
    return [values[place] for place in index] if len(values) else [None] * len(index)
