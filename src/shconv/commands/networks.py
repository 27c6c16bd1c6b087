"""Which networks, on which attacks and images: the options that evaluate and compare share, and what they name."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from shconv import numbers
from shconv.attacks import Attack, create_attack, list_attacks
from shconv.attacks.foreign import as_attack
from shconv.commands.checkpoints import Checkpoint, own_network
from shconv.commands.options import TableOptions, check_least
from shconv.commands.own_data import OwnDataOptions
from shconv.commands.own_objects import named, own_object
from shconv.commands.prepared import prepared_as
from shconv.commands.running import load
from shconv.data import ImageData, Preparation
from shconv.errors import InputError, near
from shconv.experiments.network import Network
from shconv.experiments.own_attacks import check_fit
from shconv.experiments.progress import ExperimentProgress
from shconv.processes import Processes


@dataclass(frozen=True, kw_only=True)
class NetworkOptions(OwnDataOptions, TableOptions):
    """Which networks, on which attacks and images: what evaluate and compare share."""

    attack: tuple[str, ...] = ()
    """Attacks instead of the paper's tables: names such as fgsm, pgd, square or autoattack, or your own as
    module:object or NAME=module:object. The object is a function f(model, images, labels) that returns adversarial
    images, or an attack of shconv, foolbox, torchattacks, ART or pyautoattack. Modules are searched from the
    current folder."""
    eps: str | None = None
    """Budget of the attacks given by name, such as 8/255; by default each attack's own."""
    model: tuple[str, ...] = ()
    """Further networks of your own, as module:function or NAME=module:function."""
    images: int | None = None
    """Images for --attack, drawn at random; by default all."""

    def check(self) -> None:
        super().check()
        check_least(self, images=1)
        if self.eps is not None:
            numbers.budget("eps", self.eps, "l2")  # each attack knows its own limit

    def load(self, progress: ExperimentProgress, want_train: bool, preparation: Preparation | None = None) -> ImageData:
        return self.with_classes(super().load(progress, want_train, preparation))

    @property
    def least_classes(self) -> int:
        return 2 if self.attack else 3

    def named_attacks(self) -> dict[str, Attack]:
        """The attacks asked for by name. Raises InputError for what is none, and for a name that comes twice."""
        found: dict[str, Attack] = {}
        for text in self.attack:
            name, rest = named(text)
            attack = self._attack(rest)
            name = name or rest.rpartition(":")[2]
            if name in found or name == "clean":
                raise InputError(f"--attack {text}: the name {name} is taken; give another as NAME={rest}")
            found[name] = attack
        return found

    def _attack(self, text: str) -> Attack:
        if text in list_attacks("*"):
            attack = create_attack(text)
            own = getattr(attack, "epsilon", None)  # an attack that looks for the nearest image has none
            changes = {} if self.eps is None or own is None else {"epsilon": self.eps}
            return create_attack(text, **changes)
        if ":" not in text:
            hint = near(text, list_attacks("*"), otherwise="`shconv info` lists them.")
            raise InputError(f"--attack: there is no attack {text}; {hint} Your own is given as {_own_form(text)}")
        return as_attack(own_object("--attack", text))

    def own_networks(self) -> Iterator[Network]:
        """Those of --model. Raises InputError where a function returns no module."""
        for text in self.model:
            name, rest = named(text)
            yield Network(name or rest.rpartition(":")[2], 0, own_network("--model", rest))


def networks_and_data(
    options: NetworkOptions, checkpoints: Sequence[Path], processes: Processes, progress: ExperimentProgress
) -> tuple[list[Network], ImageData]:
    """The networks on their device and the images, prepared as the first checkpoint was trained to see them.

    Raises InputError where they do not fit each other.
    """
    given = [named(str(path)) for path in checkpoints]
    loaded = [Checkpoint.load(Path(path), name) for name, path in given]
    preparation = None
    if not options.own_data:
        preparation = prepared_as(options, [(each.path, each.info) for each in loaded], progress.say)
    data = load(options, processes, progress, want_train=False, preparation=preparation)
    for checkpoint in loaded:
        checkpoint.check_fits(data, progress.say, options.own_data)
    own = list(options.own_networks())
    for warning in check_fit(own, data, torch.device("cpu")):
        progress.say(warning)
    networks = [*_told_apart(loaded), *own]
    keys = [network.key for network in networks]
    if twice := [key for key in keys if keys.count(key) > 1]:
        raise InputError(f"two networks are called {twice[0].partition('/')[0]}; give one another name as NAME=...")
    for network in networks:
        network.model.to(processes.device)
    return networks, data


def _told_apart(checkpoints: Sequence[Checkpoint]) -> list[Network]:
    """Networks of one name and seed get their folder's name added."""
    networks = [Network(each.name, each.seed, each.model) for each in checkpoints]
    keys = [network.key for network in networks]
    return [
        replace(network, name=checkpoint.name_and_folder) if keys.count(network.key) > 1 else network
        for network, checkpoint in zip(networks, checkpoints, strict=True)
    ]


def _own_form(text: str) -> str:
    """How a user's own attack is given; by the file where there is one of that name."""
    return f"{text}:NAME" if Path(f"{text.removesuffix('.py')}.py").is_file() else "module:object"
