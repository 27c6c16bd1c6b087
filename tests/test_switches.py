"""Variables of the environment that turn something on or off: another value is refused by all that read it."""

import pytest
import torch

from shconv import capturing, cli
from shconv.errors import InputError
from shconv.ops.cpu import library
from shconv.ops.cuda import tuning
from shconv.switches import SWITCHES, switch

READ = {
    "SHCONV_COMPILED": library.kernels.__wrapped__,
    "SHCONV_GRAPHS": capturing.off,
    "SHCONV_TUNE": lambda: tuning.measures(1.0),
}


@pytest.mark.parametrize("name", SWITCHES)
def test_it_is_on_off_or_not_set(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(name, raising=False)
    assert switch(name) is None
    for value, meant in {"": None, "0": False, "1": True}.items():
        monkeypatch.setenv(name, value)
        assert switch(name) is meant


@pytest.mark.parametrize("name", SWITCHES)
def test_another_value_is_refused_by_what_reads_it_and_before_a_command_runs(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(name, "off")
    said = f"{name} is 'off' in the environment; wanted: 0 or 1"
    with pytest.raises(InputError, match=said):
        READ[name]()
    assert cli.run(["info"]) == 2
    assert capsys.readouterr() == ("", f"shconv: {said}\n")


def test_trials_are_off_and_on_by_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not torch.are_deterministic_algorithms_enabled()
    for value, few in {"0": False, "1": True}.items():
        monkeypatch.setenv("SHCONV_TUNE", value)
        assert tuning.measures(1.0) is few
