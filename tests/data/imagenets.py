"""Small ImageNets for tests: 1000 classes with an image each, in every form that `imagenet:PATH` reads."""

import csv
import io
import json
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from timm.data import ImageNetInfo

IDS: list[str] = ImageNetInfo().label_names()
NAMES: list[str] = ImageNetInfo().label_descriptions()


@dataclass(frozen=True)
class Sample:
    name: str  # without suffix
    label: int
    image: bytes


def png(label: int, part: str) -> bytes:
    """8 x 8 pixels that tell the label and the part."""
    stream = io.BytesIO()
    Image.new("RGB", (8, 8), (label // 256, label % 256, len(part))).save(stream, "png")
    return stream.getvalue()


def samples(part: str) -> list[Sample]:
    """One for each class, named as Hugging Face names them, in no particular order."""
    order = np.random.default_rng(len(part)).permutation(1000).tolist()
    return [Sample(f"{IDS[label]}_{i}_{IDS[label]}", label, png(label, part)) for i, label in enumerate(order)]


def write_folders(root: Path, part: str, images: Sequence[Sample]) -> None:
    for sample in images:
        folder = root / part / IDS[sample.label]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{sample.name}.png").write_bytes(sample.image)


def write_tars(root: Path, part: str, images: Sequence[Sample], how: str = "cls", shards: int = 3) -> None:
    """how: "cls" or "json" beside each image, or "" for neither."""
    root.mkdir(exist_ok=True)
    for shard in range(shards):
        with tarfile.open(root / f"imagenet1k-{part}-{shard:04d}.tar", "w") as tar:
            for sample in images[shard::shards]:
                add(tar, f"{sample.name}.png", sample.image)
                if how == "cls":
                    add(tar, f"{sample.name}.cls", str(sample.label).encode())
                elif how == "json":
                    add(tar, f"{sample.name}.json", json.dumps({"label": sample.label, "width": 8}).encode())


def add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    header = tarfile.TarInfo(name)
    header.size = len(data)
    tar.addfile(header, io.BytesIO(data))


def write_parquet(
    root: Path, part: str, images: Sequence[Sample], names: Sequence[str] | None = None, shards: int = 3
) -> None:
    """names: of the classes, put where Hugging Face's datasets puts them."""
    import pyarrow
    from pyarrow import parquet

    (root / "data").mkdir(parents=True, exist_ok=True)
    kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    feature = {"_type": "ClassLabel"} | ({"names": list(names)} if names is not None else {})
    about = {"huggingface": json.dumps({"info": {"features": {"image": {"_type": "Image"}, "label": feature}}})}
    for shard in range(shards):
        here = images[shard::shards]
        columns = {
            "image": pyarrow.array([{"bytes": s.image, "path": f"{s.name}.png"} for s in here], kind),
            "label": pyarrow.array([s.label for s in here], pyarrow.int64()),
        }
        path = root / "data" / f"{part}-{shard:05d}-of-{shards:05d}.parquet"
        parquet.write_table(pyarrow.table(columns).replace_schema_metadata(about), path, row_group_size=100)


def write_flat_val(root: Path) -> list[str]:
    """val/ as image-net.org gives it; the WordNet id of each image."""
    (root / "val").mkdir(parents=True)
    labels = np.random.default_rng(7).permutation(1000).tolist()
    for number, label in enumerate(labels, 1):
        (root / "val" / f"ILSVRC2012_val_{number:08d}.JPEG").write_bytes(png(label, "val"))
    return [IDS[label] for label in labels]


def torchvision_truth(root: Path, ids: Sequence[str]) -> None:
    torch.save(({i: (name,) for i, name in zip(IDS, NAMES, strict=True)}, list(ids)), root / "meta.bin")


def kaggle_truth(root: Path, ids: Sequence[str]) -> None:
    with (root / "LOC_val_solution.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["ImageId", "PredictionString"])
        order = np.random.default_rng(8).permutation(len(ids)).tolist()
        rows.writerows([f"ILSVRC2012_val_{i + 1:08d}", f"{ids[i]} 1 2 30 40 {ids[i]} 5 6 70 80 "] for i in order)


def devkit_truth(root: Path, ids: Sequence[str]) -> None:
    from scipy.io import savemat

    data = root / "ILSVRC2012_devkit_t12" / "data"
    data.mkdir(parents=True)
    # The kit numbers its classes in an order of its own, and lists the inner nodes of the hierarchy after them.
    order = [*np.random.default_rng(9).permutation(IDS).tolist(), "n00001740"]
    synsets = np.array([(i, name) for i, name in enumerate(order, 1)], dtype=[("ILSVRC2012_ID", "O"), ("WNID", "O")])
    savemat(data / "meta.mat", {"synsets": synsets})
    numbers = {name: i for i, name in enumerate(order, 1)}
    (data / "ILSVRC2012_validation_ground_truth.txt").write_text("".join(f"{numbers[i]}\n" for i in ids))


TRUTHS: dict[str, Callable[[Path, Sequence[str]], None]] = {
    "torchvision": torchvision_truth,
    "kaggle": kaggle_truth,
    "devkit": devkit_truth,
}
