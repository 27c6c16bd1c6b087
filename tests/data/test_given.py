"""A user's own images in whatever form: the pixels and labels that come out, and what is refused."""

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset

from shconv.data.given import as_data
from shconv.errors import InputError

IMAGES = torch.rand(5, 3, 4, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 2, 1, 0])


class Pictures(Dataset[Any]):
    """PIL images with names of classes, and no list of labels."""

    classes = ("ant", "bee", "cow", "dog")

    def __init__(self, mode: str = "RGB") -> None:
        self.mode = mode

    def __len__(self) -> int:
        return 5

    def __getitem__(self, i: int) -> tuple[Image.Image, int]:
        level = (255 * IMAGES[i]).byte().permute(1, 2, 0).numpy()
        return Image.fromarray(level).convert(self.mode), int(LABELS[i])


class ClassLabel:
    names = ("ant", "bee", "cow")


class Columns:
    """A Hugging Face dataset as far as we look at it."""

    column_names = ("id", "picture", "kind")

    def __init__(self) -> None:
        feature = type("Image", (), {})()
        self.features = {"id": object(), "picture": feature, "kind": ClassLabel()}

    def __len__(self) -> int:
        return 5

    def __getitem__(self, key: int | str) -> Any:
        if isinstance(key, str):
            return LABELS.tolist()
        return {"id": key, "picture": Pictures()[key][0], "kind": int(LABELS[key])}


def pixels(data: Any) -> Tensor:
    split = as_data(data).test
    return torch.stack([split[i][0] for i in range(len(split))])


@pytest.mark.parametrize(
    "given",
    [
        (IMAGES, LABELS),
        (IMAGES.numpy(), LABELS.numpy()),
        TensorDataset(IMAGES, LABELS),
        DataLoader(TensorDataset(IMAGES, LABELS), batch_size=2),
        [(image, label) for image, label in zip(IMAGES, LABELS, strict=True)],
    ],
    ids=["tensors", "arrays", "dataset", "loader", "list of pairs"],
)
def test_floats_stay_what_they_are(given: Any) -> None:
    data = as_data(given)
    assert torch.equal(pixels(given), IMAGES)
    assert data.test.labels.tolist() == LABELS.tolist()
    assert data.classes == ("0", "1", "2")
    assert list(data.test.names) == ["0", "1", "2", "3", "4"]


@pytest.mark.parametrize("given", [Pictures(), Columns()], ids=["PIL dataset", "Hugging Face"])
def test_pictures_become_levels_and_classes_keep_their_names(given: Any) -> None:
    assert torch.equal(pixels(given), (255 * IMAGES).byte())
    assert as_data(given).classes[:3] == ("ant", "bee", "cow")
    assert as_data(given).test.labels.tolist() == LABELS.tolist()


def test_grey_pictures_stay_grey_and_others_become_rgb() -> None:
    assert pixels(Pictures("L")).shape == (5, 1, 4, 4)
    assert pixels(Pictures("RGBA")).shape == (5, 3, 4, 4)


def test_a_part_of_a_dataset_has_its_images_and_labels() -> None:
    whole = as_data(Pictures()).test
    part = whole.take([3, 0])
    assert part.labels.tolist() == LABELS[[3, 0]].tolist()
    assert torch.equal(part[0][0], whole[3][0])
    assert len(part) == len(part.names) == 2


def test_a_dataset_that_knows_its_labels_is_not_read_for_them() -> None:
    class Known(Pictures):
        targets = np.array([0, 1, 2, 1, 0])

        def __getitem__(self, i: int) -> Any:
            if i > 0:
                raise AssertionError("was read")
            return super().__getitem__(i)

    assert as_data(Known()).test.labels.tolist() == LABELS.tolist()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (3, "data: got int; want (images, labels), a torch Dataset"),
        ((IMAGES, LABELS.float()), "labels: got torch.float32 of shape (5,); want int64 (5,)"),
        ((IMAGES, LABELS[:2]), "labels: got torch.int64 of shape (2,); want int64 (5,)"),
        ((IMAGES[0], LABELS), "images: got shape (3, 4, 4); want (N, C, H, W)"),
        ((IMAGES.long(), LABELS), "images: got torch.int64; want floats in [0, 1], or uint8"),
        ((IMAGES[:0], LABELS[:0]), "images: got shape (0, 3, 4, 4); want (N, C, H, W), at least one"),
        ([], "data: got no image; want at least one"),
        ([{"a": 1}], "data: item 0 is a dict; want a pair (image, label)"),
        ([(IMAGES, 0)], "data: image 0 has shape (5, 3, 4, 4); want (C, H, W)"),
        ("nowhere", "data 'nowhere' is unknown"),
    ],
)
def test_what_is_no_data_is_refused(given: Any, said: str) -> None:
    with pytest.raises(InputError) as refused:
        as_data(given).test.labels  # noqa: B018 (labels of a dataset are read when asked for)
    assert said in str(refused.value)
