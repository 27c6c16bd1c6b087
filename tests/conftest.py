"""What every test shares: one torch thread, seeded random numbers, the same hypothesis examples in every run."""

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)
settings.register_profile("deterministic", derandomize=True, deadline=None, print_blob=True)
settings.load_profile("deterministic")


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)
