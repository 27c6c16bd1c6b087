"""Every form of ImageNet gives the same images with the same labels, or an error that says what is wrong."""

import pickle
import shutil
import sys
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from imagenets import (
    IDS,
    NAMES,
    TRUTHS,
    Sample,
    add,
    samples,
    write_flat_val,
    write_folders,
    write_parquet,
    write_tars,
)

from shconv.data import ImageData, files, load_data
from shconv.data.parquet import index_parquet
from shconv.data.splits import FileSplit
from shconv.data.unpack import unpack
from shconv.errors import InputError
from toys import processes

TRAIN, VAL = samples("train"), samples("val")
WRITERS: dict[str, Callable[..., None]] = {"folders": write_folders, "tars": write_tars, "parquet": write_parquet}


@cache
def shards(form: str, part: str) -> dict[Path, bytes]:
    """The files of a part: what most tests start from is made once."""
    if form == "parquet":
        pytest.importorskip("pyarrow")
    with TemporaryDirectory() as folder:
        WRITERS[form](Path(folder), part, TRAIN if part == "train" else VAL)
        made = (path for path in Path(folder).rglob("*") if path.is_file())
        return {path.relative_to(folder): path.read_bytes() for path in made}


def write(form: str, root: Path, parts: Sequence[str] = ("train", "validation")) -> Path:
    """An ImageNet, or some parts of it."""
    if form == "folders":
        for part in parts:
            write_folders(root, part.removesuffix("idation"), TRAIN if part == "train" else VAL)
        return root
    for part in parts:
        for name, data in shards(form, part).items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(data)
    return root


@pytest.fixture(scope="module")
def root_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """An ImageNet in that form, which no test changes: thousands of files take long to make and to remove."""
    return cache(lambda form: write(form, tmp_path_factory.mktemp(form)))


@pytest.fixture(params=list(WRITERS))
def root(request: pytest.FixtureRequest, root_of: Callable[[str], Path]) -> Path:
    return root_of(request.param)


