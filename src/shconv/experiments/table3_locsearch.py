"""Table 3: LocSearchAdv on pair-selected images at the fifths of its rounds; beside it the stronger "cyclic" probe
and the random-pixel control. The same searches show the quasi decision boundary of section 4.1."""

import time
from collections.abc import Iterator
from typing import Any

from numpy.typing import NDArray

from shconv.attacks import LocSearchAdv, locsearch_columns, locsearch_for
from shconv.attacks.base import distances
from shconv.experiments import quasi_boundary
from shconv.experiments.outcomes import concatenate, judge
from shconv.experiments.run_folder import Row
from shconv.experiments.study import Index, Network, Study, row_id

Parts = list[dict[str, NDArray[Any]]]


def searches(image_size: int) -> dict[str, LocSearchAdv]:
    """The attacks of this table by the name that its rows use."""
    return {
        "locsearch": locsearch_for(image_size, image_size),
        "locsearch_cyclic": locsearch_for(image_size, image_size, probe="cyclic"),
        "locsearch_random": locsearch_for(image_size, image_size, order="random"),
    }


def rows(study: Study) -> Iterator[Row]:
    for pair in study.pairs:
        index = study.selected(pair, study.counts.table3)
        for network in pair.members:
            for name, attack in searches(study.data.image_size).items():
                yield from _rows_of_search(study, network, name, attack, index)


def _rows_of_search(study: Study, network: Network, name: str, attack: LocSearchAdv, index: Index) -> Iterator[Row]:
    experiments = ("table3", "quasi_boundary") if network.is_shc else ("table3",)
    columns = locsearch_columns(attack.steps)
    ids = {(e, step): row_id(e, network, name, attack, step=step) for e in experiments for step in columns}
    if any(id not in study.folder.rows for id in ids.values()):
        started = time.perf_counter()
        judged, boundary = _search(study, network, name, attack, index)
        seconds = time.perf_counter() - started
        for (experiment, step), id in ids.items():
            if id not in study.folder.rows:
                extra = quasi_boundary.summary(boundary[step]) if experiment == "quasi_boundary" else None
                outcomes = concatenate(judged[step], seconds)
                study.add(experiment, network, name, attack, outcomes, step=step, extra=extra)
    yield from (study.folder.rows[id] for id in ids.values())


def _search(
    study: Study, network: Network, name: str, attack: LocSearchAdv, index: Index
) -> tuple[dict[int, Parts], dict[int, Parts]]:
    """The outcomes after each column's step, and how far the quasi decision boundary has held; batch by batch."""
    columns = locsearch_columns(attack.steps)
    judged: dict[int, Parts] = {step: [] for step in columns}
    boundary: dict[int, Parts] = {step: [] for step in columns}
    batches = -(-len(index) // study.batch_size)
    with study.progress.task(f"{name} on {network.key}", batches * attack.steps) as advance:
        for x, y, places, n in study.batches(index):
            x, y, places = x[:n], y[:n], places[:n]  # the attack fills its own batches with probes
            result = attack.run(
                network.model, x, y, index=places, seed=study.seed, trace_steps=columns, progress=lambda _: advance()
            )
            assert result.trace is not None
            for step in columns:
                current = result.trace.images[step].to(x.device)
                reached = {name: each.cpu().numpy() for name, each in distances(current, x).items()}
                spent = {"index": places.numpy(), "queries": result.trace.queries[:, step].numpy()}
                judged[step].append(judge(study.logits(network, current), y) | reached | spent)
                if network.is_shc:
                    boundary[step].append(quasi_boundary.compare(network.model, x, current))
    return judged, boundary
