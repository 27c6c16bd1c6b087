"""A user's own images in whatever form: the pixels and labels that come out, and what is refused."""

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset

from shconv.data.given import as_data, fingerprint
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


class Failing(Pictures):
    def __getitem__(self, i: int) -> tuple[Image.Image, int]:
        raise KeyError("mine")


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
        (IMAGES, LABELS.tolist()),
        TensorDataset(IMAGES, LABELS),
        DataLoader(TensorDataset(IMAGES, LABELS), batch_size=2),
        [(image, label) for image, label in zip(IMAGES, LABELS, strict=True)],
    ],
    ids=["tensors", "arrays", "labels in a list", "dataset", "loader", "list of pairs"],
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


def test_a_dataset_that_knows_its_labels_is_hardly_read_for_them() -> None:
    class Known(Dataset[Any]):
        targets = np.arange(5000) % 7
        read = 0

        def __len__(self) -> int:
            return 5000

        def __getitem__(self, i: int) -> tuple[Tensor, int]:
            self.read += 1
            return IMAGES[0], int(self.targets[i])

    data = Known()
    assert as_data(data).test.labels.tolist() == data.targets.tolist()
    assert data.read <= 100


class Labelled(Dataset[Any]):
    """Says `targets` of its labels; its items have LABELS."""

    def __init__(self, targets: Any) -> None:
        self.targets = targets

    def __len__(self) -> int:
        return 5

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        return IMAGES[i], int(LABELS[i])


@pytest.mark.parametrize(
    "targets",
    [[1, 2, 0, 2, 1], ["ant", "bee", "cow", "bee", "ant"], torch.eye(5), [0.0, 1, 2, 1, 0], LABELS.tolist()],
    ids=["before target_transform", "names", "one-hot", "floats", "the same"],
)
def test_a_label_is_that_of_the_item(targets: Any) -> None:
    assert as_data(Labelled(targets)).test.labels.tolist() == LABELS.tolist()


@pytest.mark.parametrize("one", [1, 1.0, "1", True, np.int64(1), np.float32(1), torch.tensor(1), torch.tensor(1.0)])
def test_a_label_may_be_whatever_is_a_classs_number(one: Any) -> None:
    assert as_data([(IMAGES[0], 0), (IMAGES[1], one)]).test.labels.tolist() == [0, 1]


def test_grey_pictures_of_16_bits_keep_their_levels() -> None:
    levels = (np.arange(16).reshape(4, 4) * 257 * 16).astype(np.uint16)
    (pixels,) = as_data([(Image.fromarray(levels), 0)]).test[0][:1]
    assert pixels.tolist() == [(np.arange(16).reshape(4, 4) * 16).tolist()]


def test_arrays_are_read_as_they_stand_in_memory() -> None:
    """Read-only, backwards, in the other order of bytes."""
    kept = IMAGES.numpy().copy()
    kept.setflags(write=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(pixels((kept, LABELS.numpy())), IMAGES)
    assert torch.equal(pixels((kept[:, ::-1], LABELS.numpy()[::-1])), IMAGES.flip(1))
    assert torch.equal(pixels((kept.astype(">f4"), LABELS.numpy().astype(">i8"))), IMAGES)


def test_own_data_is_known_again_by_its_images_and_labels() -> None:
    def digest(images: Tensor, labels: Tensor) -> dict[str, str]:
        held, pairs = as_data((images, labels)), as_data(list(zip(images, labels.tolist(), strict=True)))
        assert fingerprint(held) == fingerprint(pairs)
        return fingerprint(held)

    changed = IMAGES.clone()
    changed[4, 2, 3, 3] += 0.5
    digests = [digest(IMAGES, LABELS), digest(changed, LABELS), digest(IMAGES, LABELS.roll(1)), {}]
    digests += [digest(IMAGES, LABELS + 1), digest(IMAGES[:, :, :2], LABELS)]
    assert len({str(each) for each in digests}) == 6
    for same in (IMAGES.contiguous(memory_format=torch.channels_last), IMAGES.double()):
        assert digest(same, LABELS) == digests[0]
    levels = (255 * IMAGES).byte()
    assert digest(levels, LABELS) == digest(levels / 255, LABELS)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (3, "data: got int; want (images, labels), a torch Dataset"),
        ((IMAGES, LABELS.float()), "labels: got torch.float32 of shape (5,); want int64 (5,)"),
        ((IMAGES, [0, 1]), "labels: got torch.int64 of shape (2,); want int64 (5,)"),
        ((IMAGES, LABELS[:2]), "labels: got torch.int64 of shape (2,); want int64 (5,)"),
        ((IMAGES[0], LABELS), "images: got shape (3, 4, 4); want (N, C, H, W)"),
        ((IMAGES.long(), LABELS), "images: got torch.int64; want floats in [0, 1], or uint8"),
        ((IMAGES[:0], LABELS[:0]), "images: got shape (0, 3, 4, 4); want (N, C, H, W), at least one"),
        ([], "data: got no image; want at least one"),
        ([(IMAGES[0], 1.5)], "data: item 0 has the label 1.5; want the number of a class"),
        ([(IMAGES[0], None)], "data: item 0 has the label None; want the number of a class"),
        ([(IMAGES[0], "ant")], "data: item 0 has the label 'ant'; want the number of a class"),
        ([(IMAGES[0], torch.eye(3)[1])], "data: item 0 has the label shape (3,); want the number of a class"),
        ([{"a": 1}], "data: item 0 is a dict; want a pair (image, label)"),
        ((IMAGES, LABELS - 1), "labels: got -1; want classes numbered from 0"),
        ((IMAGES, LABELS + 10**12), "want classes numbered from 0"),  # a name for each takes all memory
        ([(None, 0)], "data: image 0: got a NoneType; want numbers"),
        ([({"bytes": b""}, 0)], "data: image 0: got a dict; want numbers"),
        (DataLoader([(IMAGES[0], 0)], batch_size=None), "images: got shape (3, 4, 4); want (N, C, H, W)"),  # type: ignore[arg-type]
        (DataLoader([(IMAGES[0], "ant")]), "labels: got a tuple; want numbers"),  # type: ignore[arg-type]
        ((IMAGES.numpy(), np.array(list("abcde"))), "labels: got an array of <U1; want numbers"),
        ([(Image.new("F", (4, 4)), 0)], "data: image 0 has floating-point pixels"),
        ([(Image.new("I", (4, 4)), 0)], "data: image 0 has integer pixels of unknown brightness"),
        (DataLoader([(IMAGES[0], 0), (IMAGES[1, :, :3], 1)]), "the DataLoader gives images of shapes [(3, 3, 4), (3"),  # type: ignore[arg-type]
        ([(IMAGES, 0)], "data: image 0 has shape (5, 3, 4, 4); want (C, H, W)"),
        (Failing(), "data: item 0 raised KeyError: 'mine' (test_given.py, line "),
        (DataLoader(Failing()), "data: the DataLoader raised KeyError: 'mine' (test_given.py, line "),
        ("nowhere", "data 'nowhere' is unknown"),
    ],
)
def test_what_is_no_data_is_refused(given: Any, said: str) -> None:
    with pytest.raises(InputError) as refused:
        as_data(given).test.labels  # noqa: B018 (labels of a dataset are read when asked for)
    assert said in str(refused.value)
