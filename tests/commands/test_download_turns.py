"""With --download the processes of a run load their images in turn, so that one fetches what the others find."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from shconv.commands import running
from shconv.commands.train import Train
from shconv.experiments.progress import ExperimentProgress
from shconv.processes import Processes
from toys import colour_data


@pytest.mark.parametrize("download", [True, False])
def test_they_take_turns_where_something_may_be_downloaded(monkeypatch, download):
    happened: list[str] = []

    class Watched(Processes):
        @contextmanager
        def in_turn(self) -> Iterator[None]:
            happened.append("my turn")
            yield
            happened.append("the next")

    def load_data(spec: str, **settings: object) -> object:
        happened.append(f"{spec}, download {settings['download']}")
        return colour_data()

    monkeypatch.setattr("shconv.commands.options.load_data", load_data)
    options = Train(data="cifar10", download=download)
    running.load(options, Watched(), ExperimentProgress(False), want_train=True)
    loaded = f"cifar10, download {download}"
    assert happened == (["my turn", loaded, "the next"] if download else [loaded])


@pytest.mark.parametrize("command", ["train", "reproduce", "evaluate"])
def test_every_command_of_several_processes_loads_that_way(shconv, finished, monkeypatch, command):
    class Loaded(Exception):  # noqa: N818
        pass

    def load(*_: object, **__: object) -> None:
        raise Loaded

    room = "networks" if command == "evaluate" else command
    monkeypatch.setattr(f"shconv.commands.{room}.load", load)
    with pytest.raises(Loaded):
        shconv(command, *([finished / "models" / "plain10-seed0"] if command == "evaluate" else []))
