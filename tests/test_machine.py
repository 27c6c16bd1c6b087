"""How busy other programs keep the machine, from made-up readings of the system's clocks."""

import pytest

from shconv import machine
from shconv.machine import Others


@pytest.mark.parametrize(("busy", "own", "cores"), [(13.0, 2.0, 1.1), (4.0, 4.0, 0.0), (3.0, 4.0, 0.0)])
def test_cores_of_others_are_what_is_busy_and_not_ours(
    monkeypatch: pytest.MonkeyPatch, busy: float, own: float, cores: float
) -> None:
    readings = {"_busy": iter([0.0, busy]), "_own": iter([0.0, own])}
    for name, values in readings.items():
        monkeypatch.setattr(machine, name, lambda values=values: next(values))
    clock = iter([0.0, 10.0])
    monkeypatch.setattr(machine.time, "monotonic", lambda: next(clock))
    assert Others().cores() == pytest.approx(cores)


def test_the_load_stands_for_it_where_the_system_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_busy", lambda: None)
    monkeypatch.setattr(machine.os, "getloadavg", lambda: (2.5, 1.0, 1.0))
    assert Others().cores() == pytest.approx(1.5)
    monkeypatch.delattr(machine.os, "getloadavg")
    assert Others().cores() is None
