"""`shconv.evaluate`: any networks, any images, any attacks, measured as the paper's tables are.
Here is what it accepts; `experiments` does the work, and `results` says what came of it."""

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from inspect import signature
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from shconv import numbers
from shconv.arguments import checked
from shconv.attacks import Attack
from shconv.attacks.base import borrowed
from shconv.attacks.checks import check_count
from shconv.attacks.foreign import as_attack
from shconv.data import ImageData
from shconv.data.given import as_data, fingerprint
from shconv.devices import device_named
from shconv.errors import InputError
from shconv.experiments import own_attacks
from shconv.experiments.network import ALL_ROUTES, Network, Pair
from shconv.experiments.paper import run_paper
from shconv.experiments.progress import ExperimentProgress
from shconv.experiments.question import Index
from shconv.experiments.run_folder import Asked, RunFolder
from shconv.experiments.selection import drawn
from shconv.experiments.study import Counts, Study
from shconv.models import all_models
from shconv.pretrained import load_network
from shconv.results import Results

Model = nn.Module | str | Path
DEMO_COUNTS = Counts(2_000, 250, 8)  # of the paper's tables, where `images` says nothing


@checked
def evaluate(
    models: Model | Mapping[str, Model],
    data: Any,
    attacks: Mapping[str, Any] | None = None,
    *,
    twin: Model | None = None,
    images: int | None = None,
    selection: Literal["confident"] | Sequence[int] | None = None,
    routes: Sequence[str] = ("both",),
    seed: int = 0,
    batch_size: int = 128,
    device: torch.device | str | None = None,
    folder: str | Path | None = None,
    keep: bool = False,
    progress: bool = True,
) -> Results:
    """Attack networks and judge every adversarial image by a new forward pass.

    Example:
        ```python
        attacks = {"PGD": shconv.attacks.PGD("8/255")}
        results = shconv.evaluate(model, (images, labels), attacks)
        results.print()
        ```

    Args:
        models: a network from images (N, C, H, W) in [0, 1] to logits (N, K), a folder that shconv wrote, or several by
            name. Networks are moved to the device; their mode and flags are restored.
        data: (images, labels), a torch Dataset or DataLoader of (image, label), a Hugging Face dataset, or words such
            as "folder:PATH": see `shconv.data.given.as_data`.
        attacks: attacks by name: ours, attack objects of foolbox, torchattacks, ART and pyautoattack, any function
            f(model, images, labels) -> adversarial images, or what `create_attack` knows, such as "pgd". None: the
            paper's, Tables 1 to 4.
        twin: a network to pair with the single model, as in the paper.
        images: number of images, drawn with `seed`; None uses all (for the paper's tables 2,000, 250 and 8).
        selection: "confident" uses images that all networks classify correctly with confidence above 0.9; a sequence of
            places in the data uses these. Not for the paper's tables, which have their own selection.
        routes: the gradient routes to attack SHC networks through; networks without SHC layers only have "both".
        seed: of the attacks' random numbers and of the choice of images.
        batch_size: all batches have this size.
        device: by default that of the first network; for folders the accelerator if there is one.
        folder: stores everything there as a run folder; the same call continues a stopped run.
        keep: store the adversarial images too.
        progress: show bars and a line for each row on standard error.

    Returns:
        Results: rows and images as DataFrames, worst cases, comparisons.

    Raises:
        InputError: networks, images, labels or attacks that cannot be used; a folder that holds another run.
    """
    images, seed, batch_size = numbers.plain(images), numbers.plain(seed), numbers.plain(batch_size)
    check_count("batch_size", batch_size, 1)
    check_count("seed", seed, 0)
    if images is not None:
        check_count("images", images, 1)
    if unknown := [route for route in routes if route not in ALL_ROUTES]:
        raise InputError(f"routes: got {unknown[0]!r}; want some of {', '.join(ALL_ROUTES)}")
    given = as_data(data)
    networks = _networks(models, twin)
    asked = None if attacks is None else _attacks(attacks)
    place = _device(device, networks)
    chosen = _chosen(selection, len(given.test), images, seed)
    with ExitStack() as stack:
        where = Path(folder) if folder is not None else Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for network in networks:
            stack.enter_context(borrowed(network.model.to(place)))
        show = ExperimentProgress(progress)
        for warning in own_attacks.check_fit(networks, given, place):
            show.say(warning)
        held = stack.enter_context(RunFolder.opened(where))
        _settle(held, given, asked, images, selection, routes, seed, batch_size)
        study = Study(
            held,
            given,
            (Pair(tuple(networks)),),
            _counts(images, len(given.test), asked is None),
            batch_size,
            place,
            show,
            seed,
            keep=keep,
            chosen=chosen,
        )
        if asked is None:
            run_paper(study)
        else:
            confident = isinstance(selection, str)
            own_attacks.run_own(study, asked, routes, confident=confident, most=images)
        results = Results.load(where)
        return results if folder is not None else results.in_memory()


