"""Trained toys, each trained once a run, in about a second."""

from collections.abc import Callable
from functools import cache

import pytest
from attack_toys import RowWise, Toy, train_toy


@pytest.fixture(scope="session")
def robust_toy() -> Toy:
    return train_toy(10, robust=True)


@pytest.fixture(scope="session")
def plain_toy() -> Toy:
    return train_toy(10, robust=False)


@pytest.fixture(scope="session")
def toy_of() -> Callable[[int], Toy]:
    return cache(lambda classes: train_toy(classes, robust=True))


@pytest.fixture
def row_wise() -> RowWise:
    return RowWise()
