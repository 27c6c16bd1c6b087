"""shconv info: versions, device, and what there is to choose from."""

from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Any

import torch
from rich.table import Column, Table

import shconv
from shconv.attacks import create_attack, list_attacks
from shconv.devices import available
from shconv.models.registry import MATCHED
from shconv.models.shapes import shapes_only
from shconv.numbers import radius_text
from shconv.ops import FORMULATIONS
from shconv.relatives import RELATIVES
from shconv.terminal import console
from shconv.training import RECIPES


@dataclass(frozen=True)
class Info:
    """Print versions, the device, the networks and the layers with their parameters, the attacks and the recipes."""

    def run(self) -> None:
        out = console()
        out.print(
            f"shconv {shconv.__version__}, torch {torch.__version__}, {_triton()}, devices {' '.join(available())}, "
            f"{torch.get_num_threads()} threads, formulations {', '.join(FORMULATIONS)}"
        )
        out.print(_networks(), _relatives(), _attacks(), _recipes())


def _triton() -> str:
    """Without it there are no kernels for a GPU."""
    try:
        return f"triton {metadata.version('triton')}"
    except metadata.PackageNotFoundError:
        return "no triton"


def _networks() -> Table:
    headings = _name("network"), "parameters", "growth", "vanilla width with as many parameters"
    table = Table(*headings, title="Networks (width 64, 1000 classes)")
    with shapes_only():
        networks = {name: shconv.create_model(name) for name in shconv.list_models()}
    counts = {name: sum(p.numel() for p in network.parameters()) for name, network in networks.items()}
    for name, count in counts.items():
        vanilla = counts[name.removesuffix("_shc")]
        grown = (f"+{count / vanilla - 1:.1%}", str(shconv.models.matched_width(name))) if count > vanilla else ("", "")
        table.add_row(name, f"{count:,}", *grown)
    return table


def _relatives() -> Table:
    """Any vanilla network has these; sizes are Plain-10's."""
    title = "Networks with other layers: for resnet18 and resnet50 too, such as resnet18_se"
    table = Table(_name("network"), _name("layer"), "parameters", "growth", title=title, caption_justify="left")
    with shapes_only():
        names = [name for name in shconv.models.all_models() if name.startswith("plain10")]
        counts = {name: sum(p.numel() for p in shconv.create_model(name).parameters()) for name in names}
    vanilla = counts["plain10"]
    for suffix, kind in RELATIVES.items():
        count = counts[f"plain10_{suffix}"]
        table.add_row(f"plain10_{suffix}", kind.__name__, f"{count:,}", f"{count / vanilla - 1:+.1%}")
    name = f"plain10_{MATCHED}"
    table.add_row(name, "Conv2d", f"{counts[name]:,}", f"{counts[name] / vanilla - 1:+.1%}")
    about = {suffix: kind.source for suffix, kind in RELATIVES.items()}
    about[MATCHED] = "the vanilla network, widened to the parameters of the SHC network"
    table.caption = "\n".join(f"{suffix}: {source}" for suffix, source in about.items())
    return table


def _attacks() -> Table:
    table = Table(_name("attack"), _name("class"), "settings", title="Attacks (images in [0, 1])")
    for name in list_attacks():
        attack = create_attack(name)
        table.add_row(name, type(attack).__name__, _settings(asdict(attack)))
    return table


def _recipes() -> Table:
    table = Table(_name("recipe"), "settings", title="Training recipes")
    for name, recipe in RECIPES.items():
        table.add_row(name, _settings(asdict(recipe)))
    return table


def _name(heading: str) -> Column:
    """Of names that are to be copied: a narrow terminal breaks the other columns."""
    return Column(heading, no_wrap=True)


def _settings(values: dict[str, Any]) -> str:
    shown = {name: radius_text(value) if isinstance(value, float) else value for name, value in values.items()}
    return ", ".join(f"{name}={value}" for name, value in shown.items())
