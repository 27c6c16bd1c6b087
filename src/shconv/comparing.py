"""`shconv.compare`: runs, audits, checkpoints and modules on the same images, in one table."""

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import nn

from shconv.arguments import checked
from shconv.attacks import Attack, create_attack
from shconv.errors import InputError
from shconv.evaluation import evaluate
from shconv.results import Results
from shconv.results.audits import audited
from shconv.results.comparison import Comparison
from shconv.results.measures import Measures

Given = Results | nn.Module | str | Path


@checked
def compare(
    networks: Sequence[Given] | Mapping[str, Given],
    data: Any = None,
    attacks: Mapping[str, Any] | None = None,
    *,
    eps: float | str = "8/255",
    baseline: str | None = None,
    images: int | None = None,
    seed: int = 0,
    batch_size: int = 128,
    device: torch.device | str | None = None,
    folder: str | Path | None = None,
    progress: bool = True,
) -> Comparison:
    """Compare networks on the same images: clean, under each attack and in the worst case, with a paired test.

    Example:
        ```python
        networks = {"plain": plain, "shc": shc}
        table = shconv.compare(networks, (images, labels), baseline="plain").table()
        ```

    Args:
        networks: results of `shconv.evaluate`, folders of runs and audits, checkpoint folders, and modules, in any
            combination; by name, as {"mine": model}, if there are modules.
        data: images for checkpoints and modules, as for `shconv.evaluate`. If runs are given, their images are used.
        attacks: for checkpoints and modules, as for `shconv.evaluate`. None: FGSM and PGD with 50 steps, both
            untargeted, within `eps`.
        baseline: the name of the network that the others are tested against.
        images: number of images, drawn with `seed`; None uses all, or those of the runs.
        folder: stores what is evaluated, as a run folder.

    Returns:
        Comparison: `.table()` is a DataFrame, `.save(folder)` writes page, CSV, Markdown, LaTeX and SVG.

    Raises:
        InputError: fewer than two networks, runs on other images or data, networks without a common budget.
    """
    named = dict(networks) if isinstance(networks, Mapping) else {str(i): each for i, each in enumerate(networks)}
    stored: list[Results | str | Path] = []
    fresh: dict[str, nn.Module | str | Path] = {}
    for name, each in named.items():
        if isinstance(each, Results) or (isinstance(each, str | Path) and is_run(each)):
            stored.append(each)
        else:
            fresh[name] = each
    with ExitStack() as stack:
        if fresh:
            if data is None:
                raise InputError(f"compare: {len(fresh)} of the networks have to be evaluated; want data")
            place = folder or stack.enter_context(tempfile.TemporaryDirectory())
            selection = common_places(stored) if images is None else None
            results = evaluate(
                {name if isinstance(networks, Mapping) else _name(each): each for name, each in fresh.items()},
                data,
                default_attacks(eps) if attacks is None else attacks,
                images=images,
                selection=selection,
                seed=seed,
                batch_size=batch_size,
                device=device,
                folder=place,
                progress=progress,
            )
            stored.append(results.in_memory())
        return Comparison.of(stored, baseline)


@checked
def default_attacks(eps: float | str = "8/255") -> dict[str, Attack]:
    """FGSM and PGD with 50 steps, both untargeted."""
    return {
        "fgsm": create_attack("fgsm_untargeted", eps=eps),
        "pgd": create_attack("pgd", eps=eps, steps=50),
    }


def is_run(path: str | Path) -> bool:
    """Is it the folder of a run or audit?"""
    return (Path(path) / "rows.jsonl").is_file()


def common_places(runs: Sequence[Results | str | Path]) -> list[int] | None:
    """The places of the images that the first run or audit was attacked on; None where there is no run."""
    for run in runs:
        results = run if isinstance(run, Results) else Results.load(run)
        measures = Measures(results.records, results.outcomes)
        for threat in reversed(measures.threats):
            for network in measures.networks:
                right = measures.right(network, threat)
                if right is not None and len(right[0]):
                    return [int(place) for place in right[0]]
        if not isinstance(run, Results):
            for each in audited(Path(run)):
                return [int(place) for place in each.measures["clean"][0]]
    return None


def _name(given: nn.Module | str | Path) -> str:
    """Of a network without one: its folder's, or its class's."""
    return type(given).__name__ if isinstance(given, nn.Module) else Path(str(given)).resolve().name
