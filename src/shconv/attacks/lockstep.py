"""Many searches that each want an answer before they go on, side by side: what all of them ask is answered at once.
For solvers of other libraries, which call back for one image at a time."""

from collections.abc import Callable, Mapping, Sequence
from queue import SimpleQueue
from threading import Thread
from typing import Generic, TypeVar

Q = TypeVar("Q")
A = TypeVar("A")
Ask = Callable[[Q], A]


class _EndedError(Exception):
    """There will be no more answers."""


class _Task(Thread, Generic[Q, A]):
    """One search in a thread. It and the others' caller take turns, so only one of all the threads computes."""

    def __init__(self, search: Callable[[Ask[Q, A]], None], number: int, asked: "SimpleQueue[tuple[int, Q | None]]"):
        super().__init__(daemon=True)
        self._search, self._number, self._asked = search, number, asked
        self.answers: SimpleQueue[A | None] = SimpleQueue()
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self._search(self._ask)
        except _EndedError:
            pass
        except BaseException as error:  # raised again where `in_lockstep` was called
            self.error = error
        self._asked.put((self._number, None))

    def _ask(self, question: Q) -> A:
        self._asked.put((self._number, question))
        answer = self.answers.get()
        if answer is None:
            raise _EndedError
        return answer


def in_lockstep(
    searches: Mapping[int, Callable[[Ask[Q, A]], None]], answer: Callable[[Mapping[int, Q]], Sequence[A]]
) -> None:
    """Run the searches, each handed what it asks with, until all have ended.

    answer: called in this thread with the questions of all searches that still go on, by their numbers in order; it
    gives as many answers. What it or a search raises ends all of them and is raised here.
    """
    asked: SimpleQueue[tuple[int, Q | None]] = SimpleQueue()
    tasks = {number: _Task(search, number, asked) for number, search in searches.items()}
    alive = set(tasks)
    try:
        for task in tasks.values():
            task.start()
        while True:
            news = [asked.get() for _ in alive]
            alive = {number for number, question in news if question is not None}
            for task in tasks.values():
                if task.error is not None:
                    raise task.error
            if not alive:
                return
            news.sort(key=lambda each: each[0])
            questions = {number: question for number, question in news if question is not None}
            for number, one in zip(questions, answer(questions), strict=True):
                tasks[number].answers.put(one)
    finally:
        for number in alive:
            tasks[number].answers.put(None)
        for task in tasks.values():
            if task.ident is not None:
                task.join()
