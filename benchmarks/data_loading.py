"""Images per second of the training loader against torchvision's reference loader, on the same JPEG files.
Runs are interleaved, and what counts is the ratio within a round:

    python benchmarks/data_loading.py --data FOLDER [--tile 2] [--workers 2]

FOLDER holds one folder a class. From its images a folder, WebDataset tars and Parquet files are made for the time of
the run. --tile 2 puts 2 x 2 images together, so that small ones reach the usual size of ImageNet's.
"""

import io
import math
import platform
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from shconv.data import training_batches
from shconv.data.listing import list_split
from shconv.data.order import epoch_order, groups_wanted, share_of
from shconv.data.parquet import index_parquet
from shconv.data.splits import FileSplit
from shconv.data.tars import index_tars
from shconv.data.transforms import resized_crop_pixels

ROW_GROUP = 100  # as Hugging Face's datasets writes images


@dataclass
class Options:
    data: Path
    """A folder with one folder of images for each class."""
    tile: int = 1
    """Put this many images side by side, and as many below one another."""
    images: int = 1000
    """Images in an epoch; the given ones are repeated as often as needed."""
    image_size: int = 224
    batch_size: int = 64
    workers: int = 2
    rounds: int = 5
    parquet_memory: float = 3.0
    """GB of row groups among which an epoch from Parquet is shuffled at any moment."""
    quality: int = 90
    """JPEG quality of tiled images; others are taken as they are."""


def main(options: Options) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        samples = encoded_images(options)
        write_folder(root, samples)
        write_tar(root, samples)
        write_parquet(root, samples)
        splits = open_splits(root, options)
        reference = ImageFolder(str(root / "train"), reference_transform(options.image_size))
        runs: dict[str, Callable[[int], Iterable[torch.Tensor]]] = {
            "torchvision, folder": lambda epoch: reference_epoch(reference, options),
            **{f"shconv, {form}": our_epoch(split, options) for form, split in splits.items()},
        }
        describe(options, samples)
        compare(runs, options)
        where_the_time_goes(splits, reference, options)


def compare(runs: dict[str, Callable[[int], Iterable[torch.Tensor]]], options: Options) -> None:
    speeds: dict[str, list[float]] = {name: [] for name in runs}
    for epoch in range(options.rounds):
        for name, run in runs.items():
            speeds[name].append(images_per_second(run(epoch)))
    base = next(iter(speeds.values()))
    print(f"\n| loader | images/s, median of {options.rounds} | ratio to torchvision | lowest to highest |")
    print("|---|---|---|---|")
    for name, values in speeds.items():
        ratios = [value / other for value, other in zip(values, base, strict=True)]
        spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
        print(f"| {name} | {statistics.median(values):,.0f} | {statistics.median(ratios):.2f} | {spread} |")


def images_per_second(batches: Iterable[torch.Tensor]) -> float:
    """From the arrival of the first batch on: starting the workers is not what is compared."""
    count, start = 0, math.nan
    for i, images in enumerate(batches):
        if i == 0:
            start = time.perf_counter()
        else:
            count += len(images)
    return count / (time.perf_counter() - start)


def our_epoch(split: FileSplit, options: Options) -> Callable[[int], Iterable[torch.Tensor]]:
    def run(epoch: int) -> Iterable[torch.Tensor]:
        batches = training_batches(
            split, "resized_crop", batch_size=options.batch_size, seed=0, epoch=epoch, workers=options.workers
        )
        return (batch.images for batch in batches)

    return run


def reference_transform(size: int) -> Callable[[Image.Image], torch.Tensor]:
    steps = [transforms.RandomResizedCrop(size), transforms.RandomHorizontalFlip(), transforms.PILToTensor()]
    return transforms.Compose(steps)  # type: ignore[no-any-return]


def reference_epoch(dataset: ImageFolder, options: Options) -> Iterable[torch.Tensor]:
    loader = DataLoader(dataset, options.batch_size, shuffle=True, num_workers=options.workers, drop_last=True)
    return (images for images, _ in loader)


