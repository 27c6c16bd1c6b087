"""Parquet shards to WebDataset tars, which can be read in any order: python -m shconv.data.unpack SOURCE TARGET.
What is there already is left alone, so the same command continues where it was stopped."""

import io
import os
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from shconv.data.hidden import any_hidden
from shconv.data.imagenet import PARTS
from shconv.data.parquet import index_parquet
from shconv.errors import InputError

USAGE = "usage: python -m shconv.data.unpack SOURCE TARGET, the folder of the Parquet files and one for the tars"


def unpack(source: Path, target: Path) -> Iterator[Path]:
    """Writes a tar for each Parquet file below source, with the images byte for byte and their labels; gives the tar's
    path when it is whole. Raises InputError where a file is no Parquet file of images, two would become one tar, or
    there is none."""
    found = [path.relative_to(source) for path in source.rglob("*.parquet")]
    shards = sorted(path.as_posix() for path in found if not any_hidden(path.parts))
    if not shards:
        raise InputError(f"{source} holds no Parquet files; wanted some such as train-00000-of-00294.parquet")
    written: dict[Path, str] = {}
    for shard in shards:
        path = _place(target, PurePosixPath(shard))
        if (other := written.setdefault(path, shard)) != shard:
            raise InputError(f"{source}: {other} and {shard} would both become {path}; wanted other names")
    for path, shard in written.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            unfinished = path.with_suffix(".unfinished")
            _write_tar(source, shard, unfinished)
            os.replace(unfinished, path)
        yield path


def _place(target: Path, shard: PurePosixPath) -> Path:
    """Of its tar. A folder that says the part, train/0000.parquet, is kept."""
    part = shard.parent.name if shard.parent.name in PARTS else ""
    return target / part / f"{shard.stem}.tar"


def _write_tar(source: Path, shard: str, path: Path) -> None:
    files, labels, _ = index_parquet(source, [shard])
    with tarfile.open(path, "w") as tar:
        for i, label in enumerate(labels.tolist()):
            name = PurePosixPath(files.names[i])
            key = f"{i:06d}_{name.stem.replace('.', '_')}"
            _add(tar, f"{key}{name.suffix.lower() or '.jpg'}", files.read(i))
            _add(tar, f"{key}.cls", str(label).encode())


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    header = tarfile.TarInfo(name)
    header.size = len(data)
    tar.addfile(header, io.BytesIO(data))


def _main(arguments: list[str]) -> int:
    if len(arguments) != 2:
        print(USAGE, file=sys.stderr)
        return 2
    try:
        for path in unpack(*map(Path, arguments)):
            print(path, flush=True)
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
