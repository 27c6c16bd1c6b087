"""The examples run: those with attack libraries stay in their ball and follow the route that they are told to follow,
the worked ones draw their pictures, and what they print of a network holds."""

import json
import re
import runpy
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib.figure import Figure

import shconv
from shconv.data.splits import MemorySplit

LIBRARIES = {
    "with_art.py": "art",
    "with_foolbox.py": "foolbox",
    "with_pyautoattack.py": "pyautoattack",
    "with_torchattacks.py": "torchattacks",
}
WORKED = {
    "look_at_filter_maps.py": ("filter-maps.png", "map-shifts.png"),
    "attack_by_route.py": ("attack-by-route.png", "attack-images.png"),
    "own_network.py": ("own-network.png",),
}
NOTEBOOKS = ("convert_and_finetune.ipynb", "audit_a_network.ipynb")
EPOCHS = 3  # after fewer, small networks may give all images one class, and no attack finds anything
FOLDER = Path(__file__).parents[1] / "examples"
DOCS = Path(__file__).parents[1] / "docs"


def main_of(file: str) -> Callable[..., Any]:
    main: Callable[..., Any] = runpy.run_path(str(FOLDER / file))["main"]
    return main


def test_every_example_is_tested() -> None:
    assert {path.name for path in FOLDER.glob("*.py")} == LIBRARIES.keys() | WORKED.keys()
    assert {path.name for path in FOLDER.glob("*.ipynb")} == {*NOTEBOOKS}


def test_the_pictures_of_the_worked_examples_are_shown() -> None:
    page = (DOCS / "examples.md").read_text(encoding="utf-8")
    for file, pictures in WORKED.items():
        assert f"python examples/{file}" in page
        assert all(f"(figures/{picture})" in page and (DOCS / "figures" / picture).is_file() for picture in pictures)