@pytest.fixture(scope="module")
def flat(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """val/ as image-net.org gives it, which no test changes, and the WordNet id of each image."""
    folder = tmp_path_factory.mktemp("flat")
    ids = write_flat_val(folder)
    return folder / "val", ids


def by_label(data: ImageData, part: str) -> torch.Tensor:
    split = getattr(data, part)
    assert sorted(split.labels.tolist()) == list(range(1000))
    return torch.stack([split[i][0] for i in torch.argsort(split.labels).tolist()])


def test_every_form_gives_the_standard_labels_and_says_what_was_checked(root: Path) -> None:
    data = load_data(f"imagenet:{root}")
    assert data.classes == tuple(IDS)
    for part, length in (("train", len("train")), ("test", len("val"))):
        pixels = by_label(data, part)[:, :, 0, 0].tolist()
        assert pixels == [[label // 256, label % 256, length] for label in range(1000)]
    assert data.note.startswith("Labels: the places of")
    assert "1,000 validation and 1,000 training images, where ILSVRC2012 has 50,000 and 1,281,167." in data.note


def test_splits_can_be_sent_to_other_processes_and_read_there(
    root_of: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "MEMORY_LIMIT", 0)
    splits = [load_data(f"imagenet:{root_of(form)}", image_size=9, want_train=False).test for form in WRITERS]
    assert all(isinstance(split, FileSplit) and len(pickle.dumps(split)) < 200_000 for split in splits)
    jobs = [(split, i) for split in splits for i in (0, 500, 999)]
    with processes().Pool(1) as pool:
        got = pool.starmap(FileSplit.__getitem__, jobs)
    for (split, i), (image, label) in zip(jobs, got, strict=True):
        assert torch.equal(image, split[i][0])
        assert label == split[i][1]


def test_only_validation_will_do_without_training(root: Path, tmp_path: Path) -> None:
    for path in (*root.iterdir(), *root.glob("data/*")):
        if "train" not in path.name and path.name != "data":
            link = tmp_path / path.relative_to(root)
            link.parent.mkdir(exist_ok=True)
            link.symlink_to(path)
    assert len(load_data(f"imagenet:{tmp_path}", want_train=False).test) == 1000
    with pytest.raises(InputError, match=r"wanted (train/|some, as for)"):
        load_data(f"imagenet:{tmp_path}")


@pytest.mark.parametrize(("form", "folder"), [("tars", ""), ("parquet", "data")])
def test_shards_may_lie_in_folders_of_their_own(form: str, folder: str, tmp_path: Path) -> None:
    source = write(form, tmp_path / "source")
    shards = sorted(path for path in source.rglob("*") if path.is_file())
    for shard in shards:
        part = "train" if "train" in shard.name else "val"
        target = tmp_path / "target" / (part if folder == "" else folder) / shard.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(shard, target)
    assert load_data(f"imagenet:{tmp_path / 'target'}").classes == tuple(IDS)


@pytest.mark.parametrize("form", ["tars", "parquet"])
def test_a_missing_shard_is_named(form: str, tmp_path: Path) -> None:
    write(form, tmp_path)
    next(path for path in sorted(tmp_path.rglob("*train*1*")) if "0001" in path.name).unlink()
    with pytest.raises(InputError, match=r"number 1 is missing"):
        load_data(f"imagenet:{tmp_path}")


@pytest.mark.parametrize("form", ["tars", "parquet"])
def test_a_shard_that_is_cut_short_is_named(form: str, tmp_path: Path) -> None:
    write(form, tmp_path)
    shard = max(tmp_path.rglob("*train*"))
    whole = shard.read_bytes()
    shard.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=shard.name) as caught:
        load_data(f"imagenet:{tmp_path}")
    assert "\n" not in str(caught.value)


def test_a_tar_that_was_never_finished_is_named(tmp_path: Path) -> None:
    write_tars(tmp_path, "val", VAL, shards=1)
    (shard,) = tmp_path.iterdir()
    with tarfile.open(shard) as tar:
        end = tar.getmembers()[100].offset  # between two images: all that is there can be read
    shard.write_bytes(shard.read_bytes()[:end])
    with pytest.raises(InputError, match=r"the tar file is cut short"):
        load_data(f"imagenet:{tmp_path}", want_train=False)


@pytest.mark.parametrize("form", ["tars", "parquet"])
def test_a_shard_that_vanishes_later_is_named_by_the_image_that_wants_it(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "MEMORY_LIMIT", 0)
    split = load_data(f"imagenet:{write(form, tmp_path, ['validation'])}", want_train=False).test
    shard = max(tmp_path.rglob("*validation*"))
    shard.unlink()
    split[0]
    with pytest.raises(InputError, match=rf"{shard.name}: cannot be read"):
        split[999]


@pytest.mark.parametrize("form", ["tars", "parquet"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: replace(s, label=(s.label + 1) % 1000), r"label 0 is n15075141; .* it is n01440764"),
        (lambda s: replace(s, label=-1 if s.label < 500 else s.label), r"has no label \(and 499 more"),
        (lambda s: replace(s, label=s.label + 1), r"has the label 1000 \(and 0 more"),
        (lambda s: replace(s, label=max(1, s.label)), r"(no image of label 0|as n01440764|as n01443537)"),
        (lambda s: replace(s, name=f"{s.name}_n01440764"), r"has the label \d+, as|not those of|label \d+ is"),
        (lambda s: replace(s, name=s.name.replace("n0144", "n9144")), r"are not those of ILSVRC2012"),
    ],
)
def test_labels_that_are_not_imagenets_are_an_error(
    form: str, change: Callable[[Sample], Sample], message: str, tmp_path: Path
) -> None:
    write(form, tmp_path, ["train"])
    WRITERS[form](tmp_path, "val", [change(sample) for sample in VAL])
    with pytest.raises(InputError, match=message):
        load_data(f"imagenet:{tmp_path}")


def test_labels_in_json_and_places_of_wordnet_ids_are_the_same(tmp_path: Path) -> None:
    for how in ("json", ""):
        for part, images in (("train", TRAIN), ("validation", VAL)):
            write_tars(tmp_path / f"by {how}", part, images, how)
    by_json, by_ids = (load_data(f"imagenet:{tmp_path / f'by {how}'}") for how in ("json", ""))
    assert torch.equal(by_json.train.labels, by_ids.train.labels)
    assert torch.equal(by_json.train.labels, torch.tensor([s.label for k in range(3) for s in TRAIN[k::3]]))


def test_tars_without_wordnet_ids_are_taken_by_their_labels_and_that_is_said(tmp_path: Path) -> None:
    for part, images in (("train", TRAIN), ("val", VAL)):
        write_tars(tmp_path, part, [replace(s, name=f"{i:07d}") for i, s in enumerate(images)])
    data = load_data(f"imagenet:{tmp_path}")
    assert by_label(data, "train")[:, 1, 0, 0].tolist() == [label % 256 for label in range(1000)]
    assert "nothing says which classes" in data.note
    write_tars(tmp_path, "val", [replace(s, name=f"{i:07d}") for i, s in enumerate(VAL)], how="")
    with pytest.raises(InputError, match=r"0000000\.png has no label \(and 999 more"):
        load_data(f"imagenet:{tmp_path}")


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        *[("cls", b"tench"), ("cls", b"9" * 30), ("json", b"{'label': 3}"), ("json", b'{"label": null}')],
        *[("json", b'{"label": 3.7}'), ("json", b'{"label": 1e400}'), ("json", b"[" * 100_000)],
    ],
)
def test_a_label_that_is_no_number_is_named(kind: str, text: bytes, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "val-0.tar", "w") as tar:
        add(tar, "a.png", VAL[0].image)
        add(tar, f"a.{kind}", text)
    with pytest.raises(InputError, match=rf"val-0\.tar: a\.{kind} holds no label"):
        load_data(f"imagenet:{tmp_path}", want_train=False)


