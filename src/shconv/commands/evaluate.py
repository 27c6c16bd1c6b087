"""shconv evaluate: the paper's tables, or any attacks, for checkpoints and networks that are there."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Annotated, Any, Literal

from torch import nn

from shconv import numbers
from shconv.attacks import Attack, create_attack, list_attacks
from shconv.attacks.foreign import as_attack
from shconv.commands.options import PaperOptions, TableOptions
from shconv.commands.own_objects import is_object, named, own_object, own_result
from shconv.commands.parser import POSITIONAL
from shconv.commands.prepared import prepared_as
from shconv.commands.running import asked_of, conclude, describe, load, run_experiments, run_folder, study_of
from shconv.data import ImageData, Preparation
from shconv.data.given import as_data
from shconv.errors import InputError, near
from shconv.experiments.network import Network, Pair
from shconv.experiments.own_attacks import check_fit, run_own, settle_attacks
from shconv.experiments.paper import TABLES
from shconv.experiments.progress import ExperimentProgress
from shconv.experiments.run_folder import RunFolder
from shconv.experiments.study import Counts
from shconv.pretrained import Config, load_network
from shconv.processes import Processes
from shconv.results import Results
from shconv.results.robustbench import STANDARD, save_standard
from shconv.routes import ROUTES
from shconv.terminal import console

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
        if self.images is not None and self.images < 1:
            raise InputError(f"images must be at least 1, got {self.images}")
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
        data = as_data(own_result("--data", self.data), self.data)
        if len(data.classes) < self.least_classes:
            raise InputError(f"{data.name} has {len(data.classes)} classes; relative confidence needs at least 3")
        return data

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


@dataclass(frozen=True, kw_only=True)
class Evaluate(PaperOptions, NetworkOptions):
    """Attack trained networks and write the outcome of every image, with tables and a page.

    Without --attack it makes the paper's tables and figures, best for a network and its --twin. The images of
    Tables 2 to 4 are those that both classify correctly with confidence above --min-confidence (0.9 in the paper);
    without a twin, those that the network classifies so.

    With --attack it runs the same attacks on the same images for every network:
    shconv evaluate runs/a runs/b --attack fgsm pgd mine=my_file:my_attack

    Several processes can share the images; the results are the same:
    torchrun --nproc-per-node 2 -m shconv evaluate ...
    """

    checkpoint: Annotated[tuple[Path, ...], POSITIONAL] = ()
    """Checkpoint folders, or their model.safetensors; NAME=PATH gives it another name in the tables."""
    twin: Path | None = None
    """The checkpoint of the vanilla twin, or of the SHC network if the first is the vanilla one."""
    tables: tuple[int, ...] = (1, 2, 3, 4)
    """Which tables to run: Figure 2 comes with Table 1, Figure 3 with Table 3, Figure 4 with Table 4."""
    selection: Literal["random", "confident"] = "random"
    """Images for --attack: drawn at random, or those that all networks classify correctly with confidence above
    --min-confidence."""
    routes: tuple[str, ...] = ("both",)
    """Gradient routes for --attack through SHC networks: both, convolution, hypernetwork, strict."""
    standard: bool = False
    """Run AutoAttack's standard version within --eps, without a time limit. Gives the number that RobustBench
    prints, and a file in the form of its model_info."""
    norm: Literal["linf", "l2"] = "linf"
    """For --standard: linf (by default within 8/255) or l2 (0.5)."""
    keep: bool = False
    """Store the adversarial images of --attack too, as arrays and as PNG files."""

    @property
    def folder(self) -> Path:
        first = self.checkpoint[0].name if self.checkpoint else self.model[0].rpartition(":")[2]
        if self.checkpoint:
            first = _place(Path(named(str(self.checkpoint[0]))[1])).name
        others = len(self.checkpoint) + len(self.model) - 1
        more = f"-and-{others}-more" if others else ""
        word = re.sub(r"[^\w.-]+", "-", first)
        return self.out or Path("runs") / f"{word}{more}-on-{self.data_name}"

    def check(self) -> None:
        super().check()
        if not self.checkpoint and not self.model:
            raise InputError("evaluate wants CHECKPOINT or --model; `shconv evaluate --help` says what they are")
        unknown = [table for table in self.tables if table not in TABLES]
        if unknown or not self.tables:
            raise InputError(f"there is no table {[*unknown, 'given'][0]}; choose from {', '.join(map(str, TABLES))}")
        known = (*ROUTES, "strict")
        if unknown_routes := [route for route in self.routes if route not in known]:
            raise InputError(f"there is no route {unknown_routes[0]}; {near(unknown_routes[0], known, listed=True)}")
        if self.twin is not None and len(self.checkpoint) + len(self.model) > 1:
            raise InputError("--twin goes with one network; give several as CHECKPOINT ...")
        own = {_place(Path(named(str(each))[1])) for each in self.checkpoint}
        if self.twin is not None and _place(self.twin) in own:
            raise InputError("the twin is the network itself: wanted NAME and NAME_shc of the same seed")
        if self.norm != "linf" and not self.standard:
            raise InputError("--norm goes with --standard")
        if not self.attack and not self.standard:
            given = [f"--{name}" for name in ("images", "eps") if getattr(self, name) is not None]
            given += ["--keep"] if self.keep else []
            given += ["--selection"] if self.selection != "random" else []
            if given:
                raise InputError(f"{given[0]} goes with --attack; the paper's tables have options of their own")
        elif self.attacks != "paper":
            raise InputError(
                f"--attacks {self.attacks} adds to the paper's Table 2, which --attack and --standard replace"
            )

    @property
    def least_classes(self) -> int:
        return 2 if self.attack or self.standard else 3

    def named_attacks(self) -> dict[str, Attack]:
        found = super().named_attacks()
        if self.standard:
            if STANDARD in found:
                raise InputError(f"--attack {STANDARD} is what --standard runs; leave one of them out")
            preset = "autoattack" if self.norm == "linf" else "autoattack_l2"
            found[STANDARD] = create_attack(preset, **({} if self.eps is None else {"epsilon": self.eps}))
        return found

    def run(self) -> None:
        self.check()
        processes = Processes.found(patient=True, device=self.device)
        progress = ExperimentProgress(processes.is_first)
        attacks = self.named_attacks()
        networks, data = networks_and_data(self, self._given(), processes, progress)
        if self.twin is not None:
            networks.sort(key=lambda network: network.is_shc)
            _check_pair(networks)
        asked = asked_of(f"evaluate{' --attack' if attacks else ''}", self)
        place = run_folder(self.folder, self.out, asked, processes, progress)
        with RunFolder.opened(place, processes) as folder:
            settle_attacks(folder, attacks)  # before config.toml is written: it names what was run
            describe(folder, asked, data, processes)
            pairs = [Pair(tuple(networks))]
            workers = self.readers(data, self.batch_size, progress.say)
            how: dict[str, Any] = {"workers": workers, "processes": processes}
            if not attacks:
                run_experiments(folder, data, pairs, self, progress, self.tables, **how)
                conclude(folder, progress)
                return
            n = self.images or len(data.test)
            counts = Counts(n, n, n, self.min_confidence)
            study = study_of(folder, data, pairs, counts, self, progress, **how, keep=self.keep)
            run_own(study, attacks, self.routes, confident=self.selection == "confident", most=self.images)
            conclude_own(folder, progress, png=self.keep, standard=self.standard)

    def _given(self) -> list[Path]:
        return [*self.checkpoint, *([] if self.twin is None else [self.twin])]


def networks_and_data(
    options: NetworkOptions, checkpoints: Sequence[Path], processes: Processes, progress: ExperimentProgress
) -> tuple[list[Network], ImageData]:
    """The networks on their device and the images, prepared as the first checkpoint was trained to see them.

    Raises InputError where they do not fit each other.
    """
    names = [named(str(path)) for path in checkpoints]
    paths = [Path(path) for _, path in names]
    loaded = [load_network(path) for path in paths]
    preparation = None
    if not options.own_data:
        infos = [(path, info) for path, (_, _, info) in zip(paths, loaded, strict=True)]
        preparation = prepared_as(options, infos, progress.say)
    data = load(options, processes, progress, want_train=False, preparation=preparation)
    networks = []
    for (name, _), path, (model, config, info) in zip(names, paths, loaded, strict=True):
        if not options.own_data:
            check_fits(path, config, info, data)
        networks.append(Network(name or config.name, seed_of(path, info), model))
    networks = [*told_apart(networks, paths), *options.own_networks()]
    keys = [network.key for network in networks]
    if twice := [key for key in keys if keys.count(key) > 1]:
        raise InputError(f"two networks are called {twice[0].partition('/')[0]}; give one another name as NAME=...")
    for network in networks:
        network.model.to(processes.device)
    if options.own_data or options.model:
        check_fit(networks, data, processes.device)
    return networks, data


def told_apart(networks: Sequence[Network], paths: Sequence[Path]) -> list[Network]:
    """Networks of one name and seed get their folder's name added."""
    keys = [network.key for network in networks]
    return [
        replace(network, name=f"{network.name}-{_place(path).name}") if keys.count(network.key) > 1 else network
        for network, path in zip(networks, paths, strict=True)
    ]


