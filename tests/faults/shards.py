"""The fault matrix of shards: each function spoils a tar or Parquet file that a training reads and returns what was
seen. Its docstring is the promise. It raises Broken where the promise is not kept."""

import io
import os
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow
from PIL import Image
from pyarrow import parquet

from bench import EPOCHS, STEPS, Bench, expect
from shconv.data import ImageSplit, load_data
from training import stored_steps

CLASSES, SHARDS, GROUP = 1000, 4, 50  # an ImageNet with one image of each class in either part
BATCH = CLASSES * EPOCHS // STEPS

Sample = tuple[str, int, bytes]  # name, label, file


@dataclass
class OneForm(Bench):
    """`shconv train` on a small ImageNet in tar or Parquet files. Images of the training are read in each epoch."""

    form: str = "tar"

    def words(self, out: Path) -> list[str]:
        words = ["train", "--data", f"imagenet:{self.root / self.form}", "--image-size", "16", "--width", "4"]
        words += ["--batch-size", str(BATCH), "--epochs", str(EPOCHS), "--precision", "float32"]
        return [*words, "--out", str(out)]

    @property
    def victim(self) -> Path:
        """A shard of the training."""
        return sorted((self.root / self.form).glob("train-*"))[2]


@dataclass
class Shards(Bench):
    """A bench for each form."""

    forms: dict[str, OneForm] = field(default_factory=dict)

    def of(self, form: str) -> OneForm:
        if form not in self.forms:
            root = self.root / form
            (root / form).mkdir(parents=True)
            write_shards(root / form, form)
            self.forms[form] = OneForm(root, self.images, form=form)
        return self.forms[form]


def write_shards(folder: Path, form: str) -> None:
    """Photograph patches of the demo; those for training enlarged to 80 pixels, too large to be held in memory."""
    demo = load_data("demo")
    assert demo.train is not None
    for part, split, side in (("train", demo.train, 80), ("val", demo.test, 16)):
        samples = list(jpegs(split, side))
        for shard in range(SHARDS):
            if form == "tar":
                write_tar(folder / f"{part}-{shard:06d}.tar", samples[shard::SHARDS])
            else:
                write_parquet(folder / f"{part}-{shard:05d}-of-{SHARDS:05d}.parquet", samples[shard::SHARDS])


def jpegs(split: ImageSplit, side: int) -> Iterator[Sample]:
    for label in range(CLASSES):
        stream = io.BytesIO()
        pixels = split[label * len(split) // CLASSES][0].permute(1, 2, 0).numpy()
        Image.fromarray(pixels).resize((side, side)).save(stream, "JPEG")
        yield f"{label:04d}", label, stream.getvalue()


def write_tar(path: Path, samples: Sequence[Sample]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, label, image in samples:
            for suffix, data in (("jpg", image), ("cls", str(label).encode())):
                header = tarfile.TarInfo(f"{name}.{suffix}")
                header.size = len(data)
                tar.addfile(header, io.BytesIO(data))


def write_parquet(path: Path, samples: Sequence[Sample]) -> None:
    kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    images = pyarrow.array([{"bytes": image, "path": f"{name}.jpg"} for name, _, image in samples], kind)
    table = pyarrow.table({"image": images, "label": pyarrow.array([label for _, label, _ in samples])})
    parquet.write_table(table, path, row_group_size=GROUP)


def deleted_tar(bench: Shards, out: Path) -> str:
    """It is named, no step is lost; once it is restored, the same command ends bit for bit."""
    return _trouble(bench.of("tar"), out, Path.unlink)


def truncated_tar(bench: Shards, out: Path) -> str:
    """It is named, no step is lost; once it is restored, the same command ends bit for bit."""
    return _trouble(bench.of("tar"), out, _truncated)


def deleted_parquet(bench: Shards, out: Path) -> str:
    """It is named, no step is lost; once it is restored, the same command ends bit for bit."""
    return _trouble(bench.of("parquet"), out, Path.unlink)


def truncated_parquet(bench: Shards, out: Path) -> str:
    """It is named, no step is lost; once it is restored, the same command ends bit for bit."""
    return _trouble(bench.of("parquet"), out, _truncated)


def _truncated(path: Path) -> None:
    """Another file in its place, with the first half of what it held."""
    half = path.with_name("half")
    half.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    os.replace(half, path)


def _trouble(bench: OneForm, out: Path, spoil: Callable[[Path], object]) -> str:
    victim, content = bench.victim, bench.victim.read_bytes()
    try:
        with bench.started(out, "--workers", "2", "--save-minutes", "60") as run:
            run.await_that(lambda: f"epoch 1/{EPOCHS}" in run.text, "the first epoch")
            spoil(victim)
            code = run.end()
            taken = stored_steps(out)
            refused = bench.start(out, "--workers", "2")
            again = refused.end()
    finally:
        victim.write_bytes(content)
    expect(code == 2 and victim.name in run.text, f"exit code {code}: {run.text[-300:]}")
    expect(taken >= STEPS // EPOCHS, f"stored after step {taken}")
    told = victim.name in refused.text or "number 2 is missing" in refused.text
    expect(again == 2 and told, f"before it is restored: exit code {again}: {refused.text[-300:]}")
    bench.finish(out, "--workers", "2")
    bench.expect_same(out)
    return f"exit code 2, {victim.name} named, stored after step {taken}; refused until it is restored; bit for bit"


FAULTS: dict[str, Callable[[Shards, Path], str]] = {
    "a tar shard deleted in mid-run": deleted_tar,
    "a tar shard truncated in mid-run": truncated_tar,
    "a Parquet shard deleted in mid-run": deleted_parquet,
    "a Parquet shard truncated in mid-run": truncated_parquet,
}
