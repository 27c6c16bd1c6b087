"""`load_data` says what it wants when a data set's name or an option is not one it knows."""

from pathlib import Path
from typing import Any

import pytest

from shconv.data import load_data
from shconv.errors import InputError


@pytest.mark.parametrize(
    ("spec", "hint"),
    [
        ("cifar", r"did you mean cifar10\?"),
        ("CIFAR10", r"did you mean cifar10\?"),
        ("demos", r"did you mean demo\?"),
        ("image-net:/x", r"did you mean imagenet\?.*imagenet:PATH"),
        ("fodler:/x", r"did you mean folder\?.*folder:PATH"),
        ("xyz", "wanted one of demo, cifar10"),
        ("", "wanted one of demo, cifar10"),
    ],
)
def test_an_unknown_name_gets_near_ones(spec: str, hint: str) -> None:
    with pytest.raises(InputError, match=hint):
        load_data(spec)


def test_a_path_without_a_kind_is_taken_for_a_folder_in_the_hint(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"did you mean folder:{tmp_path}"):
        load_data(str(tmp_path))


@pytest.mark.parametrize("spec", ["folder", "folder:", "imagenet:", "demo:/x"])
def test_a_path_must_be_there_exactly_where_one_is_wanted(spec: str) -> None:
    with pytest.raises(InputError, match="wanted"):
        load_data(spec)


@pytest.mark.parametrize("options", [{"image_size": 0}, {"on_corrupt": "ignore"}, {"test_preset": "timm"}])
def test_an_unusable_option_is_named(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(options))):
        load_data("demo", **options)