@pytest.mark.parametrize(("kind", "said"), [("twice", "a.png is there twice"), ("link", "b.png is a link")])
def test_an_image_twice_or_behind_a_link_in_a_tar_is_named(kind: str, said: str, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "val-0.tar", "w") as tar:
        for image in VAL[:2] if kind == "twice" else VAL[:1]:
            add(tar, "a.png", image.image)
            add(tar, "a.cls", str(image.label).encode())
        link = tarfile.TarInfo("b.png")
        link.type, link.linkname = tarfile.LNKTYPE, "a.png"
        tar.addfile(link)
    with pytest.raises(InputError, match=said):
        load_data(f"imagenet:{tmp_path}", want_train=False)


def test_two_tars_in_one_file_are_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "val-0.tar", "w") as tar:
        add(tar, "a.png", VAL[0].image)
    (tmp_path / "val-0.tar").write_bytes(2 * (tmp_path / "val-0.tar").read_bytes())
    with pytest.raises(InputError, match=r"val-0\.tar: more follows its end"):
        load_data(f"imagenet:{tmp_path}", want_train=False)


def test_shards_without_an_image_are_refused(tmp_path: Path) -> None:
    tarfile.open(tmp_path / "val-0.tar", "w").close()
    with pytest.raises(InputError, match=r"its shards hold no images; wanted some of each"):
        load_data(f"imagenet:{tmp_path}", want_train=False)


