"""Run folders made by hand: rows whose per-image outcomes are known, so that every cell can be worked out on paper."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from shconv.intervals import wilson

NETWORKS = ("plain10", "plain10_shc", "resnet18", "resnet18_shc")


class RunFolder:
    """Collects rows; ``save`` writes them as the experiments do."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.rows: list[dict] = []
        self.data = {
            "name": "demo",
            "classes": ["cat", "dog", "cup"],
            "image_size": 32,
            "train_images": 900,
            "test_images": 300,
            "note": "Its classes are photographs, not objects.",
        }
        self.environment = {"shconv": "0.1.0", "torch": "2.12.0", "python": "3.11", "device": "cpu", "threads": 1}
        self.config: str = 'seed = 0\nnetworks = ["resnet18"]\n\n[attack]\nepsilon = 0.02\n'

    def add(self, experiment, model, attack, correct, *, seed=0, index=None, rcd=None, outcomes=True, **fields):
        """One row; ``correct`` is the list of outcomes, or (right, of), the right images first."""
        if isinstance(correct, tuple):
            correct = [True] * correct[0] + [False] * (correct[1] - correct[0])
        correct = np.array(correct, bool)
        index = np.arange(len(correct)) if index is None else np.array(index)
        objective, route, step = fields.get("objective"), fields.get("route"), fields.get("step")
        parts = [experiment, model, f"seed{seed}", attack, objective, route, step]
        sigma = fields.get("parameters", {}).get("sigma")
        row = {
            "id": "/".join(str(part) for part in [*parts, sigma] if part is not None),
            "experiment": experiment,
            "model": model,
            "seed": seed,
            "attack": attack,
            "parameters": {},
            "n": len(correct),
            "wanted": 5000,
            "accuracy": float(correct.mean()) if len(correct) else None,
            "interval": list(wilson(int(correct.sum()), len(correct))),
            "rcd_mean": rcd,
            "rcd_median": rcd,
            "rcd_floored": None if rcd is None else 0,
            "linf": fields.get("linf_max", 0.02),
            "linf_max": 0.02,
            "l2": 1.5,
            "queries": 2.0,
            "seconds": 0.5,
            "objective": objective,
            "route": route,
            "step": step,
            **fields,
        }
        self.rows.append(row)
        if outcomes and len(correct):
            path = self.folder / "outcomes" / f"{row['id'].replace('/', '--')}.npz"
            path.parent.mkdir(parents=True, exist_ok=True)
            np.savez(path, index=index, correct=correct)
        return row

    def gradient(self, model, attack, objective, correct, *, route="both", experiment="table2", **fields):
        reached = {"fgsm": 0.02, "ifgsm": 0.005, "rand_fgsm": 0.0625, "fgsm_heavy": 0.1}[attack]
        fields.setdefault("linf_max", reached)
        return self.add(experiment, model, attack, correct, objective=objective, route=route, **fields)

    def search(self, model, shares, rcds, *, attack="locsearch", n=50, steps=(30, 60, 90, 120, 150), **fields):
        for step, share, rcd in zip(steps, shares, rcds, strict=True):
            correct = (round(share * n), n)
            parameters = {"pixels_per_step": 10, "steps": steps[-1]}
            fields.setdefault("wanted", 500)
            self.add("table3", model, attack, correct, rcd=rcd, step=step, parameters=parameters, **fields)

    def on_imagenet(self):
        self.data.update(name="imagenet:/data/ilsvrc", classes=[f"n{k}" for k in range(1000)], note="")

    def save(self) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        lines = "".join(json.dumps(row) + "\n" for row in self.rows)
        (self.folder / "rows.jsonl").write_text(lines)
        (self.folder / "data.json").write_text(json.dumps(self.data))
        (self.folder / "environment.json").write_text(json.dumps(self.environment))
        (self.folder / "config.toml").write_text(self.config)
        return self.folder

    def trained(self, model, seed, accuracies, parameters=7):
        """A checkpoint folder whose weights have ``parameters`` entries, and a log of one record an epoch."""
        folder = self.folder / "models" / f"{model}-seed{seed}"
        folder.mkdir(parents=True, exist_ok=True)
        weights = {"conv1.weight": np.zeros(parameters, np.float32), "bn1.running_mean": np.zeros(5, np.float32)}
        save_file(weights, folder / "model.safetensors")
        lines = [
            {"epoch": epoch, "loss": 2 / (epoch + 1), "test_accuracy": share, "images_per_second": 900, "seconds": 2.0}
            for epoch, share in enumerate(accuracies)
        ]
        (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    def arrays(self, name, **arrays):
        path = self.folder / "arrays" / f"{name}.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, **arrays)

    def figure_arrays(self, label="cat"):
        """The array files of Figures 2 to 4, all of them, from a fixed generator."""
        rng = np.random.default_rng(0)
        y, x = np.mgrid[0:32, 0:32] / 31
        image = np.stack([x, y, 1 - x])
        noise = rng.normal(size=(6, 3, 32, 32)) * np.arange(6)[:, None, None, None] * 0.05
        models = np.array(["resnet18", "resnet18_shc"])
        levels = np.arange(6)
        self.arrays(
            "figure2",
            sigma=0.05 * levels,
            images=np.clip(image + noise, 0, 1).astype(np.float32),
            models=models,
            p_y=np.stack([0.95 * 0.6**levels, 0.97 * 0.75**levels]),
            rcd=np.stack([0.5 * levels, 0.35 * levels]),
            label=np.array(label),
        )
        steps, marks = np.arange(151), np.array([30, 60, 90, 120, 150])
        images = np.broadcast_to(image, (2, 5, 3, 32, 32)).copy()
        for mark in range(5):
            at = rng.integers(0, 32, size=(2, 20 * (mark + 1)))
            images[:, mark, :, at[0], at[1]] = rng.random((20 * (mark + 1), 1, 1)) > 0.5
        self.arrays(
            "figure3_resnet18-seed0",
            models=models,
            p_y=np.stack([np.exp(-steps / 25), np.exp(-steps / 90)]),
            rcd=np.stack([3.2 * (1 - np.exp(-steps / 40)), 1.8 * (1 - np.exp(-steps / 80))]),
            marks=marks,
            images=(255 * images).astype(np.uint8),
            correct=np.array([[True, False, False, False, False], [True, True, True, True, False]]),
            maps=0.5 + 0.1 * rng.normal(size=(5, 3, 3)) / 3,
            label=np.array(label),
        )
        self.arrays(
            "figure4_resnet18_shc-seed0",
            red=image[0],
            both=rng.normal(size=(32, 32)) * 1e-3 * (1 + 2 * np.exp(-8 * ((x - 0.5) ** 2 + (y - 0.5) ** 2))),
            convolution=rng.normal(size=(32, 32)) * 1e-3,
            hypernetwork=(np.sin(9 * x) * np.cos(7 * y)) * 4e-3,
            label=np.array(label),
            objective=np.array("least_likely"),
        )

    def everything(self, n=200, seeds=(0,)):
        """A run with every experiment, whose SHC networks mask their gradient as the paper's Table 4 says."""
        rng = np.random.default_rng(1)

        def right(share, of=n):
            return rng.random(of) < share

        for seed in seeds:
            for place, model in enumerate(NETWORKS):
                shc = model.endswith("_shc")
                common = {"seed": seed}
                level = 0.70 + 0.02 * place
                self.add("table1", model, "clean", right(level, 300), wanted=50000, linf_max=0.0, **common)
                for sigma, drop in ((0.1, 0.08), (0.2, 0.13), (0.4, 0.22)):
                    share = level - drop
                    fields = {"parameters": {"sigma": sigma, "epsilon": 0.1}, "wanted": 50000, "linf_max": 0.1}
                    self.add("table1", model, "gaussian", right(share, 300), rcd=6 * drop, **fields, **common)
                shares = {"fgsm": 0.44, "fgsm_heavy": 0.24, "ifgsm": 0.38, "rand_fgsm": 0.28}
                for attack, share in shares.items():
                    for objective, gain in (("least_likely", 1.0), ("untargeted", 0.8)):
                        for route in ("both", "convolution", "hypernetwork") if shc else ("both",):
                            factor = {"both": 1.0 if shc else 0.2, "convolution": 0.12, "hypernetwork": 0}[route]
                            level = 0.985 if route == "hypernetwork" else share * gain * factor
                            parameters = {"epsilon": 0.02, "objective": objective}
                            outcome = right(level)
                            rcd = 12 - 10 * level
                            fields = {"route": route, "rcd": rcd, "parameters": parameters, **common}
                            self.gradient(model, attack, objective, outcome, **fields)
                slow = 1.0 if shc else 1.9
                for attack, strength in (("locsearch", 1), ("locsearch_cyclic", 2.4), ("locsearch_random", 0.3)):
                    fall = [max(0.0, 1 - 0.05 * slow * strength * step) for step in range(1, 6)]
                    rcds = [0.4 * slow * strength * step for step in range(1, 6)]
                    self.search(model, fall, rcds, attack=attack, steps=(5, 10, 14, 19, 24), **common)
                if shc:
                    for step in (5, 10, 14, 19, 24):
                        extra = {"map_distance": 0.01 * step, "image_distance": 0.2 * step}
                        agreement = {"agreement": 1 - 0.003 * step}
                        self.add("quasi_boundary", model, "locsearch", [], step=step, **extra, **agreement, **common)
                self.trained(model, seed, 0.7 * (1 - np.exp(-np.arange(1, 13) / 3)) + 0.01 * place)
        self.figure_arrays()
        return self


@pytest.fixture
def run_folder(tmp_path):
    return RunFolder(tmp_path / "run")


@pytest.fixture(scope="session")
def run_folder_class():
    return RunFolder
