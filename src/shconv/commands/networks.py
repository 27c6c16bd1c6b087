"""Which networks, on which attacks and images: the options that evaluate and compare share, and what they name."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from shconv import numbers
from shconv.attacks import Attack, create_attack, list_attacks
from shconv.attacks.foreign import as_attack
from shconv.commands.checkpoints import Checkpoint
from shconv.commands.options import TableOptions, check_least
from shconv.commands.own_objects import is_object, named, own_object, own_result
from shconv.commands.prepared import prepared_as
from shconv.commands.running import load
from shconv.data import ImageData, Preparation
from shconv.data.given import as_data
from shconv.errors import InputError, near
from shconv.experiments.network import Network
from shconv.experiments.own_attacks import check_fit
from shconv.experiments.progress import ExperimentProgress
from shconv.processes import Processes

SOURCES = ("demo", "cifar10", "folder", "imagenet")  # first words of --data that name no module


@dataclass(frozen=True, kw_only=True)
class NetworkOptions(TableOptions):
    """Which networks, on which attacks and images: what evaluate and compare share."""

    attack: tuple[str, ...] = ()
    """Attacks instead of the paper's tables: names such as fgsm, pgd, square or autoattack, or your own as
    module:object or NAME=module:object. The object is a function f(model, images, labels) that returns adversarial
    images, or an attack of shconv, foolbox, torchattacks, ART or pyautoattack. Modules are searched from the
    current folder."""
    eps: str | None = None
    """Budget of the attacks given by name, such as 8/255; by default each attack's own."""
    model: tuple[str, ...] = ()
    """Further networks, as module:function or NAME=module:function: the function returns a torch.nn.Module from images
    in [0, 1] to logits."""
    images: int | None = None
    """Images for --attack, drawn at random; by default all."""

    def check(self) -> None:
        super().check()
        check_least(self, images=1)
        if self.eps is not None:
            numbers.budget("eps", self.eps, "l2")  # each attack knows its own limit
        if self.own_data and (self.image_size is not None or self.test_preset != "auto"):
            raise InputError(
                f"--data {self.data}: its images are taken as they are; leave out --image-size, --test-preset"
            )

    @property
    def own_data(self) -> bool:
        return self.data.partition(":")[0] not in SOURCES and is_object(self.data)

    def load(self, progress: ExperimentProgress, want_train: bool, preparation: Preparation | None = None) -> ImageData:
        if not self.own_data:
            return super().load(progress, want_train, preparation)
        return self.with_classes(as_data(own_result("--data", self.data), self.data))

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
            hint = near(text, list_attacks("*"), listed=True)
            raise InputError(f"--attack: there is no attack {text}; {hint}, or give your own as module:object")
        return as_attack(own_object("--attack", text))

    def own_networks(self) -> Iterator[Network]:
        """Those of --model. Raises InputError where a function returns no module."""
        for text in self.model:
            name, rest = named(text)
            network = own_result("--model", rest)
            if not isinstance(network, nn.Module):
                raise InputError(f"--model {rest}: got {type(network).__name__}; want a torch.nn.Module")
            yield Network(name or rest.rpartition(":")[2], 0, network.eval())


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
    for checkpoint in loaded if not options.own_data else ():
        checkpoint.check_fits(data)
    networks = [*_told_apart(loaded), *options.own_networks()]
    keys = [network.key for network in networks]
    if twice := [key for key in keys if keys.count(key) > 1]:
        raise InputError(f"two networks are called {twice[0].partition('/')[0]}; give one another name as NAME=...")
    for network in networks:
        network.model.to(processes.device)
    if options.own_data or options.model:
        check_fit(networks, data, processes.device)
    return networks, data


def _told_apart(checkpoints: Sequence[Checkpoint]) -> list[Network]:
    """Networks of one name and seed get their folder's name added."""
    networks = [Network(each.name, each.seed, each.model) for each in checkpoints]
    keys = [network.key for network in networks]
    return [
        replace(network, name=checkpoint.name_and_folder) if keys.count(network.key) > 1 else network
        for network, checkpoint in zip(networks, checkpoints, strict=True)
    ]
