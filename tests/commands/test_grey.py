"""Grey images of one channel, from training to the report: `--grey`, and checkpoints that say it themselves."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from shconv.data import load_data, training_batches
from shconv.data.policies import POLICIES
from shconv.errors import InputError
from shconv.pretrained import save_pretrained
from toys import colour_folder

WAY = ["--width", 4, "--epochs", 12, "--batch-size", 8]
SOME = ["--table1-images", 12, "--table2-images", 4, "--table3-images", 1, "--batch-size", 8]


@pytest.fixture
def blank(unpainted):
    """Figures of grey images are drawn here."""


@pytest.fixture
def digits(tmp_path):
    """Grey files of three classes: darker and lighter ones."""
    rng = np.random.default_rng(0)
    for part, n in (("train", 12), ("test", 6)):
        for place, name in enumerate(("dark", "light", "middle")):
            folder = tmp_path / "digits" / part / name
            folder.mkdir(parents=True)
            for i in range(n):
                pixels = rng.integers(0, 40, (8, 8)) + (20, 200, 110)[place]
                Image.fromarray(pixels.astype(np.uint8), "L").save(folder / f"{i}.png")
    return tmp_path / "digits"


def test_from_training_to_the_report_and_the_audit(shconv, digits):
    data = ["--data", f"folder:{digits}"]
    for name in ("plain10", "plain10_shc"):
        ended = shconv("train", "--model", name, *data, "--grey", *WAY, "--out", name)
        assert ended.code == 0, ended.err
    config = json.loads(Path("plain10_shc/config.json").read_text())
    assert (config["model"]["in_channels"], config["data"]["channels"]) == (1, 1)
    ended = shconv("evaluate", "plain10_shc", "--twin", "plain10", *data, *SOME, "--out", "run")  # which says it itself
    assert ended.code == 0, ended.err
    drawn = {file.stem for file in Path("run/figures").glob("*.png")}
    assert {"figure2", "figure3_plain10-seed0", "figure4_plain10_shc-seed0"} <= drawn
    with np.load("run/arrays/figure4_plain10_shc-seed0.npz") as arrays:
        assert str(arrays["channel"]) == "grey image"
    little = ("--eps", "8/255", "--images", 12, "--budget", "0.3s")
    ended = shconv("audit", "plain10_shc", *data, *little, "--out", "audit")
    assert ended.code == 0, ended.err
    assert shconv("finetune", "--from", "plain10", *data, "--epochs", 1, "--batch-size", 8, "--out", "tuned").code == 0
    assert json.loads(Path("tuned/config.json").read_text())["data"]["channels"] == 1


def test_a_network_saved_without_a_word_on_data_says_its_channels(shconv, digits, tmp_path):
    from shconv import create_model

    torch.manual_seed(0)
    save_pretrained(create_model("plain10", num_classes=3, in_channels=1, stem="small", width=2), tmp_path / "own")
    asked = ["--data", f"folder:{digits}", "--attack", "fgsm", "--batch-size", 6, "--out", "run"]
    ended = shconv("evaluate", tmp_path / "own", *asked)
    assert ended.code == 0, ended.err
    assert json.loads(Path("run/data.json").read_text())["channels"] == 1


def test_networks_of_colours_refuse_grey_images_and_libraries_networks_too(shconv, digits, tmp_path):
    from shconv import create_model

    save_pretrained(create_model("plain10", num_classes=3, stem="small", width=2), tmp_path / "own")
    message = shconv("evaluate", tmp_path / "own", "--data", f"folder:{digits}", "--grey").message
    assert "takes images of 3 channels; those of" in message
    assert "have 1" in message
    assert "three channels; leave it out" in shconv("finetune", "--from", "timm:resnet18", "--grey").message


@pytest.mark.parametrize("size", [8, 72])  # in memory; read when asked for
def test_grey_is_pillows_luminance_in_test_and_training(tmp_path, size):
    folder = colour_folder(tmp_path / "colours")
    colours = load_data(f"folder:{folder}", image_size=size)
    grey = load_data(f"folder:{folder}", image_size=size, grey=True)
    assert grey.channels == 1
    for place in (0, 7):
        image, label = grey.test[place]
        assert image.shape == (1, size, size)
        assert label == colours.test[place][1]
        wanted = Image.fromarray(colours.test[place][0].permute(1, 2, 0).numpy()).convert("L")
        assert (image[0].int() - torch.from_numpy(np.array(wanted)).int()).abs().max() <= (
            0 if size == 8 else 3
        )  # resized, rounded at other moments
    for augmentation in ("none", "crop_flip", "resized_crop", *POLICIES):
        batch = next(iter(training_batches(grey.train, augmentation, batch_size=4, seed=0, epoch=0)))
        assert batch.images.shape == (4, 1, size, size)
        assert batch.images.dtype == torch.uint8
    with pytest.raises(InputError, match="he2016 shifts colours"):
        next(iter(training_batches(grey.train, "he2016", batch_size=4, seed=0, epoch=0)))
