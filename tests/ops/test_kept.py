"""What a layer keeps in one tensor: its parts do not overlap, and begin where kernels can read them."""

import itertools

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from shconv.ops import kept

SIZES = [(1, 1, 1, 1, 1, 1), (3, 5, 7, 3, 3, 2), (2, 16, 8, 3, 1, 8), (5, 3, 4, 5, 5, 1)]  # N, D, C, S_h, S_w, K


@pytest.mark.parametrize("rounds", [False, True])
@pytest.mark.parametrize(("N", "D", "C", "S_h", "S_w", "K"), SIZES, ids=str)
def test_numbers_that_are_written_into_parts_stay(N, D, C, S_h, S_w, K, rounds):
    x, weight = torch.randn(N, D, 6, 6).half(), torch.randn(C, D, S_h, S_w)
    W1, W2 = torch.randn(K, 2 * D), torch.randn(S_h * S_w, K)
    whole = torch.full((kept.count(x, weight, W1, W2, rounds),), float("nan"), dtype=kept.dtype(x))
    parts = kept.parts(whole, x, weight, W1, W2, rounds)
    wanted = [None if each is None else torch.randn(each.shape).to(each.dtype) for each in parts]
    for part, numbers in zip(parts, wanted, strict=True):
        if part is not None and numbers is not None:
            part.copy_(numbers)
    for part, numbers in zip(kept.parts(whole, x, weight, W1, W2, rounds), wanted, strict=True):
        assert (part is None) == (numbers is None)
        assert part is None or torch.equal(part, numbers)
    assert [tuple(each.shape) for each in parts[:3]] == [(N, S_h * S_w), (N, 2, D), (N, K)]
    assert (parts.weight is not None) == rounds
    if parts.weight is not None:
        assert parts.weight.dtype == x.dtype
        assert parts.weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("rounds", [False, True])
@pytest.mark.parametrize(("N", "D", "C", "S_h", "S_w", "K"), SIZES, ids=str)
def test_on_a_gpu_each_part_begins_at_16_bytes(N, D, C, S_h, S_w, K, rounds):
    with FakeTensorMode():
        x, weight = torch.empty(N, D, 6, 6, device="cuda", dtype=torch.bfloat16), torch.empty(C, D, S_h, S_w)
        W1, W2 = torch.empty(K, 2 * D), torch.empty(S_h * S_w, K)
        places = kept._places(x, weight, W1, W2, rounds)
        assert kept.count(x, weight, W1, W2, rounds) == sum(places[-1])
    assert all(4 * first % 16 == 0 for first, _ in places)
    assert all(first + size <= following for (first, size), (following, _) in itertools.pairwise(places))