def _place(path: Path) -> Path:
    """A checkpoint's folder, given itself or by its file of weights."""
    return (path.parent if path.suffix == ".safetensors" else path).resolve()


def conclude_own(folder: RunFolder, progress: ExperimentProgress, *, png: bool = False, standard: bool = False) -> None:
    """Print the accuracies, and write rows.csv and outcomes.csv beside; with `standard` RobustBench's files."""
    if not folder.writes:
        return
    results = Results.load(folder.path)
    results.write_csv(folder.path, png=png)
    results.print(console())
    for said in save_standard(results, folder.path) if standard else ():
        print(said)
    progress.say(f"A line for each row and image: {folder.path / 'rows.csv'}, {folder.path / 'outcomes.csv'}")


def check_fits(path: Path, config: Config, info: Mapping[str, Any], data: ImageData) -> None:
    """Raises InputError where a checkpoint is not for such images: other classes, or channels."""
    if config.num_classes != len(data.classes):
        raise InputError(f"{path} has {config.num_classes} classes, {data.name} has {len(data.classes)}")
    if config.in_channels != data.channels:
        raise InputError(
            f"{path} takes images of {config.in_channels} channels; those of {data.name} have {data.channels}"
        )
    about = info.get("data")
    trained_on = about.get("classes", data.classes) if isinstance(about, dict) else data.classes
    for number, (there, here) in enumerate(zip_longest(trained_on, data.classes)):
        if there != here:
            raise InputError(f"{path} calls class {number} {there!r}, {data.name} calls it {here!r}: wanted the same")


def seed_of(path: Path, info: Mapping[str, Any]) -> int:
    """Of a checkpoint's training. Raises InputError where its config.json, which may be anybody's, holds none."""
    seed = info.get("seed", 0)
    if type(seed) is not int or seed < 0:
        raise InputError(f"{path} has the seed {seed!r}; wanted an integer of at least 0")
    return seed


def _check_pair(networks: list[Network]) -> None:
    """Raises InputError unless the second network is the SHC twin of the first, trained with the same seed."""
    vanilla, shc = networks
    if vanilla.is_shc or (shc.name, shc.seed) != (f"{vanilla.name}_shc", vanilla.seed):
        raise InputError(f"{vanilla.key} and {shc.key} are no pair: wanted NAME and NAME_shc of the same seed")
