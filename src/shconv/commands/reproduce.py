"""shconv reproduce: train the pairs, attack them, and write the paper's tables and figures. The main job."""

from dataclasses import dataclass, replace
from typing import Any, Literal

from shconv.commands.options import EngineOptions, PaperOptions, check_least
from shconv.commands.prepared import prepared_in
from shconv.commands.running import asked_of, conclude, describe, load, run_experiments, run_folder
from shconv.data import ImageData
from shconv.errors import InputError
from shconv.experiments.network import Network, Pair
from shconv.experiments.progress import ExperimentProgress
from shconv.experiments.run_folder import RunFolder
from shconv.folders import RUN, check_out
from shconv.models import list_models, vanilla_of
from shconv.numbers import counted
from shconv.processes import Processes
from shconv.terminal import without_repeats
from shconv.training import RECIPES, ModelConfig, Recipe, train, with_epochs
from shconv.training.ahead import begin_compiling
from shconv.training.side_by_side import can_be_side_by_side, train_side_by_side
from shconv.training.stored import is_finished

VANILLA = tuple(name for name in list_models() if not name.endswith("_shc"))


@dataclass(frozen=True, kw_only=True)
class Reproduce(PaperOptions, EngineOptions):
    """Train vanilla networks and their SHC twins, attack them, and write Tables 1 to 4, Figures 2 to 4 and a page.

    By default it uses the embedded demo data (photograph patches) and slim networks, and takes minutes on two CPU
    cores. --preset paper: ImageNet, six networks at full width, all counts of the paper.
    """

    models: tuple[str, ...] = ("plain10", "resnet18")
    """The vanilla networks: plain10, resnet18, resnet50; each is trained together with its SHC twin."""
    width: int = 16
    """Channels of the first stage; 64 in the paper."""
    stem: Literal["auto", "small", "imagenet"] = "auto"
    """The first layers. small: one 3x3 convolution. imagenet: a 7x7 convolution of stride 2 and max pooling. auto:
    small for images up to 64 px."""
    normalize: Literal["none", "imagenet"] = "none"
    """imagenet: the network normalises its images by the mean and standard deviation of ImageNet. The paper does
    not."""
    seeds: tuple[int, ...] = (0,)
    """Training seeds. Each one trains every network once; tables then give mean and standard deviation."""
    recipe: str = "short"
    """Training settings, the same for both networks of a pair: short, cifar, paper or he2016. `shconv info` shows
    them."""
    epochs: int | None = None
    """Passes over the training images; by default the recipe's. Its learning rates are spread over them."""

    def check(self) -> None:
        super().check()
        for name in self.models:
            if name not in VANILLA:
                hint = f": give {name.removesuffix('_shc')}, both are trained" if name in list_models() else ""
                raise InputError(f"unknown vanilla network {name!r}{hint}; choose from {', '.join(VANILLA)}")
        if not self.models or len(set(self.models)) < len(self.models):
            raise InputError(f"models must be different networks, at least one, got {list(self.models)}")
        if not self.seeds or min(self.seeds) < 0 or len(set(self.seeds)) < len(self.seeds):
            raise InputError(f"seeds must be different integers of at least 0, at least one, got {list(self.seeds)}")
        check_least(self, width=1)
        recipe_for(self.recipe, self.epochs)
        self.engine()

    def run(self) -> None:
        self.check()
        check_out(self.folder, RUN)
        processes = Processes.found(patient=True, device=self.device)
        progress = ExperimentProgress(processes.is_first)
        asked = asked_of("reproduce", self)
        place = run_folder(self.folder, self.out, asked, processes, progress)
        data = load(self, processes, progress, want_train=True, preparation=prepared_in(place))
        with RunFolder.opened(place, processes) as folder:
            describe(folder, asked, data, processes)
            most = max(self.batch_size, recipe_for(self.recipe, self.epochs).batch_size)
            workers = self.readers(data, most, progress.say)
            with without_repeats():  # what holds for every training
                pairs = self._trained_pairs(folder, data, processes, workers, progress)
            run_experiments(folder, data, pairs, self, progress, workers=workers, processes=processes)
            conclude(folder, progress)

    def _trained_pairs(
        self, folder: RunFolder, data: ImageData, processes: Processes, workers: int, progress: ExperimentProgress
    ) -> list[Pair]:
        recipe = recipe_for(self.recipe, self.epochs)
        how = {"data": data, "recipe": recipe, "workers": workers}
        how |= {"engine": self.engine(), "device": self.device}

        def task(name: str, seed: int) -> dict[str, Any]:
            config = model_config(name, data, self.width, self.stem, self.normalize)
            return {**how, "config": config, "folder": folder.path / "models" / f"{name}-seed{seed}", "seed": seed}

        def trained(name: str, seed: int) -> Network:
            network = Network(name, seed, train(**task(name, seed)).model.to(processes.device))
            said()
            return network

        def said() -> None:
            done = sum(is_finished(each["folder"]) for each in tasks)
            progress.say(f"{done} of {len(tasks)} networks are trained")

        names = [(vanilla, f"{vanilla}_shc") for vanilla in self.models]
        tasks = [task(name, seed) for seed in self.seeds for pair in names for name in pair]
        if left := sum(not is_finished(each["folder"]) for each in tasks):
            then = "then come Tables 1 to 4; `shconv plan` with the same options estimates the time"
            progress.say(f"{counted(left, 'network')} to train, {then}. Everything is written to {folder.path}.")
        if can_be_side_by_side(data, processes):
            dearest_first = sorted(tasks, key=lambda each: _cost(each["config"]), reverse=True)
            for place in sorted(train_side_by_side(dearest_first, progress, said)):
                progress.say(f"{place.name}: another process trained it")
        elif data.train is not None:
            configs = dict.fromkeys(each["config"] for each in tasks if not is_finished(each["folder"]))
            begin_compiling(configs, recipe, data.train[0][0].shape, processes.device)
        return [Pair(tuple(trained(name, seed) for name in pair)) for seed in self.seeds for pair in names]


def _cost(config: ModelConfig) -> tuple[int, bool]:
    """In what order networks take long: by their place among the names, SHC after its twin."""
    return VANILLA.index(vanilla_of(config.name)), config.name.endswith("_shc")


def model_config(name: str, data: ImageData, width: int, stem: str, normalize: str) -> ModelConfig:
    """The network for this data: its number of classes, and the small stem for small images unless said otherwise."""
    if stem == "auto":
        stem = "small" if data.image_size <= 64 else "imagenet"
    constants: Any = None if normalize == "none" else normalize
    return ModelConfig(name, len(data.classes), data.channels, stem=stem, width=width, normalize=constants)


def recipe_for(name: str, epochs: int | None) -> Recipe:
    """The recipe of that name, stretched or shortened to `epochs`. Raises InputError for one that does not exist."""
    if name not in RECIPES:
        raise InputError(f"unknown recipe {name!r}; choose from {', '.join(RECIPES)}")
    return RECIPES[name] if epochs is None else with_epochs(RECIPES[name], epochs)


_DEMO = Reproduce()
PRESETS: dict[str, Reproduce] = {
    "demo": _DEMO,
    "paper": replace(
        _DEMO,
        data="imagenet:data/imagenet",
        test_preset="paper",
        models=VANILLA,
        width=64,
        recipe="paper",
        full=True,
        table1_images=50_000,
        table2_images=5_000,
        table3_images=500,
    ),
}
