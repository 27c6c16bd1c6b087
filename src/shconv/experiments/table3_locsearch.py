"""Table 3: LocSearchAdv on pair-selected images at the fifths of its rounds; beside it the stronger "cyclic" probe
and the random-pixel control. The same searches show the quasi decision boundary of section 4.1."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import numpy as np

from shconv.attacks import LocSearchAdv, locsearch_columns, locsearch_for
from shconv.attacks.budget import distances
from shconv.experiments import quasi_boundary
from shconv.experiments.network import Network, Pair
from shconv.experiments.outcomes import Outcomes, judge
from shconv.experiments.partial import Columns
from shconv.experiments.question import Images, Index, Question, padded
from shconv.experiments.run_folder import Row
from shconv.experiments.study import Study, row_id

DEMO_SHARE = 0.12  # of the pixels: the paper's 2.3 % fool no network of the demo on any image
SEARCHED_TOGETHER = 8  # images in a unit: few, as a search is long, and a stop loses the unit under way


def searches(image_size: int, demo: bool = False) -> dict[str, LocSearchAdv]:
    """The attacks of this table by the name that its rows use; on the demo's images more pixels in fewer rounds, as a
    round's probes take the time: 12 rounds of 10 pixels at 32 x 32."""
    attack = locsearch_for(image_size, image_size)
    if demo:
        steps = max(1, attack.steps // 2)
        pixels = max(1, round(DEMO_SHARE * image_size**2 / steps))
        attack = replace(attack, steps=steps, pixels_per_step=pixels)
    return {
        "locsearch": attack,
        "locsearch_cyclic": replace(attack, probe="cyclic"),
        "locsearch_random": replace(attack, order="random"),
    }


def most_moved(study: Study, pair: Pair) -> Index:
    """(1,): of the images of Table 3 the one whose confidence the default search lowers most, in any of the pair.

    Of equals the first, and the first selected one where the searches are not in the folder; (0,) where none is.
    """
    index = study.selected(pair, study.counts.table3)
    fall = np.zeros(len(index))
    attack = searches(study.data.image_size, study.data.is_demo)["locsearch"]
    for network in pair.members:
        id = row_id("table3", network, "locsearch", attack, step=locsearch_columns(attack.steps)[-1])
        if id in study.folder.rows and len(index):
            after, before = study.folder.outcomes(id), study.clean(network)
            if np.array_equal(after["index"], index):
                clean = before.p_y[np.searchsorted(before.index, index)]
                fall = np.maximum(fall, clean - after["p_y"])
    return index[[int(fall.argmax())]] if len(index) else index


def rows(study: Study) -> Iterator[Row]:
    for network, index in study.on_selected(study.counts.table3):
        for name, attack in searches(study.data.image_size, study.data.is_demo).items():
            yield from _rows_of_search(study, network, name, attack, index)


def _rows_of_search(study: Study, network: Network, name: str, attack: LocSearchAdv, index: Index) -> Iterator[Row]:
    experiments = ("table3", "quasi_boundary") if network.is_shc else ("table3",)
    steps = locsearch_columns(attack.steps)
    ids = {(e, step): row_id(e, network, name, attack, step=step) for e in experiments for step in steps}
    question = Question(network, attack, index, SEARCHED_TOGETHER, also="every column")
    missing = {which: id for which, id in ids.items() if id not in study.folder.rows}
    if missing:
        columns, seconds = study.collected(question, partial(_searched, study, network, attack), attack.steps)
        for experiment, step in missing:
            here = {key.removeprefix(f"{step}/"): values for key, values in columns.items()}
            extra = quasi_boundary.summary(here) if experiment == "quasi_boundary" else None
            study.add(experiment, network, name, attack, Outcomes.of(here, seconds), step=step, extra=extra)
    study.forget(question)
    yield from (study.folder.rows[id] for id in ids.values())


def _searched(
    study: Study, network: Network, attack: LocSearchAdv, images: Images, advance: Callable[[], None]
) -> Columns:
    """The outcomes after each column's step, and how far the quasi decision boundary has held, as "STEP/NAME"."""
    x, y, places, n = images
    steps = locsearch_columns(attack.steps)
    result = attack.run(  # it fills its own batches with probes
        network.attacked,
        x[:n],
        y[:n],
        index=places[:n],
        seed=study.seed,
        trace_steps=steps,
        progress=lambda _: advance(),
    )
    assert result.trace is not None
    columns = {"index": places[:n].numpy()}
    for step in steps:
        current = result.trace.images[step].to(x.device)
        found = judge(study.logits(network, current, len(x)), y[:n]) | {
            "queries": result.trace.queries[:, step].numpy()
        }
        found |= {name: values.cpu().numpy() for name, values in distances(current, x[:n]).items()}
        if network.is_shc:
            moved = quasi_boundary.compare(network.model, x, padded(current, len(x)))
            found |= {name: values[:n] for name, values in moved.items()}
        columns |= {f"{step}/{name}": values for name, values in found.items()}
    return columns
