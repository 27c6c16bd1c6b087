"""A measurement that is stopped, killed or shared among processes: the same outcomes, and no batch twice."""

import json
import signal
import time
from dataclasses import replace
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from shconv.attacks import FGSM, RandFGSM
from shconv.errors import InputError
from shconv.experiments import quasi_boundary, table1_gaussian, table2_gradient, table3_locsearch
from shconv.experiments.network import Network, Pair
from shconv.experiments.outcomes import Outcomes
from shconv.experiments.progress import ExperimentProgress
from shconv.experiments.question import Question
from shconv.experiments.run_folder import RunFolder
from shconv.experiments.study import Counts, Study
from shconv.processes import Processes
from toys import colour_data, colour_networks, processes

ALL = np.arange(21)
COUNTS = Counts(table2=12, table3=11)


class Stopped(Exception):  # noqa: N818
    pass


class Patient(nn.Module):
    """Passes images on until its patience is at an end; its weights are those of the network inside."""

    def __init__(self, inner: nn.Module, passes: float = float("inf")) -> None:
        super().__init__()
        self.inner, self.left, self.passed = inner, passes, 0
        self.state_dict = inner.state_dict  # type: ignore[method-assign]

    def forward(self, x: Tensor) -> Tensor:
        if self.left <= 0:
            raise Stopped
        self.left, self.passed = self.left - 1, self.passed + 1
        logits: Tensor = self.inner(x)
        return logits


class Share(Processes):
    """One process of several that waits for nobody."""

    def wait(self) -> None:
        pass


def question(study: Study, size: int = 4, **changes: object) -> Question:
    network = next(study.networks)
    return replace(Question(network, RandFGSM(), ALL, size), **changes)


def asked(study: Study, of: Question) -> Outcomes:
    outcomes = study.measure(of)
    study.forget(of)
    return outcomes


def same(a: Outcomes, b: Outcomes) -> bool:
    return all(a.arrays()[name].tobytes() == b.arrays()[name].tobytes() for name in a.arrays())


def partial_files(study: Study) -> list[Path]:
    return sorted(study.folder.path.glob("partial/*/*.part"))


def test_a_stopped_measurement_goes_on_with_the_batches_that_are_missing(make_study):
    network = colour_networks()[0]
    whole = make_study((network,), batch_size=4, folder="whole")
    expected = asked(whole, question(whole))
    patient = Patient(network)
    study = make_study((patient,), batch_size=4)
    stops = 0
    while True:
        patient.left = 8  # RAND+FGSM takes two passes and the judge one: two batches, and most of a third
        try:
            outcomes = asked(study, question(study))
            break
        except Stopped:
            stops += 1
            assert len(partial_files(study)) == 2 * stops
    assert stops == 2
    assert patient.passed == 6 * 3 + 2 * 2
    assert same(outcomes, expected)
    assert partial_files(study) == []
    assert outcomes.seconds > 0


def test_what_is_left_of_one_question_answers_no_other(make_study):
    vanilla, shc = (Patient(network) for network in colour_networks())
    study = make_study((vanilla, shc), batch_size=4)
    _, second = study.networks
    questions = [
        question(study),
        question(study, network=second),
        question(study, attack=FGSM()),
        question(study, attack=RandFGSM(epsilon=0.03)),
        question(study, attack=RandFGSM(objective="untargeted")),
        question(study, index=ALL[:-1]),
        question(study, index=ALL[::-1].copy()),
        question(study, size=5),
        question(study, attack=None),
        question(study, also="more"),
        question(study, network=second, route="convolution"),
    ]
    assert len({each.place(0) for each in questions} | {questions[0].place(1)}) == len(questions) + 1
    vanilla.left = 8
    with pytest.raises(Stopped):
        asked(study, questions[0])
    vanilla.left = float("inf")
    for other in questions[1:]:
        outcomes = asked(study, other)
        assert outcomes.index.tolist() == other.index.tolist()
    assert len(partial_files(study)) == 2  # still there for its own question
    before = vanilla.passed
    asked(study, questions[0])
    assert vanilla.passed - before == 4 * 3