@pytest.mark.parametrize(("file", "library"), LIBRARIES.items())
def test_an_attack_librarys_example_stays_in_its_ball_and_follows_the_route(
    file: str, library: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip(library)
    epsilon = 0.1  # AutoAttack gives back only what it found: wide enough to find something
    images, found = main_of(file)(n_images=4, steps=2, epsilon=epsilon)
    for adversarial in found.values():
        assert adversarial.shape == images.shape
        assert adversarial.min() >= 0
        assert adversarial.max() <= 1
        assert 0 < (adversarial - images).abs().max() <= epsilon + 1e-6
    assert not torch.equal(found["both"], found["convolution"])
    printed = re.findall(r"gradient route (\w+): accuracy \d+%", capsys.readouterr().out)
    assert printed == ["both", "convolution"]


demo_of = cache(shconv.data.load_data)  # as it is when no test has changed it


def part_of_the_demo(patch: pytest.MonkeyPatch, train: int | None, test: int) -> None:
    """The examples find so many of its images."""
    pytest.importorskip("skimage")  # its photographs
    demo = demo_of("demo")
    parts = ((demo.train, train), (demo.test, test))
    fewer = [MemorySplit(each.images[:n], each.labels[:n], each.names[:n]) for each, n in parts]
    patch.setattr(shconv.data, "load_data", lambda name: replace(demo, train=fewer[0], test=fewer[1]))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Of two examples the network is the same: trained by the first, loaded by the second."""
    with pytest.MonkeyPatch.context() as patch:
        part_of_the_demo(patch, 700, 140)
        yield tmp_path_factory.mktemp("runs")


def cells_of(file: str, **changes: str) -> str:
    """A notebook's code, what is assigned to the names in `changes` replaced."""
    cells = json.loads((FOLDER / file).read_text(encoding="utf-8"))["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    for name, value in changes.items():
        code, times = re.subn(rf"^{name} = .*$", f"{name} = {value}", code, flags=re.MULTILINE)
        assert times == 1
    return code


def ran(file: str, monkeypatch: pytest.MonkeyPatch, folder: Path, **changes: str) -> dict[str, Any]:
    """The names that a notebook's cells, run in their order in that folder, leave."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "1")
    monkeypatch.setenv("MPLBACKEND", "agg")
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(cells_of(file, **changes), file, "exec"), names)
    return names


@pytest.mark.parametrize("file", NOTEBOOKS)
def test_a_notebook_is_stored_without_outputs_and_shown(file: str) -> None:
    cells = json.loads((FOLDER / file).read_text(encoding="utf-8"))["cells"]
    kinds = [cell["cell_type"] for cell in cells]
    assert kinds[0] == kinds[-1] == "markdown"
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells if "outputs" in cell)
    assert f"examples/{file}" in (DOCS / "examples.md").read_text(encoding="utf-8")


def test_the_notebook_that_converts_keeps_the_logits_learns_and_stores(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part_of_the_demo(monkeypatch, 700, 140)
    names = ran("convert_and_finetune.ipynb", monkeypatch, runs, EPOCHS="3")
    assert names["moved"] < 1e-4
    assert names["losses"][-1] < names["losses"][0]
    assert names["after"] > len(names["data"].test) / 7  # above chance
    assert {tuple(M.shape) for M in names["maps"].values()} == {(100, 3, 3)}
    assert f"of {len(names['data'].test)} test images" in (names["folder"] / "README.md").read_text()


def test_the_notebook_that_audits_finds_the_defence_out(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part_of_the_demo(monkeypatch, 700, 140)
    for clock in ("monotonic", "perf_counter"):  # the budget is one of computing, whatever else the machine does
        monkeypatch.setattr(time, clock, time.process_time)
    names = ran("audit_a_network.ipynb", monkeypatch, runs, EPOCHS="3", IMAGES="20", BUDGET='"6s"')
    accuracy = names["results"].rows().set_index(["model", "attack"])["accuracy"]
    assert accuracy["rounded", "pgd"] == accuracy["rounded", "clean"] > accuracy["plain", "pgd"]
    assert {8, 10} & {finding.check for finding in names["alarms"]}  # gradients, indicators
    assert names["fooled"] > 1 - accuracy["rounded", "pgd"]


def wrote(folder: Path, file: str) -> bool:
    return all((folder / picture).read_bytes().startswith(b"\x89PNG") for picture in WORKED[file])


def test_the_filter_maps_that_are_shown_differ_between_images_and_move_under_attack(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its pictures have about a hundred axes, whose painting takes seconds: they are drawn, and those of the other
    examples painted."""
    monkeypatch.setattr(Figure, "savefig", lambda figure, file, **_: file.write_bytes(b"\x89PNG"))
    maps, maps_adversarial, shifts = main_of("look_at_filter_maps.py")(runs, epochs=EPOCHS, width=4, per_class=3)
    assert len(maps) == 8
    assert all(M.shape == (21, 3, 3) and M.min() > 0 and M.max() < 1 for M in maps.values())
    assert all(M.std(0).max() > 0 for M in maps.values())
    adversarial = shifts["its adversarial image"]
    moved = [float((maps[layer] - maps_adversarial[layer]).abs().mean()) for layer in maps]
    assert adversarial == pytest.approx(moved)
    assert min(adversarial) > 0
    assert wrote(runs, "look_at_filter_maps.py")


def test_an_attack_by_route_breaks_no_more_than_its_worst_case_and_that_falls_with_the_budget(runs: Path) -> None:
    found, by_weight = main_of("attack_by_route.py")(
        runs, epochs=EPOCHS, width=4, n_images=12, steps=2, budgets=(2, 8, 32), weights=(0, 1, 30)
    )
    worst = found["worst case"]
    routes = {words: each for words, each in found.items() if words != "twin, vanilla"}
    assert all(each.shape == worst.shape == (3, len(worst[0])) for each in routes.values())
    assert all(not (worst & ~each).any() for each in routes.values())
    assert (worst[1:] <= worst[:-1]).all()
    assert worst[-1].float().mean() < 1  # 32/255 breaks some
    # weight 0 is the convolution route, weight 1 both
    at_middle = {words: float(each[1].float().mean()) for words, each in routes.items()}
    assert by_weight[0] == at_middle["convolution route"]
    assert by_weight[1] == at_middle["both routes"]
    assert by_weight[30] == at_middle["both, hypernetwork x 30"]
    assert wrote(runs, "attack_by_route.py")


def test_a_network_of_ones_own_computes_the_same_after_conversion_and_storing(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part_of_the_demo(monkeypatch, 280, 140)
    accuracy, difference, from_half = main_of("own_network.py")(
        runs, "torchvision:squeezenet1_1", epochs=1, tuning_epochs=1, batch_size=140
    )
    assert accuracy["converted"] == pytest.approx(accuracy["vanilla"], abs=2e-3)
    assert difference["converted"] < 1e-4
    assert difference["and back, to_vanilla"] == 0
    assert difference["stored and loaded"] == 0
    assert len(from_half) == 9
    assert all(line[0] == 0 < line[-1] for line in from_half.values())
    assert wrote(runs, "own_network.py")
