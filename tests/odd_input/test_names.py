"""Names of files and classes as people have them; each is read, kept as it is, and in its place."""

import os
from pathlib import Path

import numpy as np
import pytest
from files import COLOUR, WIDTH, saved
from PIL import Image

from shconv.data import load_data, training_batches
from shconv.errors import InputError

SIDE = 8
PATCH = COLOUR[:, : WIDTH - 4]
PNG = saved(Image.fromarray(PATCH), "PNG")

NAMES = {
    "not UTF-8": os.fsdecode(b"d\xe9"),
    "not UTF-8 at all": os.fsdecode(b"\xff\xfe\x80"),
    "spaces": "a b  c",
    "a space at each end": " a ",
    "brackets": "[bold]a[x] [red",
    "braces and percent": "{0} %s %(a)s",
    "a colon": "a:b",
    "an emoji's name": ":abc: :smile:",
    "a newline": "a\nb",
    "a tab and a carriage return": "a\tb\rc",
    "an escape sequence": "\x1b[31mred",
    "a bell": "a\x07",
    "200 characters": "x" * 200,
    "an emoji": "🦀👩‍🔬",
    "right to left": "שלום",
    "right to left by a mark": "\u202egpj.exe",
    "composed": "\u00e9",
    "decomposed": "e\u0301",
    "Chinese": "猫",
    "quotes": 'it\'s "so"',
    "a backslash": "a\\b",
    "a dollar": "$HOME `ls` ;",
    "a star": "a*?",
    "a dash first": "-rf",
    "a tilde": "~",
    "a number": "007",
    "dots inside": "a.tar.gz",
    "a dot last": "a.",
    "a part's name": "train",
    "no letter": "_",
    "a name of Windows": "CON",
    "a line separator": "a\u2028b",
}


def write(root: Path, names: list[str]) -> Path:
    for part in ("train", "test"):
        for name in names:
            (root / part / name).parent.mkdir(parents=True, exist_ok=True)
            (root / part / name).write_bytes(PNG)
    return root


@pytest.mark.parametrize("kind", NAMES)
def test_any_name_of_a_class_and_of_a_file_is_read_and_kept(tmp_path: Path, kind: str) -> None:
    name = NAMES[kind]
    write(tmp_path, [f"{name}/{name}.png", "zz/0.png"])
    data = load_data(f"folder:{tmp_path}")
    assert set(data.classes) == {name, "zz"}
    place = data.classes.index(name)
    assert data.classes == tuple(sorted(data.classes))
    assert data.train is not None
    for split in (data.train, data.test):
        (own,) = [i for i, label in enumerate(split.labels.tolist()) if label == place]
        assert split.names[own] == f"{name}/{name}.png"
        assert np.array_equal(split[own][0].permute(1, 2, 0), PATCH)
    (batch,) = training_batches(data.train, "none", batch_size=2, seed=0, epoch=0)
    assert sorted(batch.labels.tolist()) == [0, 1]


@pytest.mark.parametrize("kind", NAMES)
def test_a_broken_file_of_any_name_is_named_in_an_error(tmp_path: Path, kind: str) -> None:
    name = NAMES[kind]
    write(tmp_path, ["a/0.png"])
    (tmp_path / "test/a" / f"{name}.png").write_text("not an image")
    with pytest.raises(InputError, match="no image format is recognised") as caught:
        load_data(f"folder:{tmp_path}")
    assert f"{name}.png" in str(caught.value)
    assert load_data(f"folder:{tmp_path}", on_corrupt="skip").skipped == 1


@pytest.mark.parametrize("suffix", ["PNG", "JPEG", "jPg", "png ", "txt", "", "jpg.bak", "webp", "gif", "pdf"])
def test_what_a_file_is_says_its_content_and_not_its_suffix(tmp_path: Path, suffix: str) -> None:
    write(tmp_path, [f"a/x.{suffix}" if suffix else "a/x"])
    data = load_data(f"folder:{tmp_path}")
    assert np.array_equal(data.test[0][0].permute(1, 2, 0), PATCH)