def test_a_search_that_is_stopped_keeps_the_images_it_has_done(make_study):
    network = colour_networks()[1]
    whole = make_study((network,), counts=COUNTS, folder="whole")
    expected = list(table3_locsearch.rows(whole))
    study = make_study((network,), counts=COUNTS)
    searched: list[int] = []
    search = table3_locsearch._searched

    def one_then_stop(study, network, attack, images, advance):
        if len(searched) % 2:
            searched.append(-1)
            raise Stopped
        searched.append(images.n)
        return search(study, network, attack, images, advance)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table3_locsearch, "_searched", one_then_stop)
        rows = None
        while rows is None:
            try:
                rows = list(table3_locsearch.rows(study))
            except Stopped:
                assert len(partial_files(study)) == (sum(n for n in searched if n > 0) % 11 > 0)  # of a search's two
    done = [n for n in searched if n > 0]
    assert sum(done) == 3 * 11  # three searches of eleven images: none twice
    assert [{**row, "seconds": 0} for row in rows] == [{**row, "seconds": 0} for row in expected]
    assert partial_files(study) == []


@pytest.mark.parametrize("before", [2, 3])
@pytest.mark.parametrize("after", [1, 2])
def test_a_run_of_several_processes_goes_on_with_another_number_of_them(make_study, before, after):
    network = colour_networks()[0]
    whole = make_study((network,), batch_size=4, folder="whole")
    expected = asked(whole, question(whole))
    patient = Patient(network)
    study = make_study((patient,), batch_size=4)
    for rank in range(1, before):  # the first never comes to its share
        study.processes = Share(rank, before)
        with pytest.raises(InputError, match="lacks"):
            asked(study, question(study))
    for rank in range(after - 1, 0, -1):
        study.processes = Share(rank, after)
        with pytest.raises(InputError, match="lacks"):
            asked(study, question(study))
    study.processes = Share(0, after)
    assert same(asked(study, question(study)), expected)
    assert patient.passed == 6 * 3
    assert partial_files(study) == []


def test_what_is_left_of_rows_that_are_in_is_removed_by_the_next_run(make_study, monkeypatch):
    tables = (table1_gaussian, table2_gradient, table3_locsearch, quasi_boundary)
    study = make_study(counts=COUNTS)
    with monkeypatch.context() as patch:
        patch.setattr(Study, "forget", lambda self, question: None)
        rows = [list(table.rows(study)) for table in tables]
    assert len(partial_files(study)) > len(rows[0]) + len(rows[1])
    again = make_study(counts=COUNTS)
    assert [list(table.rows(again)) for table in tables] == rows
    assert partial_files(again) == []


class Slow(nn.Module):
    def __init__(self, inner: nn.Module, pause: float) -> None:
        super().__init__()
        self.inner, self._pause = inner, pause

    def forward(self, x: Tensor) -> Tensor:
        time.sleep(self._pause)
        logits: Tensor = self.inner(x)
        return logits


def measure(folder: Path, pause: float, begun: Event) -> None:
    torch.set_num_threads(1)
    with RunFolder.opened(folder) as place:
        pair = Pair((Network("plain10", 0, Slow(colour_networks()[0], pause)),))
        study = Study(place, colour_data(), (pair,), COUNTS, 4, torch.device("cpu"), ExperimentProgress(False))
        begun.set()
        for table in (table1_gaussian, table2_gradient, table3_locsearch):
            list(table.rows(study))


def started(folder: Path, pause: float) -> tuple[Any, Event]:
    """A process that measures, and what tells when it begins."""
    begun = processes().Event()
    process = processes().Process(target=measure, args=(folder, pause, begun))
    process.start()
    return process, begun


def measured(folder: Path) -> tuple[list[dict[str, object]], dict[str, bytes]]:
    """Rows but for what a clock says, and the bytes of every array of their outcomes."""
    lines = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    arrays = {}
    for file in sorted((folder / "outcomes").iterdir()):
        with np.load(file) as stored:
            arrays |= {f"{file.name}/{name}": stored[name].tobytes() for name in stored.files}
    return [{**line, "seconds": None} for line in lines], arrays


def test_kill_9_at_random_moments_changes_no_bit_and_loses_nothing_stored(tmp_path):
    moments = np.random.default_rng(0).uniform(0.05, 0.8, 3)
    stored = 0
    for moment in moments:
        process, begun = started(tmp_path / "killed", 0.01)
        assert begun.wait(60)
        time.sleep(moment)
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        rows = tmp_path / "killed" / "rows.jsonl"
        now = len(rows.read_bytes().splitlines()) if rows.exists() else 0
        assert now >= stored
        stored = now
    for folder in ("killed", "whole"):
        process, _ = started(tmp_path / folder, 0.0)
        process.join()
        assert process.exitcode == 0
    assert measured(tmp_path / "killed") == measured(tmp_path / "whole")
    assert list((tmp_path / "killed").glob("partial/*")) == []
