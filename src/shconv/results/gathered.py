"""The networks of one comparison: from runs, results and audits, about the same data, each under a name of its own."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, Self

from shconv.errors import InputError
from shconv.experiments.run_folder import Row, read_facts
from shconv.results import Results
from shconv.results.audits import audited
from shconv.results.compared import Compared, compared
from shconv.results.measures import SHOWN, Measures, title_of

Given = Results | str | Path


class _Source(NamedTuple):
    """Where networks come from; ``path`` is None for results in memory."""

    name: str
    path: Path | None
    run: Results

    @classmethod
    def of(cls, given: Given) -> Self:
        if isinstance(given, Results):
            return cls("these results", None, given)
        path = Path(given)
        if not (path / "rows.jsonl").is_file():
            raise InputError(f"compare: {path} holds no rows; want a run's or audit's folder, or results")
        return cls(str(path), path, Results.load(path))

    @property
    def data(self) -> Mapping[str, Any]:
        about: Mapping[str, Any] = self.run.facts.get("data.json", {})
        return about

    @property
    def images(self) -> list[tuple[int, str]]:
        """Labels and files; none where the source did not store them."""
        return list(zip(self.run.labels, self.run.files, strict=False))


def gathered(given: Sequence[Given]) -> tuple[list[Compared], str]:
    """The networks, and the name of their data. Raises InputError where there is no run, or where data differ."""
    sources = [_Source.of(each) for each in given]
    _check_same_data(sources)
    return _told_apart(_networks(sources)), str(sources[0].data.get("name", ""))


def _check_same_data(sources: Sequence[_Source]) -> None:
    """The name of the data counts where a source did not store its images' files and labels."""
    first = sources[0]
    for other in sources[1:]:
        stored = bool(first.images and other.images)
        _check_same_facts(first, other, "test_images", "classes", "image_size", "test_preset")
        if stored and first.images != other.images:
            raise InputError(f"compare: {first.name} and {other.name} are about other data: files or labels differ")
        _check_same_facts(first, other, "images_and_labels", *([] if stored else ["name"]))


def _check_same_facts(first: _Source, other: _Source, *names: str) -> None:
    for name in names:
        here, there = first.data.get(name), other.data.get(name)
        if None not in (here, there) and here != there:
            raise InputError(
                f"compare: {first.name} and {other.name} are about other data ({name}: {here!r:.60} and {there!r:.60})"
            )


def _networks(sources: Sequence[_Source]) -> list[Compared]:
    """The networks of all sources; the runs' attacks as one run's, so that worst cases are over those all met."""
    found: list[Compared] = []
    records, outcomes, origins, sizes = [], {}, {}, {}
    for place, (_, path, run) in enumerate(sources):
        if path is not None:
            found += audited(path)
        for row in run.records:
            id, model = f"{place}/{row['id']}", f"{place}/{row['model']}"
            records.append({**row, "id": id, "model": model})
            outcomes[id] = run.outcomes[row["id"]]
            origins[model] = {"model": row["model"], "source": f"results {place + 1}" if path is None else str(path)}
        for key, about in run.facts.get("sizes.json", {}).items():
            sizes[f"{place}/{key}"] = about.get("parameters")
    _check_same_audited(found)
    _check_same_attacks(records, origins)
    together = compared(Measures(records, outcomes), sizes)
    return [*(replace(each, **origins[each.model]) for each in together), *found]


def _check_same_audited(networks: Sequence[Compared]) -> None:
    """Raises InputError where audits are about the same places in other data, by the digests that they keep."""
    first: dict[bytes, tuple[str, object]] = {}
    for each in networks:
        path = Path(each.source) / "audit.json"
        images = read_facts(path).get("images")
        source, known = first.setdefault(each.measures["clean"][0].tobytes(), (each.source, images))
        if None not in (images, known) and images != known:
            raise InputError(f"compare: the audits {source} and {each.source} are about other images or labels")


def _check_same_attacks(records: Sequence[Row], origins: Mapping[str, Mapping[str, str]]) -> None:
    """Raises InputError where a name stands for different attacks: accuracies under different budgets would be in one
    column, and a weak attack would count for the worst case of a large budget. What earlier versions did not store
    of an attack may be missing."""
    first: dict[Any, Row] = {}
    for row in (row for row in records if row["experiment"] in SHOWN and row["attack"] != "clean"):
        here, known = row["parameters"], first.setdefault(title_of(row), row)
        there = known["parameters"]
        for name in here.keys() & there.keys():
            if here[name] != there[name]:
                sources = [origins[each["model"]]["source"] for each in (known, row)]
                raise InputError(
                    f"compare: {row['attack']} has {name} = {there[name]!r} in {sources[0]} and {here[name]!r} in "
                    f"{sources[1]}; want one attack under one name"
                )


def _told_apart(networks: Sequence[Compared]) -> list[Compared]:
    """Names that come twice get the seed, or else the source's name, added."""
    names = [each.model for each in networks]
    seeded = [f"{each.model}, seed {each.seed}" if names.count(each.model) > 1 else each.model for each in networks]
    placed = [
        f"{name}, {Path(each.source).name}" if seeded.count(name) > 1 else name
        for name, each in zip(seeded, networks, strict=True)
    ]
    if twice := [name for name in placed if placed.count(name) > 1]:
        raise InputError(f"compare: {twice[0]} comes twice; give each run once, and networks names of their own")
    return [replace(each, model=name) for each, name in zip(networks, placed, strict=True)]
