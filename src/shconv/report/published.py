"""The numbers that Sun, Ozay and Okatani (2017) published, as data: Tables 1 to 4, on ImageNet (ILSVRC-2012).
Accuracy in per cent, RCD in natural logarithms, both as printed."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """One cell of the paper: accuracy in per cent, and RCD where the cell has one."""

    accuracy: float
    rcd: float | None = None


NETWORKS = {
    "plain10": "Plain-10",
    "plain10_shc": "Plain-10-SHC",
    "resnet18": "ResNet-18",
    "resnet18_shc": "ResNet-18-SHC",
    "resnet50": "ResNet-50",
    "resnet50_shc": "ResNet-50-SHC",
}
SIGMAS = (0.1, 0.2, 0.4)
STEPS = (30, 60, 90, 120, 150)


def _cells(*numbers: float) -> tuple[Published, ...]:
    return tuple(Published(accuracy, rcd) for accuracy, rcd in zip(numbers[::2], numbers[1::2], strict=True))


# Table 1: clean accuracy, then sigma 0.1, 0.2, 0.4
TABLE1 = {
    "plain10": (Published(60.74), *_cells(49.49, 0.89, 43.88, 1.24, 31.23, 2.11)),
    "plain10_shc": (Published(64.32), *_cells(53.25, 0.92, 47.63, 1.36, 34.02, 2.44)),
    "resnet18": (Published(71.16), *_cells(62.49, 0.92, 58.43, 1.29, 48.41, 2.19)),
    "resnet18_shc": (Published(73.48), *_cells(64.61, 0.95, 61.08, 1.32, 52.58, 2.18)),
    "resnet50": (Published(76.67), *_cells(69.36, 1.00, 65.79, 1.41, 57.55, 2.44)),
    "resnet50_shc": (Published(77.79), *_cells(71.12, 0.92, 67.89, 1.31, 61.02, 1.96)),
}

# Table 2, in this order
TABLE2_ATTACKS = ("fgsm", "fgsm_heavy", "ifgsm", "rand_fgsm")
TABLE2 = {
    "plain10": _cells(3.06, 10.54, 0.94, 11.51, 1.90, 14.11, 0.40, 12.57),
    "plain10_shc": _cells(16.66, 9.44, 8.38, 10.58, 14.14, 10.91, 6.98, 11.77),
    "resnet18": _cells(10.54, 9.78, 3.54, 11.67, 6.18, 12.48, 1.94, 11.46),
    "resnet18_shc": _cells(44.34, 7.53, 23.64, 9.68, 37.56, 8.74, 28.16, 9.21),
    "resnet50": _cells(28.46, 8.84, 20.02, 9.84, 16.78, 10.68, 9.94, 10.72),
    "resnet50_shc": _cells(42.40, 7.88, 31.16, 8.99, 28.40, 9.57, 27.38, 9.52),
}

# Table 3: LocSearchAdv after STEPS
TABLE3 = {
    "plain10": _cells(87.2, 1.40, 77.8, 2.03, 69.0, 2.46, 63.0, 2.82, 57.8, 3.14),
    "plain10_shc": _cells(97.8, 0.75, 93.2, 1.19, 87.0, 1.55, 82.2, 1.84, 78.4, 2.14),
    "resnet18": _cells(81.6, 1.49, 71.2, 2.15, 62.4, 2.58, 54.8, 2.99, 51.8, 3.24),
    "resnet18_shc": _cells(93.4, 0.75, 88.9, 1.11, 84.0, 1.43, 80.2, 1.66, 75.2, 1.85),
    "resnet50": _cells(77.6, 1.61, 66.4, 2.28, 59.4, 2.72, 55.2, 3.23, 47.6, 3.52),
    "resnet50_shc": _cells(90.4, 0.80, 84.0, 1.22, 77.0, 1.55, 72.4, 1.87, 67.6, 2.15),
}

# Table 4: RAND+FGSM, by (network, gradient route)
TABLE4 = {
    ("resnet18", "both"): Published(1.94, 11.46),
    ("resnet18_shc", "both"): Published(28.16, 9.21),
    ("resnet18_shc", "hypernetwork"): Published(98.5, 1.18),
    ("resnet18_shc", "convolution"): Published(2.6, 13.29),
}


def network_name(model: str) -> str:
    """The paper's name of a network of ours; another name stays as it is."""
    return NETWORKS.get(model, model)


def is_shc(model: str) -> bool:
    return model.endswith("_shc")


def twin(model: str) -> str:
    """The vanilla network of the pair that an SHC network belongs to."""
    return model.removesuffix("_shc")
