"""An inspection as tables: the maps, what depends on them, accuracy by route, linearity; and what they say in words."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from shconv.numbers import radius_text
from shconv.report.numbers import percent, points, points_span, signed
from shconv.report.output.cells import Grid, GridColumn

_percent = partial(percent, digits=1)
_three = "{:.3f}".format


def _small(value: float) -> str:
    return f"{value:.2g}" if value else "0"


def _losses(ends: tuple[float, float]) -> str:
    return " to ".join(map(signed, ends))


def grids(held: Mapping[str, Any], narrow: bool = False) -> tuple[Grid, ...]:
    """The tables of an inspection, in the order in which one reads them; narrow: what a terminal has room for."""
    return _maps(held), _effects(held), _attacks(held, narrow), _linearity(held)


def _maps(held: Mapping[str, Any]) -> Grid:
    columns = (
        GridColumn("layer", "layer"),
        GridColumn("mean", "mean of M", _three),
        GridColumn("spread", "spread", _small),
        GridColumn("saturated", "near 0 or 1, %", _percent),
        GridColumn("silent", "silent, %", _percent),
        GridColumn("sensitivity", "|dM/dX|", _small),
        GridColumn("shift_both", "shift, both", _small),
        GridColumn("shift_convolution", "conv.", _small),
        GridColumn("shift_hypernetwork", "hyper.", _small),
    )
    caption = (
        "Spread: a tap's standard deviation between images. Near 0 or 1: taps beyond 0.05 or 0.95. Silent: hidden "
        "neurons that are 0 on all images. |dM/dX|: how far M moves at most if the layer's input moves by 1. Shift: "
        f"how far M moves (L2) under one step of {radius_text(held['eps'])} along each route."
    )
    return Grid("inspection-maps", f"Filter maps of {held['name']}", caption, columns, tuple(held["layers"]))


def _effects(held: Mapping[str, Any]) -> Grid:
    columns = (
        GridColumn("layer", "layer"),
        GridColumn("share", "share, %", _percent),
        GridColumn("agreement", "signs kept, %", _percent),
        GridColumn("moved", "logits moved, %", _percent),
        GridColumn("changed", "classes changed, %", _percent),
        GridColumn("difference", "right, points", points),
        GridColumn("difference_interval", "95 %", points_span),
        GridColumn("verdict", "verdict"),
    )
    whole = {"layer": "all", "verdict": None, **held["network"]}
    caption = (
        "Share: the part of the input gradient's norm that passes through the layer's map. Signs kept: signs of the "
        "gradient without the map that the whole gradient has too. The other columns: what changes if the map is held "
        "at its mean over the images; accuracy in points. Dead: the map is constant. Idle: holding it moves logits by "
        "less than 1 % and changes no prediction. Helps, harms: the interval of the accuracy's difference excludes "
        "zero; used: it does not."
    )
    cosine = signed(held["network"]["cosine"])
    notes = [f"Cosine between the gradient through all maps and the convolution route: {cosine}."]
    if nan := held["network"].get("unanswered"):
        notes.append(
            f"On {nan} of {held['images']} images the logits are NaN or infinite: they count as wrong, and nothing "
            "else is measured on them."
        )
    records = (*held["layers"], whole)
    return Grid("inspection-layers", "What depends on the maps", caption, columns, records, tuple(notes))


def _attacks(held: Mapping[str, Any], narrow: bool) -> Grid:
    columns = (
        GridColumn("attack", "attack"),
        GridColumn("route", "route"),
        GridColumn("accuracy", "right, %", _percent),
        GridColumn("difference", "minus both", points),
        GridColumn("difference_interval", "95 %", points_span),
        GridColumn("loss_difference", "loss, minus both", signed),
        *(() if narrow else (GridColumn("loss_difference_interval", "95 %", _losses),)),
    )
    caption = (
        f"On {held['attacks'][0]['n']} images that are correct without an attack, within {radius_text(held['eps'])} "
        "(L-infinity), judged by the whole network. Strict: every path through at least one map. Loss: log-odds "
        "against the label, mean over the images; it still differs where accuracy is near 0. A route below both in "
        "accuracy, or above both in loss, means that the whole gradient is masked."
    )
    nothing = dict.fromkeys(column.key for column in columns[3:])  # to say of both routes minus both routes
    records = tuple({**each, **nothing} if each["route"] == "both" else each for each in held["attacks"])
    return Grid("inspection-routes", "Attacks by gradient route", caption, columns, records, (masking(held),))


def _linearity(held: Mapping[str, Any]) -> Grid:
    columns = (
        GridColumn("route", "route"),
        GridColumn("promised", "promised rise", signed),
        GridColumn("rise", "rise", signed),
        GridColumn("error", "error", _three),
    )
    caption = (
        f"One step of {radius_text(held['eps'])} along each route's gradient: the rise of the loss that the gradient "
        "predicts and the real rise, as medians. Error: 0 if the loss is linear there, 1 if one of them is "
        "nothing."
    )
    return Grid("inspection-linearity", "Is the loss linear?", caption, columns, held["linearity"])


def masking(held: Mapping[str, Any]) -> str:
    """Whether some attack through a part of the gradient is stronger than through the whole, in a sentence."""
    known = [each for each in held["attacks"] if each["difference"] is not None]
    measured, flat = held["images"] - held["network"].get("unanswered", 0), held["network"].get("flat", 0)
    if 2 * flat > measured:
        return (
            f"The whole gradient is exactly 0 on {flat} of {measured} images: attacks that follow it cannot work there "
            "and tell nothing of masking."
        )
    stronger = [each for each in known if each["difference_interval"][1] < 0]
    if not known:
        return "No image is classified correctly, so there is nothing to attack."
    if stronger:
        most = min(stronger, key=lambda each: float(each["difference"]))
        return (
            f"The whole gradient misleads: the accuracy under {most['attack']} through route {most['route']} is "
            f"{points(most['difference'])} points compared with both routes (95 % "
            f"{points_span(most['difference_interval'])})."
        )
    higher = [each for each in known if (each["loss_difference_interval"] or (0, 0))[0] > 0]
    if higher:
        most = max(higher, key=lambda each: float(each["loss_difference"]))
        return (
            f"No route gives a significantly lower accuracy than both. But {most['attack']} through route "
            f"{most['route']} raises the loss by {signed(most['loss_difference'])} more (95 % "
            f"{_losses(most['loss_difference_interval'])})."
        )
    return "No route breaks significantly more images than both routes together: no sign of masking."
