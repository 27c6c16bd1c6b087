"""Tables 1 to 4 of the paper from a run's rows: the paper's number and ours in every cell, "not run" included.
Beside them what the paper leaves out: the untargeted objective, the worst case per image, the controls of Table 3."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from shconv.report.computed.worst_case import OBJECTIVES, THREATS, worst_case_cell
from shconv.report.folder.rows import Row
from shconv.report.folder.run import Run
from shconv.report.numbers import NO_IMAGES
from shconv.report.output.cells import Cell, Column, Line, Table
from shconv.report.paper import results
from shconv.report.paper.results import ATTACKS, OBJECTIVE_NAMES, SEARCHES, attacked, by_route, rounds, search_rows
from shconv.report.paper.selections import clean_images, read_selections, selected
from shconv.report.published import STEPS, is_shc, network_name, twin

WORST_CASE = "worst case"
OWN_ROUTES = "worst case, own routes too"
# (route, what follows the network's name, what it is); the paper's names
ROUTE_VARIANTS = (
    ("both", "", "both routes"),
    ("hypernetwork", "-T", "hypernetwork route"),
    ("convolution", "-W", "convolution route"),
    ("strict", "-T", "hypernetwork route, strict"),
)

OBJECTIVE_NOTE = (
    "The paper's equations step in the wrong direction for both losses that they name. We read them as the "
    "least-likely objective, so the paper's numbers are shown there. The untargeted objective is ours."
)
SEEDS = (
    "For several seeds: the mean ± the standard deviation over the seeds, and a 95 % interval from the lowest to the "
    "highest end of the seeds' intervals. 3 × 200 images means 200 for each of three seeds. The CSV file has each seed."
)


def paper_tables(run: Run) -> tuple[Table, ...]:
    """Tables 1 to 4, in the paper's order."""
    tables = (table1(run), table2(run), table3(run), table4(run))
    return tuple(
        replace(
            table,
            notes=(*table.notes, SEEDS) if _several_seeds(table) else table.notes,
            comparable=run.data.is_imagenet,
        )
        for table in tables
    )


def _several_seeds(table: Table) -> bool:
    return any(len(cell.scores) > 1 for line in table.lines for cell in line.cells)


def table1(run: Run) -> Table:
    """Clean accuracy, then accuracy / RCD under Gaussian noise."""
    sigmas = results.sigmas(run)
    return Table(
        name="table1",
        title="Table 1. Gaussian noise",
        caption=f"Accuracy in per cent / mean RCD {clean_images(run)}. Noise is clipped to ±0.1 by default: the paper "
        "gives no bound, and its numbers are not possible without one.",
        columns=(Column("clean", ""), *(Column("Gaussian", f"σ {sigma:g}") for sigma in sigmas)),
        lines=_lines(
            run, lambda model: (results.clean(run, model), *(results.noisy(run, model, sigma) for sigma in sigmas))
        ),
    )


def table2(run: Run) -> Table:
    """Gradient attacks through both routes, both objectives; then the worst case per image of each threat model."""

    def cells(model: str) -> Iterator[Cell]:
        for attack in ATTACKS:
            for objective in OBJECTIVES:
                yield attacked(run, model, attack, objective)
        for own in (False, True):
            for threat in THREATS:
                yield worst_case_cell(run, model, threat, own)

    return Table(
        name="table2",
        title="Table 2. Gradient attacks, and the worst case",
        caption=f"Accuracy in per cent / mean RCD. {selected(run)} The attack takes the gradient through both routes. "
        f"{OBJECTIVE_NOTE} The last columns are the worst case per image: it is correct only if no attack of that "
        "budget fools the network. The first three are over the same attacks for every network: both objectives "
        "through both routes. The last three add an SHC network's own gradient routes, which its twin does not have.",
        columns=(
            *(Column(name, OBJECTIVE_NAMES[objective]) for name in ATTACKS.values() for objective in OBJECTIVES),
            *(Column(group, threat.name) for group in (WORST_CASE, OWN_ROUTES) for threat in THREATS),
        ),
        lines=_emptied(run, _lines(run, cells)),
        notes=tuple(_selection_notes(run, "table2", 5000)),
    )


def table3(run: Run) -> Table:
    """LocSearchAdv at fifths of its rounds, the cyclic probe and the random-pixel control under it."""
    lines = []
    for model in _networks(run):
        for attack, variant in SEARCHES.items():
            if attack == "locsearch" or any(search_rows(run, model, other) for other in SEARCHES):
                cells = tuple(results.searched(run, model, attack).values())
                lines.append(Line(model, network_name(model), variant, cells))
    return Table(
        name="table3",
        title="Table 3. LocSearchAdv",
        caption=f"Accuracy in per cent / mean RCD after each fifth of the search. {selected(run)} The default scores a "
        "pixel by a fixed probe, as the paper's source does. The cyclic probe scores it by the real next step. "
        f"The control perturbs random pixels. A weak search makes a defence look good.{_searched_share(run)}",
        columns=tuple(_step_column(run, fifth) for fifth in range(1, 6)),
        lines=_emptied(run, lines),
        notes=tuple(_selection_notes(run, "table3", 500)),
    )