@pytest.mark.parametrize("kind", ["uint8", "bool_", "float32", "string"])
def test_labels_of_every_type_are_whole_numbers_in_parquet_files(kind: str, tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    def labels(values: Sequence[float]) -> list[int]:
        stored = pyarrow.array(values).cast("bool" if kind == "bool_" else getattr(pyarrow, kind)())
        images = pyarrow.array([{"bytes": b"", "path": ""} for _ in values])
        parquet.write_table(pyarrow.table({"image": images, "label": stored}), tmp_path / "0.parquet")
        return index_parquet(tmp_path, ["0.parquet"])[1].tolist()  # type: ignore[no-any-return]

    assert labels([0, 1, 1]) == [0, 1, 1]
    if kind == "float32":
        with pytest.raises(InputError, match=r"0\.parquet: cannot be read \(Float value 1\.5"):
            labels([0, 1.5])


def test_class_names_stand_in_for_wordnet_ids(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    unnamed = {part: [replace(s, name="") for s in images] for part, images in (("train", TRAIN), ("val", VAL))}
    for part, images in unnamed.items():
        write_parquet(tmp_path, part, images, NAMES)
    data = load_data(f"imagenet:{tmp_path}")
    assert data.classes == tuple(NAMES)
    assert "the names of their classes are ImageNet's" in data.note
    write_parquet(tmp_path, "val", unnamed["val"], NAMES[1:] + NAMES[:1])
    with pytest.raises(InputError, match=r"class names are not ImageNet's; label 0 is 'goldfish.*calls 'tench'"):
        load_data(f"imagenet:{tmp_path}")
    write_parquet(tmp_path, "val", unnamed["val"], [*NAMES[:-1], "loo roll"])
    with pytest.raises(InputError, match=r"label 999 is loo roll in validation and"):
        load_data(f"imagenet:{tmp_path}")


def test_without_pyarrow_the_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "val-00000-of-00001.parquet").touch()
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(InputError, match="pip install pyarrow"):
        load_data(f"imagenet:{tmp_path}", want_train=False)


def test_parquet_with_other_columns_says_which_are_missing(tmp_path: Path) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.table({"label": [1], "img": [b"x"]}), tmp_path / "val.parquet")
    with pytest.raises(InputError, match=r"columns label, img; missing: image\.bytes, image\.path"):
        load_data(f"imagenet:{tmp_path}", want_train=False)


@pytest.mark.parametrize("form", ["tars", "parquet"])
def test_broken_and_empty_images_in_shards_are_named_or_skipped(form: str, tmp_path: Path) -> None:
    if form == "parquet":
        pytest.importorskip("pyarrow")
    extra = [
        replace(VAL[0], name=f"{VAL[0].name}_x", image=b"no image"),
        replace(VAL[1], name=f"{VAL[1].name}_y", image=b""),
    ]
    WRITERS[form](tmp_path, "val", [*VAL, *extra])
    with pytest.raises(InputError, match=rf"{VAL[0].name}_x\.png|{VAL[1].name}_y\.png"):
        load_data(f"imagenet:{tmp_path}", want_train=False)
    data = load_data(f"imagenet:{tmp_path}", want_train=False, on_corrupt="skip")
    assert (len(data.test), data.skipped) == (1000, 2)
    assert by_label(data, "test")[:, 1, 0, 0].tolist() == [label % 256 for label in range(1000)]


@pytest.mark.parametrize("who", list(TRUTHS))
def test_a_flat_val_gets_its_labels_from_the_ground_truth(
    who: str, tmp_path: Path, flat: tuple[Path, list[str]]
) -> None:
    val, ids = flat
    (tmp_path / "val").symlink_to(val)
    TRUTHS[who](tmp_path, ids)
    data = load_data(f"imagenet:{tmp_path}", want_train=False)
    assert data.classes == tuple(IDS)
    assert data.test.labels.tolist() == [IDS.index(i) for i in ids]
    assert by_label(data, "test")[:, 1, 0, 0].tolist() == [label % 256 for label in range(1000)]


def test_kaggles_whole_tree_is_understood(tmp_path: Path, flat: tuple[Path, list[str]]) -> None:
    inner = tmp_path / "ILSVRC/Data/CLS-LOC"
    inner.mkdir(parents=True)
    (inner / "val").symlink_to(flat[0])
    TRUTHS["kaggle"](tmp_path, flat[1])
    assert by_label(load_data(f"imagenet:{tmp_path}", want_train=False), "test")[7, 1, 0, 0] == 7
    assert by_label(load_data(f"imagenet:{inner}", want_train=False), "test")[7, 1, 0, 0] == 7


