"""Searches side by side: what all of them ask is answered together, and errors end all."""

import threading
from collections.abc import Mapping

import pytest

from shconv.attacks.lockstep import Ask, in_lockstep


def test_each_round_answers_all_that_still_go_on_in_their_order() -> None:
    rounds: list[dict[int, int]] = []
    got: dict[int, list[int]] = {}

    def answer(asked: Mapping[int, int]) -> list[int]:
        rounds.append(dict(asked))
        return [10 * question for question in asked.values()]

    def search(number: int, times: int):  # type: ignore[no-untyped-def]
        def run(ask: Ask[int, int]) -> None:
            got[number] = [ask(100 * number + turn) for turn in range(times)]

        return run

    in_lockstep({3: search(3, 1), 1: search(1, 3), 2: search(2, 0)}, answer)
    assert rounds == [{1: 100, 3: 300}, {1: 101}, {1: 102}]
    assert list(rounds[0]) == [1, 3]
    assert got == {1: [1000, 1010, 1020], 2: [], 3: [3000]}


def test_nothing_to_search_asks_nothing() -> None:
    in_lockstep({}, lambda asked: pytest.fail("was asked"))


@pytest.mark.parametrize("where", ["search", "answer"])
def test_an_error_is_raised_and_no_thread_is_left(where: str) -> None:
    before, ended = threading.active_count(), []

    def search(number: int):  # type: ignore[no-untyped-def]
        def run(ask: Ask[int, int]) -> None:
            try:
                ask(number)
                if where == "search" and number == 1:
                    raise ValueError("from a search")
                ask(number)
            finally:
                ended.append(number)

        return run

    def answer(asked: Mapping[int, int]) -> list[int]:
        if where == "answer":
            raise ValueError("from the answer")
        return [0] * len(asked)

    with pytest.raises(ValueError, match=f"from .*{where}"):
        in_lockstep({number: search(number) for number in range(3)}, answer)
    assert sorted(ended) == [0, 1, 2]
    assert threading.active_count() == before
