"""`shconv.audit.run`: from a network and images to a report. Here is what it accepts; `session` does the work."""

import math
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from shconv import numbers
from shconv.arguments import checked
from shconv.attacks.base import borrowed
from shconv.attacks.checks import check_count
from shconv.audit import checks as all_checks
from shconv.audit.check import Check
from shconv.audit.clock import budget_for, minutes, usable
from shconv.audit.findings import Finding
from shconv.audit.notebook import as_html
from shconv.audit.preflight import check_images, training_parts
from shconv.audit.session import MAIN, PREFLIGHT, TWIN, Session, Subjects
from shconv.audit.setting import Effort, Setting, usual_eps_l2
from shconv.audit.subject import FEW, PASSES, Subject, as_twin
from shconv.data import ImageData, Preparation
from shconv.data.given import as_data
from shconv.errors import InputError
from shconv.experiments.progress import ExperimentProgress
from shconv.experiments.run_folder import Row, RunFolder
from shconv.experiments.selection import drawn, taken
from shconv.experiments.study import CONFIDENT

Images = Any  # what `shconv.data.given.as_data` takes, or a split of shconv.data
FIRST = 10  # passes of each of a few images before the first attack, and in it
SLOW = 2.0  # seconds before the first attack: a quick network's are not worth a refusal


@dataclass(frozen=True, eq=False)
class Report:
    """What an audit found. `rows` are those of its run folder, which `shconv report` reads."""

    findings: tuple[Finding, ...]
    worst_case: Mapping[str, Any]  # by threat ("linf", "l2", ...) and "confident": accuracy, interval, correct, n
    verdict: str
    rows: tuple[Row, ...]
    folder: Path | None  # None where it was not kept

    def print(self) -> None:
        """The verdict on standard output."""
        print(self.verdict)

    def _repr_html_(self) -> str:
        """In a notebook: worst cases, verdict and checks as tables."""
        return as_html(self.worst_case, self.verdict, self.findings)


@checked
def run(
    model: nn.Module,
    data: Images,
    eps: float | str,
    twin: nn.Module | None = None,
    *,
    sources: Mapping[str, nn.Module] | None = None,
    seeds: Mapping[int, nn.Module] | None = None,
    eps_l2: float | str | None = None,
    budget: str = "5m",
    images: int | None = None,
    folder: Path | str | None = None,
    seed: int = 0,
    min_confidence: float = CONFIDENT,
    batch_size: int = 100,
    name: str = "model",
    twin_name: str = "twin",
    training_seed: int = 0,
    twin_seed: int = 0,
    effort: Effort | None = None,
    checks: Sequence[Check] | None = None,
    progress: bool = True,
) -> Report:
    """Attack a classifier with many methods within eps (L-infinity) and eps_l2 (L2), and report what was tried.

    Example:
        ```python
        report = shconv.audit.run(model, (images, labels), "8/255", budget="5m", folder="runs/audit")
        report.print()
        ```

    Args:
        model: from float images (N, C, H, W) in [0, 1] to logits (N, K), with normalisation inside. Its mode and flags
            are restored. All networks are moved to the device of the first.
        data: (images, labels int64 (N,)), a torch Dataset or DataLoader of (image, label), a Hugging Face dataset, or a
            data set of shconv.data, whose test images are used: see `shconv.data.given.as_data`.
        eps: the L-infinity radius, a number or "8/255".
        twin: a network to compare with, image by image.
        sources: further networks by name, for transfer.
        seeds: the same network from other training seeds, by seed; training_seed and twin_seed are the seeds of the
            network and of its twin, for the rows.
        images: number of images, drawn with `seed`; None uses all.
        eps_l2: the L2 radius. Default: 0.5 for eps 8/255 and images of 3 x 32 x 32, scaled for others.
        min_confidence: the worst case is also given for the images classified correctly with more than this
            probability.
        budget: time for all networks together: "90s", "5m", "1h" or "full".
        folder: stores rows, outcomes and arrays there; the same call continues a stopped audit.
        effort: counts for the checks instead of the plan's, which depend on measured speed. With it and budget="full" a
            run can be repeated exactly, with any batch size (except for random networks).
        checks: the checks to run; by default all twelve, after a quick attack on every image.

    Returns:
        Report: the verdict, the findings of the checks, and all rows.

    Raises:
        InputError: networks, images, labels, radii or budgets that cannot be used.
    """
    started, say = time.monotonic(), ExperimentProgress(progress)
    images, seed, batch_size = numbers.plain(images), numbers.plain(seed), numbers.plain(batch_size)
    training_seed, twin_seed = numbers.plain(training_seed), numbers.plain(twin_seed)
    check_count("seed", seed, 0)
    for number in seeds or {}:
        check_count("seeds", number, 0)
    if seeds and training_seed in seeds:
        raise InputError(f"seeds: got {training_seed} again, the network's own; want other seeds of training")
    networks = {MAIN: (name, training_seed, model)} | ({} if twin is None else {TWIN: (twin_name, twin_seed, twin)})
    networks |= {f"seed {number}": (name, number, network) for number, network in (seeds or {}).items()}
    networks |= {f"source {word}": (word, 0, network) for word, network in (sources or {}).items()}
    _check_networks(networks)
    if twin is not None and (shown := as_twin(twin_name)) in (sources or {}):
        raise InputError(f"sources: got the name {shown!r}, as reports call the twin; want another one")
    x, y, index = _images(data, images, seed)
    device = next((each.device for each in model.parameters()), torch.device("cpu"))
    x, y, index = (each.to(device) for each in (x, y, index))
    _say_preparations(networks, data, say)
    linf = numbers.budget("eps", eps, above=True)
    l2 = usual_eps_l2(linf, x[0].numel()) if eps_l2 is None else numbers.budget("eps_l2", eps_l2, "l2", above=True)
    setting = Setting(linf, l2, seed, batch_size, budget, min_confidence)
    seconds = PREFLIGHT * setting.seconds / len(networks)
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory()) if folder is None else folder)
        held = stack.enter_context(RunFolder.opened(place))
        subjects: Subjects = {}
        for role, (word, number, network) in networks.items():
            training = training_parts(network)
            stack.enter_context(borrowed(network.to(device)))
            size = min(batch_size, len(x))
            about: dict[str, Any] = {"seed": number, "batch_size": size, "training": training, "seconds": seconds}
            subjects[role] = Subject(word, network, x, y, **about)
        _check_classes(subjects, data)
        if not held.rows:
            _check_time(subjects, setting, len(x), time.monotonic() - started)
        asked = all_checks.CHECKS if checks is None else checks
        session = Session(held, setting, say, asked, subjects, x, y, index, checks is None, started)
        ledger = session.run(effort).ledger
        verdict, findings = held.rows[ledger.verdict_id], tuple(map(ledger.read_finding, ledger.findings()))
        rows = tuple(row for row in held.rows.values() if row["experiment"] == "audit")
    text = "\n".join([*verdict["preflight"], *verdict["text"]])
    return Report(findings, verdict["worst_case"], text, rows, None if folder is None else place)


