"""shconv info: versions, device, and what there is to choose from."""

from dataclasses import asdict, dataclass, fields
from importlib import metadata

import torch
from rich.table import Table

import shconv
from shconv.attacks import create_attack, list_attacks
from shconv.devices import available
from shconv.models.registry import MATCHED
from shconv.models.shapes import shapes_only
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
    table = Table(
        "network", "parameters", "growth", "vanilla width of equal size", title="Networks (width 64, 1000 classes)"
    )
    with shapes_only():
        networks = {name: shconv.create_model(name) for name in shconv.list_models()}
    counts = {name: sum(p.numel() for p in network.parameters()) for name, network in networks.items()}
    for name, count in counts.items():
        vanilla = counts[name.removesuffix("_shc")]
        grown = (f"+{count / vanilla - 1:.1%}", str(shconv.models.matched_width(name))) if count > vanilla else ("", "")
        table.add_row(name, f"{count:,}", *grown)
    return table


def _relatives() -> Table:
    """What can stand behind a vanilla network's name; sizes are Plain-10's."""
    table = Table("network", "layer", "parameters", "growth", "source", title="Other networks: behind any vanilla name")
    with shapes_only():
        names = [name for name in shconv.models.all_models() if name.startswith("plain10")]
        counts = {name: sum(p.numel() for p in shconv.create_model(name).parameters()) for name in names}
    vanilla = counts["plain10"]
    for suffix, kind in RELATIVES.items():
        count = counts[f"plain10_{suffix}"]
        table.add_row(f"plain10_{suffix}", kind.__name__, f"{count:,}", f"{count / vanilla - 1:+.1%}", kind.source)
    name = f"plain10_{MATCHED}"
    about = "vanilla, widened to the parameters of plain10_shc"
    table.add_row(name, "Conv2d", f"{counts[name]:,}", f"{counts[name] / vanilla - 1:+.1%}", about)
    return table


def _attacks() -> Table:
    table = Table("attack", "class", "hyper-parameters", title="Attacks (images in [0, 1])")
    for name in list_attacks():
        attack = create_attack(name)
        settings = ", ".join(f"{key}={value}" for key, value in asdict(attack).items())
        table.add_row(name, type(attack).__name__, settings)
    return table


def _recipes() -> Table:
    table = Table("recipe", "settings", title="Training recipes")
    for name, recipe in RECIPES.items():
        table.add_row(name, ", ".join(f"{field.name}={getattr(recipe, field.name)}" for field in fields(recipe)))
    return table
