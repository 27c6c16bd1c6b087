"""What of wandb accelerate's tracker calls: `runs` holds by id what each run was told, as wandb keeps it."""

from typing import Any


class Run:
    def __init__(self, project: str, name: str, id: str) -> None:
        self.project, self.name, self.id = project, name, id
        self.settings: list[dict[str, Any]] = []
        self.rows: list[tuple[int, dict[str, float]]] = []
        self.opened = self.closed = 0

    def log(self, values: dict[str, float], step: int) -> None:
        assert not refuses, "no connection"
        self.rows.append((step, values))

    def finish(self) -> None:
        self.closed += 1


class Config:
    def update(self, values: dict[str, Any], allow_val_change: bool) -> None:
        current[-1].settings.append(values)


runs: dict[str, Run] = {}
current: list[Run] = []
refuses: list[bool] = []
config = Config()


def init(project: str, name: str, id: str, resume: str) -> Run:
    assert resume == "allow"
    run = runs.setdefault(id, Run(project, name, id))
    run.opened += 1
    current.append(run)
    return run