def _networks(models: Model | Mapping[str, Model], twin: Model | None) -> list[Network]:
    """The networks by name; a twin stands before its SHC network, as in the paper's pairs."""
    several = dict(models) if isinstance(models, Mapping) else {"": models}
    if not several:
        raise InputError("models: got none; want at least one network")
    if twin is not None and len(several) > 1:
        raise InputError(f"twin: got a twin with {len(several)} models; want a single model")
    networks = [_network(name, model) for name, model in several.items()]
    if twin is not None:
        first, other = networks[0], _network("", twin)
        base = first.name.removesuffix("_shc")
        if first.is_shc and not other.is_shc:
            networks = [replace(other, name=base, seed=first.seed), replace(first, name=f"{base}_shc")]
        elif other.is_shc and not first.is_shc:
            networks = [replace(first, name=base), replace(other, name=f"{base}_shc", seed=first.seed)]
        else:
            networks = [first, replace(other, name=f"{first.name}-twin", seed=first.seed)]
    return networks


def _network(name: str, model: Model) -> Network:
    if "/" in name:
        raise InputError(f"models: got the name {name!r}; want one without a slash")
    if isinstance(model, nn.Module):
        return Network(name or "model", 0, model)
    if isinstance(model, str) and model in all_models() and not Path(model).exists():
        raise InputError(f"models: got the name {model!r}; want its folder after training, or the network itself")
    if isinstance(model, str | Path):
        network, config, info = load_network(model)
        number = info.get("seed", 0)
        return Network(name or config.name, number if type(number) is int and number >= 0 else 0, network)
    raise InputError(f"models: got {type(model).__name__}; want a torch.nn.Module or a folder")


def _attacks(attacks: Mapping[str, Any]) -> dict[str, Attack]:
    if not isinstance(attacks, Mapping) or not attacks:
        raise InputError(f"attacks: got {attacks!r}; want them by name, as in {{'pgd': shconv.attacks.PGD('8/255')}}")
    if wrong := [name for name in attacks if not isinstance(name, str) or not name or "/" in name or name == "clean"]:
        raise InputError(f"attacks: got the name {wrong[0]!r}; want words without a slash, and not 'clean'")
    return {name: as_attack(attack) for name, attack in attacks.items()}


def _device(device: torch.device | str | None, networks: Sequence[Network]) -> torch.device:
    if isinstance(device, torch.device) or (device is not None and (device := device_named(device)) is not None):
        return device
    first = next(networks[0].model.parameters(), None)
    return torch.device("cpu") if first is None else first.device


def _chosen(selection: Any, n: int, images: int | None, seed: int) -> Index | None:
    """The places that a sequence names, the first `images` of their seeded shuffle, sorted; None for no sequence."""
    if selection is None or (isinstance(selection, str) and selection == "confident"):
        return None
    places = np.unique(np.asarray(() if isinstance(selection, str) else selection))
    if not len(places) or places.dtype.kind not in "iu" or places[0] < 0 or places[-1] >= n:
        raise InputError(f'selection: got {selection!r:.80}; want "confident" or places from 0 to {n - 1}')
    return np.asarray(places[drawn(len(places), images, seed)], np.int64)


def _settle(
    held: RunFolder,
    data: ImageData,
    attacks: Mapping[str, Attack] | None,
    images: int | None,
    selection: Any,
    routes: Sequence[str],
    seed: int,
    batch_size: int,
) -> None:
    """Store what the rows rest on; raises InputError where the folder holds another run."""
    chosen = selection if selection is None or isinstance(selection, str) else [int(place) for place in selection]
    asked = {"images": images, "selection": chosen, "routes": list(routes), "seed": seed, "batch_size": batch_size}
    usual = {name: each.default for name, each in signature(evaluate).parameters.items() if name in asked}
    held.settle(Asked({"command": "shconv.evaluate", **asked}, usual))
    own_attacks.settle_attacks(held, attacks or {})
    about = {"name": data.name, "classes": data.classes, "image_size": data.image_size, "note": data.note}
    about |= fingerprint(data)
    counts = {"train_images": 0, "test_images": len(data.test), "skipped": data.skipped}
    held.settle_json("data.json", {**about, **counts}, grows=True)


def _counts(images: int | None, n: int, of_the_paper: bool) -> Counts:
    if images is not None:
        return Counts(images, images, min(images, DEMO_COUNTS.table3) if of_the_paper else images)
    return DEMO_COUNTS if of_the_paper else Counts(n, n, n)
