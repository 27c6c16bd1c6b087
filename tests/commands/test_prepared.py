"""Commands that read checkpoints show them images as they were trained to see them, and say where they do not."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shconv.data import load_data
from shconv.data.preparation import Preparation
from shconv.pretrained import from_pretrained, save_pretrained
from shconv.training import ModelConfig, Recipe, train
from toys import CLASSES

pytestmark = pytest.mark.usefixtures("undrawn")

RECIPE = Recipe(1, 6, 0.01, schedule="cosine", augmentation="none", precision="float32")
LITTLE = ("--tables", 1, "--table1-images", 6)
SIDE = 12


@pytest.fixture(scope="module")
def photographs(tmp_path_factory) -> Path:
    """Six images of 30 x 20 pixels a class and part."""
    root = tmp_path_factory.mktemp("own")
    rng = np.random.default_rng(0)
    for part in ("train", "test"):
        for name in CLASSES:
            (root / part / name).mkdir(parents=True)
            for i in range(6):
                Image.fromarray(rng.integers(0, 256, (20, 30, 3), np.uint8)).save(root / part / name / f"{i}.png")
    return root


@pytest.fixture(scope="module")
def checkpoint(photographs, tmp_path_factory) -> Callable[..., Path]:
    """checkpoint("plain10", 12, "imagenet"): the folder of a network trained so."""
    made: dict[tuple[object, ...], Path] = {}

    def trained(name: str = "plain10", side: int = SIDE, preset: str = "imagenet") -> Path:
        key = (name, side, preset)
        if key not in made:
            data = load_data(f"folder:{photographs}", image_size=side, test_preset=preset)
            config = ModelConfig(name, 3, stem="small", width=2)
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("ACCELERATE_USE_CPU", "1")
                folder = tmp_path_factory.mktemp("checkpoints") / f"{name}-{side}-{preset}"
                train(config, data, RECIPE, folder, progress=False)
            made[key] = folder
        return made[key]

    return trained


def seen(folder: str) -> Preparation:
    """What a run folder's images were prepared as."""
    return Preparation.of({"data": json.loads(Path(folder, "data.json").read_text())}, folder)


def warnings(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("warning:")]


@pytest.mark.parametrize("preset", ["imagenet", "paper"])
def test_evaluate_takes_size_and_preset_from_the_checkpoint(shconv, photographs, checkpoint, preset):
    ended = shconv("evaluate", checkpoint(preset=preset), "--data", f"folder:{photographs}", *LITTLE, "--out", "run")
    assert ended.code == 0, ended.err
    assert seen("run") == Preparation(SIDE, SIDE, preset)
    assert not warnings(ended.err)


def test_an_option_that_differs_wins_and_is_said_in_one_line(shconv, photographs, checkpoint):
    given = ("--image-size", 16, "--test-preset", "paper")
    ended = shconv("evaluate", checkpoint(), "--data", f"folder:{photographs}", *LITTLE, *given, "--out", "run")
    assert seen("run") == Preparation(16, 16, "paper")
    (line,) = warnings(ended.err)
    assert f"was trained for images of {SIDE} px, test preset imagenet; taken all the same" in line
    assert "--image-size 16 --test-preset paper" in line
    same = ("--image-size", SIDE, "--test-preset", "imagenet")
    assert not warnings(shconv("evaluate", checkpoint(), "--data", f"folder:{photographs}", *LITTLE, *same).err)


def test_a_twin_of_another_size_is_said_and_sees_what_the_first_does(shconv, photographs, checkpoint):
    twin = checkpoint("plain10_shc", 16)
    two = (checkpoint(), "--twin", twin, "--data", f"folder:{photographs}", "--out", "run")
    ended = shconv("evaluate", *two, *LITTLE)
    assert ended.code == 0, ended.err
    assert seen("run") == Preparation(SIDE, SIDE, "imagenet")
    (line,) = warnings(ended.err)
    assert f"{twin} was trained for images of 16 px" in line
    assert f"here they are prepared at {SIDE} px" in line


def test_an_audit_does_so_for_twin_and_sources(shconv, photographs, checkpoint):
    twin, source = checkpoint("plain10_shc", 16), checkpoint("plain10", SIDE, "paper")
    ended = shconv("audit", checkpoint(), "--twin", twin, "--sources", source, "--data", f"folder:{photographs}",
                   "--images", 12, "--budget", "0.3s", "--out", "run")  # fmt: skip
    assert ended.code == 0, ended.err
    assert seen("run") == Preparation(SIDE, SIDE, "imagenet")
    assert [str(path) in line for path, line in zip((twin, source), warnings(ended.err), strict=True)] == [True, True]


def test_a_checkpoint_of_an_earlier_version_has_the_size_and_the_papers_preset(shconv, photographs, checkpoint):
    old = Path(shutil.copytree(checkpoint(), "old"))
    info = json.loads((old / "config.json").read_text())
    del info["data"]["test_preset"], info["data"]["train_size"]
    (old / "config.json").write_text(json.dumps(info))
    assert shconv("evaluate", old, "--data", f"folder:{photographs}", *LITTLE, "--out", "run").code == 0
    assert seen("run") == Preparation(SIDE, SIDE, "paper")


def test_a_folder_to_share_keeps_it_on_every_way(shconv, photographs, checkpoint):
    model = from_pretrained(checkpoint(preset="paper"))
    assert model.preparation == Preparation(SIDE, SIDE, "paper")
    save_pretrained(model, "shared")
    assert from_pretrained("shared").preparation == model.preparation
    assert f"Image size as tested: {SIDE}, test preset paper" in Path("shared/README.md").read_text()
    assert shconv("evaluate", "shared", "--data", f"folder:{photographs}", *LITTLE, "--out", "run").code == 0
    assert seen("run") == model.preparation


def test_a_reproduction_that_goes_on_sees_what_it_saw(shconv, photographs):
    small = ("--models", "plain10", "--width", 2, "--epochs", 1, "--table1-images", 6, "--table2-images", 1)
    command = ("reproduce", "--data", f"folder:{photographs}", *small, "--table3-images", 1, "--out", "run")
    shconv(*command, "--image-size", SIDE, "--test-preset", "paper")
    rows = Path("run/rows.jsonl").read_text()
    ended = shconv(*command)
    assert ended.code == 0, ended.err
    assert seen("run") == Preparation(SIDE, SIDE, "paper")
    assert Path("run/rows.jsonl").read_text() == rows
    assert f"image_size = {SIDE}, asked for is 16" in shconv(*command, "--image-size", 16).message
