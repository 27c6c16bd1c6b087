"""What of MLflow accelerate's tracker calls: `runs` holds by id what each run was told; parameters are set once."""

from types import SimpleNamespace
from typing import Any


class Run:
    def __init__(self, experiment: str, name: str) -> None:
        self.info = SimpleNamespace(run_id=f"{len(runs):032x}")
        self.project, self.name = experiment, name
        self.settings: list[dict[str, Any]] = []
        self.rows: list[tuple[int, dict[str, float]]] = []
        self.opened = self.closed = 0


runs: dict[str, Run] = {}
current: list[Run] = []
experiments: list[str] = []
utils = SimpleNamespace(validation=SimpleNamespace(MAX_PARAM_VAL_LENGTH=6000, MAX_PARAMS_TAGS_PER_BATCH=100))


def search_experiments(filter_string: str) -> list[SimpleNamespace]:
    return [SimpleNamespace(experiment_id=name) for name in experiments if filter_string == f"name = '{name}'"]


def create_experiment(name: str, artifact_location: None, tags: None) -> str:
    experiments.append(name)
    return name


def start_run(
    run_id: str | None, experiment_id: str, run_name: str, nested: bool, tags: None, description: None
) -> Run:
    assert not current, "a run is open"
    run = Run(experiment_id, run_name) if run_id is None else runs[run_id]
    runs[run.info.run_id] = run
    run.opened += 1
    current.append(run)
    return run


def log_params(values: dict[str, Any]) -> None:
    current[-1].settings.append(values)


def log_metrics(values: dict[str, float], step: int) -> None:
    assert not {name.partition("/")[0] for name in values if "/" in name} & values.keys(), "file and folder"
    current[-1].rows.append((step, values))


def end_run() -> None:
    current.pop().closed += 1
