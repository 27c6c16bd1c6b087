"""The memory of a training step, measured in processes of their own."""

import sys
from dataclasses import replace

import pytest

from shconv.rivals.prices import Trial, peaks

TRIAL = Trial("plain10", "none", 4, "small", 16, 32, 16, "cpu")


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory on the CPU is measured on Linux only")
def test_a_step_on_more_images_holds_more_and_one_that_fails_is_not_known() -> None:
    trials = {"few": TRIAL, "many": replace(TRIAL, batch=64), "none": replace(TRIAL, model="plain11")}
    held = peaks(trials)
    assert held["none"] is None
    assert held["many"] > 2 * held["few"] > 2 * 2**23  # type: ignore[operator]
