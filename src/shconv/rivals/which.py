"""The rows of the table: a vanilla network, the same with another layer, and the same trained with a defence. They are
those of the two registries, so that a new layer or defence is a new row."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from shconv.errors import InputError, near
from shconv.models.registry import MATCHED, SUFFIXES
from shconv.training.defences import DEFENCES, Defence, Plain

ALL = "all"
LAYERS = tuple(suffix for suffix in SUFFIXES if suffix)  # behind a vanilla network's name
OTHERS = tuple(name for name in DEFENCES if name != Plain.name)


@dataclass(frozen=True)
class Rival:
    """A network of the table: layer "" is the vanilla network's own, defence "none" plain training."""

    vanilla: str
    layer: str = ""
    defence: str = Plain.name

    @property
    def model(self) -> str:
        """create_model's name."""
        return f"{self.vanilla}_{self.layer}" if self.layer else self.vanilla

    @property
    def name(self) -> str:
        return self.model if self.defence == Plain.name else f"{self.model}-{self.defence}"

    @property
    def sources(self) -> tuple["Rival", ...]:
        """Trained networks that its defence cannot do without: undefended ones of two sizes."""
        return (Rival(self.vanilla), Rival(self.vanilla, MATCHED)) if DEFENCES[self.defence].needs_sources else ()


def rivals(networks: Sequence[str], asked: Sequence[str]) -> tuple[Rival, ...]:
    """The rows for these vanilla networks: each vanilla first, then what is asked for, in the registries' order.

    asked: "all", names of defences ("pgd"), of layers ("shc", "matched", "condconv"), and both together ("shc+pgd").

    Raises InputError for a name that is none, with those that are near.
    """
    vanilla, wanted = ("", Plain.name), [pair for word in asked for pair in _read(word)]
    pairs = [pair for pair in dict.fromkeys([vanilla, *_read(ALL), *wanted]) if pair in {vanilla, *wanted}]
    return tuple(Rival(network, *pair) for network in networks for pair in pairs)


def _read(word: str) -> Iterator[tuple[str, str]]:
    """(layer, defence) of a word."""
    if word == ALL:
        yield from ((layer, Plain.name) for layer in LAYERS)
        yield from (("", defence) for defence in OTHERS)
        return
    parts = word.split("+")
    layers, defences = ([part for part in parts if part in known] for known in (LAYERS, DEFENCES))
    if len(layers) > 1 or len(defences) > 1 or len(layers) + len(defences) < len(parts):
        known = (ALL, *OTHERS, *LAYERS)
        unknown = next((part for part in parts if part not in known), word)
        raise InputError(f"--defences: got {word!r}; {near(unknown, known, listed=True)}, or both as shc+pgd")
    yield (*layers, "")[0], (*defences, Plain.name)[0]


def settings_of(defence: str, sources: Sequence[Any]) -> Defence:
    """The defence with its published settings, and these networks to learn from where it needs any."""
    kind = DEFENCES[defence]
    made: Defence = kind(sources=tuple(sources)) if kind.needs_sources else kind()
    return made
