"""The examples of attack libraries run, stay in their ball, and follow the route that they are told to follow."""

import re
import runpy
from pathlib import Path

import pytest
import torch

EXAMPLES = {
    "with_art.py": "art",
    "with_foolbox.py": "foolbox",
    "with_pyautoattack.py": "pyautoattack",
    "with_torchattacks.py": "torchattacks",
}
FOLDER = Path(__file__).parents[1] / "examples"


def test_every_example_is_tested() -> None:
    assert {path.name for path in FOLDER.glob("*.py")} == set(EXAMPLES)


@pytest.mark.parametrize(("file", "library"), EXAMPLES.items())
def test_an_attack_librarys_example_stays_in_its_ball_and_follows_the_route(
    file: str, library: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip(library)
    epsilon = 0.1  # AutoAttack gives back only what it found: wide enough to find something
    images, found = runpy.run_path(str(FOLDER / file))["main"](n_images=4, steps=2, epsilon=epsilon)
    for adversarial in found.values():
        assert adversarial.shape == images.shape
        assert adversarial.min() >= 0
        assert adversarial.max() <= 1
        assert 0 < (adversarial - images).abs().max() <= epsilon + 1e-6
    assert not torch.equal(found["both"], found["convolution"])
    printed = re.findall(r"gradient route (\w+): accuracy \d+%", capsys.readouterr().out)
    assert printed == ["both", "convolution"]
