"""What a run measured in each experiment of the paper, as cells with the paper's number beside them; and what attacks,
objectives and routes are called."""

from shconv.report import published
from shconv.report.computed.compare import Comparison, compare
from shconv.report.folder.rows import Row, by_seed
from shconv.report.folder.run import Run
from shconv.report.output.cells import Cell

ATTACKS = {"fgsm": "FGSM", "fgsm_heavy": "FGSM-Heavy", "ifgsm": "I-FGSM", "rand_fgsm": "RAND+FGSM"}
OBJECTIVE_NAMES = {"least_likely": "least-likely", "untargeted": "untargeted"}
SEARCHES = {
    "locsearch": "LocSearchAdv",
    "locsearch_cyclic": "LocSearchAdv, cyclic probe",
    "locsearch_random": "control: random pixels",
}
ATTACK_NAMES = {"clean": "clean", "gaussian": "Gaussian noise", **ATTACKS, **SEARCHES}


def clean(run: Run, model: str) -> Cell:
    """Table 1."""
    return Cell.of(run, run.find("table1", model, "clean"), published.TABLE1.get(model, (None,))[0])


def noisy(run: Run, model: str, sigma: float) -> Cell:
    """Table 1, Gaussian noise."""
    numbers = dict(zip(published.SIGMAS, published.TABLE1.get(model, ())[1:], strict=False))
    return Cell.of(run, run.find("table1", model, "gaussian", sigma=sigma), numbers.get(sigma))


def sigmas(run: Run) -> list[float]:
    """The noise of Table 1: the paper's and the run's."""
    found = [row.parameter("sigma") for row in run.rows if (row.experiment, row.attack) == ("table1", "gaussian")]
    return sorted({*published.SIGMAS, *(sigma for sigma in found if sigma is not None)})


def attacked(run: Run, model: str, attack: str, objective: str) -> Cell:
    """Table 2: the gradient of both routes. The paper's numbers stand by the least-likely objective."""
    numbers = dict(zip(published.TABLE2_ATTACKS, published.TABLE2.get(model, ()), strict=False))
    paper = numbers.get(attack) if objective == "least_likely" else None
    return Cell.of(run, run.find("table2", model, attack, objective, "both"), paper)


def by_route(run: Run, model: str, objective: str, route: str, attack: str = "rand_fgsm") -> Cell:
    """Table 4's rows, else Table 2's, which runs the same attacks."""
    paper = published.TABLE4.get((model, route)) if (attack, objective) == ("rand_fgsm", "least_likely") else None
    rows = [run.find(table, model, attack, objective, route) for table in ("table2", "table4")]
    return Cell.of(run, rows[0] | rows[1], paper)


def blocked(run: Run, model: str, objective: str) -> Comparison | None:
    """RAND+FGSM through the convolution route alone beside both routes: lower where the gradient is masked."""
    return compare(*(by_route(run, model, objective, route) for route in ("both", "convolution")))


def searched(run: Run, model: str, attack: str = "locsearch") -> dict[int, Cell]:
    """Table 3, after each fifth of the rounds, 1 to 5."""
    numbers = published.TABLE3.get(model) if attack == "locsearch" else None
    rows = search_rows(run, model, attack)
    return {fifth: Cell.of(run, rows.get(fifth, {}), numbers[fifth - 1] if numbers else None) for fifth in range(1, 6)}


def search_rows(run: Run, model: str, attack: str) -> dict[int, dict[int, Row]]:
    """Rows of a LocSearchAdv run: the fifth of its rounds (1 to 5) -> seed -> row."""
    rows = [row for row in run.rows if (row.experiment, row.model, row.attack) == ("table3", model, attack)]
    found: dict[int, list[Row]] = {}
    for row in rows:
        if row.step:
            total = rounds(row) or max(other.step or 0 for other in rows if other.seed == row.seed)
            found.setdefault(min(5, max(1, round(5 * row.step / total))), []).append(row)
    return {fifth: by_seed(rows) for fifth, rows in sorted(found.items())}


def rounds(row: Row) -> int | None:
    """R, the number of rounds of a LocSearchAdv row, where its parameters say."""
    steps = row.parameter("steps")
    return int(steps) if steps else None
