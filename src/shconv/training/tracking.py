"""What a training tells wandb, MLflow or TensorBoard, through accelerate's trackers: its settings once, then numbers by
step. tracking.json in its folder says what each was told, so that a training that goes on tells nothing twice."""

import json
import os
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, get_args

from shconv.errors import InputError, first_line
from shconv.files import replace_json

TOLD, CURVES = "tracking.json", "tensorboard"
EVERY = 20  # steps between two points of a curve
TrackerName = Literal["wandb", "mlflow", "tensorboard"]


def check_trackers(names: Sequence[str]) -> None:
    """Raises InputError for a name that is none, and where its package is missing."""
    known = get_args(TrackerName)
    for name in names:
        if name not in known:
            raise InputError(f"log: there is no tracker {name!r}; choose from {', '.join(known)}")
        package = find_spec(name)
        if package is None or package.origin is None:  # a folder of that name is no package
            raise InputError(f"log {name} needs the package {name}: pip install {name}")


@dataclass
class Trackers:
    """Those that are told of the training in `folder`; none until `start`. Steps count from the training's start."""

    folder: Path
    say: Callable[[str], object] = print
    running: dict[str, Any] = field(default_factory=dict)  # by name, accelerate's
    told: dict[str, dict[str, Any]] = field(default_factory=dict)  # by name: its run's id, and the last step told

    def start(self, names: Sequence[str], settings: Mapping[str, Any]) -> None:
        """Go on with the runs that tracking.json names; a new run is told the settings.

        Raises InputError where a tracker does not start: no login, no server.
        """
        if names:
            self.told = _read(self.folder / TOLD)
        for name in dict.fromkeys(names):
            known = self.told.get(name)
            try:
                self.running[name] = _start(name, self.folder, None if known is None else known["run"])
                if known is None:
                    self.running[name].store_init_configuration(dict(_flat(settings)))
            except Exception as error:  # each package has its own
                self.finish()
                raise InputError(f"{name} does not start ({first_line(error, 200)})") from error
            if known is None:
                self._note(name, run=_run_id(name, self.running[name]), step=-1)

    def behind(self, names: Sequence[str], step: int) -> list[str]:
        """Those that were not told of this step."""
        told = _read(self.folder / TOLD) if names else {}
        return [name for name in names if name not in told or told[name]["step"] < step]

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Numbers at a step, unless that one was told. A tracker that fails is left out from here on."""
        for name, tracker in list(self.running.items()):
            if step <= self.told[name]["step"]:
                continue
            try:
                tracker.log(dict(values), step=step)
            except Exception as error:
                del self.running[name]
                self.say(
                    f"warning: {name} accepts no more data ({first_line(error, 200)}). The training continues without "
                    "it; the same command sends the missing epochs later"
                )
                continue
            self._note(name, step=step)

    def epochs(self, rows: Sequence[Mapping[str, Any]], steps: int) -> None:
        """The rows of log.jsonl, each at the last of its epoch's `steps`."""
        for row in rows:
            numbers = {key: value for key, value in row.items() if isinstance(value, int | float)}
            self.log({f"epoch/{key}": value for key, value in numbers.items()}, row["epoch"] * steps)

    def finish(self) -> None:
        """Also after an error; what a tracker complains of then is said."""
        for name, tracker in self.running.items():
            try:
                tracker.finish()
            except Exception as error:
                self.say(f"warning: {name} did not end well ({first_line(error, 200)})")
        self.running = {}

    def _note(self, name: str, **facts: Any) -> None:
        self.told[name] = self.told.get(name, {}) | facts
        replace_json(self.folder / TOLD, self.told)


def _read(file: Path) -> dict[str, dict[str, Any]]:
    try:
        told = json.loads(file.read_text()) if file.exists() else {}
        return {name: {"run": str(about["run"]), "step": int(about["step"])} for name, about in told.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{file} is damaged ({error}); without it every tracker starts a new run") from error


def _start(name: str, folder: Path, run: str | None) -> Any:
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    title = folder.resolve().name
    settings: dict[str, dict[str, Any]] = {
        "wandb": {
            "run_name": os.environ.get("WANDB_PROJECT", "shconv"),  # what accelerate calls the project
            "name": title,
            "id": run or uuid.uuid4().hex[:12],
            "resume": "allow",
        },
        "mlflow": {"experiment_name": "shconv", "run_name": title, "run_id": run},
        "tensorboard": {"run_name": CURVES, "logging_dir": str(folder)},
    }
    tracker = LOGGER_TYPE_TO_CLASS[name](**settings[name])
    tracker.start()
    return tracker


def _run_id(name: str, tracker: Any) -> str:
    run = tracker.tracker
    return str(run.id if name == "wandb" else run.info.run_id if name == "mlflow" else CURVES)


def _flat(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """("recipe.epochs", 30): plain values, as trackers take them."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{key}.")
        elif value is not None:
            yield above + key, value if isinstance(value, bool | int | float | str) else str(value)