def _check_networks(networks: Mapping[str, tuple[str, int, nn.Module]]) -> None:
    held: dict[tuple[str, int], str] = {}
    for role, (name, number, network) in networks.items():
        if not isinstance(network, nn.Module):
            raise InputError(f"{role}: got {type(network).__name__}; want a torch.nn.Module")
        if not isinstance(name, str) or "/" in name or not name:
            raise InputError(f"{role}: got the name {name!r}; want one without a slash")
        if not role.startswith("source ") and held.setdefault((name, number), role) != role:
            raise InputError(f"{held[name, number]} and {role} are both {name}, seed {number}; want different names")


def _say_preparations(
    networks: Mapping[str, tuple[str, int, nn.Module]], data: Images, progress: ExperimentProgress
) -> None:
    """A line for each network of from_pretrained that was trained for images prepared in another way."""
    if not isinstance(data, ImageData):
        return
    for name, _, network in networks.values():
        known = getattr(network, "preparation", None)
        if isinstance(known, Preparation) and (warning := known.unlike(data.preparation, name)):
            progress.say(warning)


def _check_classes(subjects: Subjects, data: Images) -> None:
    """Raises InputError unless every network has the data's classes."""
    wanted = len(data.classes) if isinstance(data, ImageData) else subjects[MAIN].classes
    whose = data.name if isinstance(data, ImageData) else subjects[MAIN].name
    for subject in subjects.values():
        if subject.classes != wanted:
            raise InputError(f"{subject.name} has {subject.classes} classes, {whose} has {wanted}: want the same")


def _check_time(subjects: Subjects, setting: Setting, n: int, spent: float) -> None:
    """Raises InputError where a slow network's budget is over before anything is attacked, with one that is not."""
    audited = [subject for role, subject in subjects.items() if not role.startswith("source ")]
    each, size = sum(one.seconds * (PASSES if one.is_random else 1) for one in audited), min(n, setting.batch_size)
    passes = each * ((-(-n // size) + 1) * size + FEW * FIRST)  # the judge sees whole batches
    if passes > SLOW and spent + passes > usable(setting.seconds):
        raise InputError(
            f"budget: got {setting.budget}; want at least {math.ceil(1.1 * budget_for(spent + passes))}s for {n} "
            f"images, or fewer images: a pass takes {minutes(each)} an image, and all of them are judged before an "
            "attack"
        )


def _images(data: Images, wanted: int | None, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Images (N, C, H, W) in [0, 1], labels (N,) and places in the data (N,), `wanted` of them drawn."""
    if wanted is not None and wanted < 1:
        raise InputError(f"images must be at least 1, got {wanted}")
    if isinstance(data, tuple):
        if len(data) != 2 or not all(isinstance(each, Tensor | np.ndarray) for each in data):
            raise InputError("data: got a tuple of other things; want (images, labels), both tensors or arrays")
        images, labels = (torch.as_tensor(each) for each in data)
        images, labels = check_images(images, labels, wanted)
        index = torch.from_numpy(drawn(len(images), wanted, seed))
        return images[index.to(images.device)], labels[index.to(labels.device)], index
    split = data if hasattr(data, "take") and not isinstance(data, Tensor | np.ndarray) else as_data(data).test
    chosen = drawn(len(split), wanted, seed)
    return *check_images(*taken(split, chosen), wanted), torch.from_numpy(chosen)