def _searched_share(run: Run) -> str:
    """How much of an image the search may change, where the rows say."""
    side = run.data.image_size or 0
    counts = {
        (pixels or 0) * (rounds(row) or 0)
        for row in run.rows
        if row.experiment == "table3" and (pixels := row.parameter("pixels_per_step"))
    }
    if not side or len(counts) != 1:
        return ""
    return f" It changes at most {100 * counts.pop() / side**2:.1f} % of the pixels; the paper's, 2.3 %."


def table4(run: Run) -> Table:
    """RAND+FGSM with the gradient of both routes, and of each alone."""
    held = {row.model for row in run.rows if row.attack == "rand_fgsm" and _by_route(row)}
    lines = []
    for vanilla in dict.fromkeys(twin(model) for model in run.models if model in held):
        for model in (name for name in (vanilla, f"{vanilla}_shc") if name in run.models):
            for route, suffix, variant in ROUTE_VARIANTS[: 4 if is_shc(model) else 1]:
                cells = tuple(by_route(run, model, objective, route) for objective in OBJECTIVES)
                if route != "strict" or any(cell.scores for cell in cells):
                    lines.append(Line(model, network_name(model) + suffix, variant, cells))
    return Table(
        name="table4",
        title="Table 4. RAND+FGSM by gradient route",
        caption="Accuracy in per cent / mean RCD of the whole network on examples made with a part of its gradient. "
        f"{selected(run)} SHC-T: hypernetwork route only. SHC-W: convolution route only, filter maps held constant. "
        "Strict: only paths through at least one filter map. Where SHC-W is below SHC, the hypernetwork route masks "
        "the gradient.",
        columns=tuple(Column("RAND+FGSM", OBJECTIVE_NAMES[objective]) for objective in OBJECTIVES),
        lines=_emptied(run, lines),
        notes=tuple(_selection_notes(run, "table4", 5000)),
    )


def _by_route(row: Row) -> bool:
    return row.experiment == "table4" or row.route not in (None, "both")


def _lines(run: Run, cells: Callable[[str], Iterable[Cell]]) -> tuple[Line, ...]:
    return tuple(Line(model, network_name(model), "", tuple(cells(model))) for model in _networks(run))


def _networks(run: Run) -> list[str]:
    """All that have rows, so that what an experiment left out shows as not run."""
    held = {row.model for row in run.rows}
    return [model for model in run.models if model in held]


def _step_column(run: Run, fifth: int) -> Column:
    """The paper's steps are fifths of 150, ours of as many as the run took: both, where they differ on its data."""
    steps = {
        f"{row.step} of {rounds(row) or '?'}"
        for model in _networks(run)
        for attack in SEARCHES
        for row in search_rows(run, model, attack).get(fifth, {}).values()
    }
    published = f"{STEPS[fifth - 1]} of {STEPS[-1]}"
    if steps <= {published}:
        return Column(f"step {STEPS[fifth - 1]}", "")
    ours = f"step {' or '.join(sorted(steps)) or f'{fifth}/5'}"
    return Column(ours, f"paper: {published}" if run.data.is_imagenet else "", f"step {published}")


def _emptied(run: Run, lines: Iterable[Line]) -> tuple[Line, ...]:
    """The lines, where no image was selected for a network with cells that say so."""
    found: dict[str, int] = {}
    for each in run.selections:
        for model in each.pair:
            found[model] = max(each.found, found.get(model, 0))
    return tuple(
        replace(line, cells=tuple(each if each.scores else replace(each, none=NO_IMAGES) for each in line.cells))
        if found.get(line.model) == 0
        else line
        for line in lines
    )


def _selection_notes(run: Run, experiment: str, enough: int) -> Iterator[str]:
    counts = {row.n for row in run.rows if row.experiment == experiment and row.n}
    few = [each for each in run.selections if each.found < each.wanted and (not counts or each.found in counts)]
    found = dict.fromkeys((each.pair, each.seed, each.found, each.wanted, each.min_confidence) for each in few)
    for pair, seed, images, wanted, least in found:
        if images < enough or not run.data.is_imagenet:
            names = " and ".join(network_name(model) for model in pair)
            asked = f"the paper's are {enough:,}" if run.data.is_imagenet else f"asked for were {wanted:,}"
            yield f"{names}, seed {seed}: {images:,} images have confidence > {least:g}; {asked}."
    yield from (said.text for said in read_selections(run, counts) if said.alarm)