def where_the_time_goes(splits: dict[str, FileSplit], reference: ImageFolder, options: Options) -> None:
    """Milliseconds an image in one process, step by step; reading in the order of a whole epoch."""
    torch.set_num_threads(1)
    some = np.random.default_rng(0).permutation(len(reference))[:100].tolist()
    folder, rng = splits["folder"], np.random.default_rng(0)
    decoded = {i: folder.original_pixels(i) for i in some}
    steps: dict[str, tuple[Callable[[int], object], list[int]]] = {
        **{f"shconv: reading, {form}": reading(split, options.batch_size) for form, split in splits.items()},
        "shconv: reading and decoding, folder": (folder.original_pixels, some),
        "shconv: crop, resize, flip": (lambda i: resized_crop_pixels(decoded[i], options.image_size, rng), some),
        "torchvision: reading and decoding": (lambda i: reference.loader(reference.samples[i][0]), some),
        "torchvision: all": (lambda i: reference[i], some),
    }
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(options.rounds):
        for name, (step, order) in steps.items():
            start = time.perf_counter()
            for i in order:
                step(i)
            times[name].append((time.perf_counter() - start) / len(order) * 1e3)
    print("\n| one process | ms an image |\n|---|---|")
    for name, values in times.items():
        print(f"| {name} | {statistics.median(values):.2f} |")


def reading(split: FileSplit, batch: int) -> tuple[Callable[[int], object], list[int]]:
    """(what reads an image as training does, the images of an epoch in order)."""
    files, groups = split.files, split.files.groups
    order = epoch_order(len(split), batch, np.random.default_rng(0), groups).ravel().tolist()
    if groups is not None:
        files = files.holding(groups_wanted(share_of(batch, 0, 1), 1, batch, groups))
    return files.read, order


def encoded_images(options: Options) -> list[tuple[str, int, bytes]]:
    """(name, label, JPEG) of the given images, in an order that mixes the classes."""
    given = list_split(options.data.parent, (options.data.name,))
    order = np.random.default_rng(0).permutation(len(given)).tolist()
    each = options.tile**2
    groups = [order[i * each : (i + 1) * each] for i in range(len(order) // each)]
    made = [(int(given.labels[group[0]]), tiled([given.files.read(i) for i in group], options)) for group in groups]
    return [(f"{i:06d}", *made[i % len(made)]) for i in range(options.images)]


def tiled(images: list[bytes], options: Options) -> bytes:
    if options.tile == 1:
        return images[0]
    pictures = [Image.open(io.BytesIO(image)).convert("RGB") for image in images]
    width, height = pictures[0].size
    whole = Image.new("RGB", (width * options.tile, height * options.tile))
    for i, picture in enumerate(pictures):
        whole.paste(picture.resize((width, height)), (i % options.tile * width, i // options.tile * height))
    stream = io.BytesIO()
    whole.save(stream, "JPEG", quality=options.quality)
    return stream.getvalue()


def write_folder(root: Path, samples: list[tuple[str, int, bytes]]) -> None:
    for name, label, image in samples:
        (root / "train" / f"{label:04d}").mkdir(parents=True, exist_ok=True)
        (root / "train" / f"{label:04d}" / f"{name}.jpg").write_bytes(image)


def write_tar(root: Path, samples: list[tuple[str, int, bytes]]) -> None:
    with tarfile.open(root / "train-000000.tar", "w") as tar:
        for name, label, image in samples:
            for suffix, data in (("jpg", image), ("cls", str(label).encode())):
                header = tarfile.TarInfo(f"{name}.{suffix}")
                header.size = len(data)
                tar.addfile(header, io.BytesIO(data))


def write_parquet(root: Path, samples: list[tuple[str, int, bytes]]) -> None:
    import pyarrow
    from pyarrow import parquet

    kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    images = pyarrow.array([{"bytes": image, "path": f"{name}.jpg"} for name, _, image in samples], kind)
    table = pyarrow.table({"image": images, "label": pyarrow.array([label for _, label, _ in samples])})
    parquet.write_table(table, root / "train-00000-of-00001.parquet", row_group_size=ROW_GROUP)


def open_splits(root: Path, options: Options) -> dict[str, FileSplit]:
    listing = list_split(root, ("train",))
    tar, tar_labels = index_tars(root, ["train-000000.tar"])
    rows, row_labels, _ = index_parquet(root, ["train-00000-of-00001.parquet"], options.parquet_memory)
    forms = {"folder": (listing.files, listing.labels), "tar": (tar, tar_labels), "Parquet": (rows, row_labels)}
    size = options.image_size
    return {
        form: FileSplit(files, torch.from_numpy(labels), size, size, "paper") for form, (files, labels) in forms.items()
    }


def describe(options: Options, samples: list[tuple[str, int, bytes]]) -> None:
    sizes = [Image.open(io.BytesIO(image)).size for _, _, image in samples[:200]]
    width, height = (round(statistics.mean(size[k] for size in sizes)) for k in (0, 1))
    kilobytes = statistics.mean(len(image) for _, _, image in samples) / 1e3
    print(f"{platform.processor() or platform.machine()}, torch {torch.__version__}, {options.workers} workers")
    print(f"{len(samples):,} JPEGs, on average {width} x {height} and {kilobytes:.0f} kB, to {options.image_size} px")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