def test_a_flat_val_without_ground_truth_says_what_would_do(tmp_path: Path) -> None:
    ids = write_flat_val(tmp_path)
    with pytest.raises(InputError, match=r"wanted beside it meta\.bin .*, LOC_val_solution\.csv or ILSVRC2012_devkit"):
        load_data(f"imagenet:{tmp_path}", want_train=False)
    TRUTHS["torchvision"](tmp_path, ids)
    (tmp_path / "val" / "notes.txt").touch()
    with pytest.raises(InputError, match=r"holds notes\.txt; wanted ILSVRC2012_val_00000001\.JPEG"):
        load_data(f"imagenet:{tmp_path}", want_train=False)
    (tmp_path / "meta.bin").write_bytes(b"not a pickle")
    with pytest.raises(InputError, match=r"meta\.bin: cannot be read"):
        load_data(f"imagenet:{tmp_path}", want_train=False)


def test_folders_of_other_wordnet_ids_or_other_classes_are_an_error(
    tmp_path: Path, root_of: Callable[[str], Path]
) -> None:
    (tmp_path / "val").mkdir()
    for label in IDS:
        (tmp_path / "val" / label).symlink_to(root_of("folders") / "val" / label)
    (tmp_path / "val" / IDS[5]).rename(tmp_path / "val" / "n99999999")
    with pytest.raises(InputError, match=r"are not those of ILSVRC2012"):
        load_data(f"imagenet:{tmp_path}", want_train=False)
    (tmp_path / "val" / "n99999999").rename(tmp_path / "val" / "other")
    with pytest.raises(InputError, match=r"999 of them named as n01440764.*folder:PATH"):
        load_data(f"imagenet:{tmp_path}", want_train=False)
    (tmp_path / "train").symlink_to(root_of("folders") / "train")
    with pytest.raises(InputError, match=rf"differ; only in train/: {IDS[5]}; only in val/: other"):
        load_data(f"imagenet:{tmp_path}")


def test_the_original_archives_are_no_form(tmp_path: Path) -> None:
    (tmp_path / "ILSVRC2012_img_val.tar").touch()
    with pytest.raises(InputError, match=r"holds ILSVRC2012_img_val\.tar; wanted train/ and val/ .* or uncompressed"):
        load_data(f"imagenet:{tmp_path}")


def test_unpacked_parquet_is_the_same_imagenet_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    source, target = write("parquet", tmp_path / "parquet"), tmp_path / "tars"
    written = list(unpack(source, target))
    assert len(written) == 6
    packed, unpacked = load_data(f"imagenet:{source}"), load_data(f"imagenet:{target}")
    for part in ("train", "test"):
        a, b = getattr(packed, part), getattr(unpacked, part)
        assert torch.equal(a.images, b.images)
        assert torch.equal(a.labels, b.labels)
    times = [path.stat().st_mtime_ns for path in written]
    written[2].unlink()
    assert list(unpack(source, target)) == written
    changed = [path.stat().st_mtime_ns != time for path, time in zip(written, times, strict=True)]
    assert changed == [i == 2 for i in range(6)]
    with pytest.raises(InputError, match="holds no Parquet files"):
        list(unpack(target, tmp_path / "again"))


def test_shards_of_one_name_in_two_folders_are_unpacked_apart_or_refused(tmp_path: Path) -> None:
    made = shards("parquet", "train")[Path("data/train-00000-of-00003.parquet")]
    source, target = tmp_path / "source", tmp_path / "target"
    for folder in ("default/train", "default/validation"):
        (source / folder).mkdir(parents=True)
        (source / folder / "0000.parquet").write_bytes(made)
    assert list(unpack(source, target)) == [target / "train/0000.tar", target / "validation/0000.tar"]
    (source / "other/train").mkdir(parents=True)
    (source / "other/train/0000.parquet").write_bytes(made)
    with pytest.raises(
        InputError, match=r"default/train/0000\.parquet and other/train/0000\.parquet would both become"
    ):
        list(unpack(source, target))
