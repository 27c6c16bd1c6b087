"""A network that is not ours, to SHC and back: the same logits, a short fine-tuning, a folder to share.

    python examples/own_network.py [FOLDER]

torchvision's ResNet-18 learns the embedded demo data for a few epochs, in the place of a network that you have. It is
converted, compared and fine-tuned, and so is the vanilla one, for as long, as a control. Draws own-network.png.
"""

import copy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import shconv
from shconv.data import ImageData, load_data, training_batches
from shconv.pretrained import ConvertedConfig, from_pretrained, save_pretrained
from shconv.training import correct_in


def main(
    folder: str | Path = "runs/examples",
    source: str = "torchvision:resnet18",
    epochs: int = 3,
    tuning_epochs: int = 1,
    batch_size: int = 64,
) -> tuple[dict[str, float], dict[str, float], dict[str, list[float]]]:
    """Accuracy by network, largest difference of logits by comparison, and by layer |M - 1/2| in the fine-tuning."""
    folder = Path(folder)
    data = load_data("demo")
    torch.manual_seed(0)
    images = torch.stack([data.test[i][0] for i in range(64)]).float() / 255
    config = ConvertedConfig(source, len(data.classes), normalize="imagenet")
    accuracy, difference = {}, {}

    vanilla = config.normalized(config.vanilla())  # images in [0, 1] -> mean and std -> torchvision's network
    learn(vanilla, data, [{"params": list(vanilla.parameters()), "lr": 0.05}], epochs, batch_size)
    accuracy["vanilla"] = share_right(vanilla, data)

    shc = shconv.to_shc(vanilla, check=images)  # every 3x3; vanilla itself is left untouched
    print(shconv.conversion_report(shc), "\n")
    accuracy["converted"] = share_right(shc, data)
    difference["converted"] = largest_difference(vanilla, shc, images)
    difference["and back, to_vanilla"] = largest_difference(vanilla, shconv.to_vanilla(shc), images)

    control = copy.deepcopy(vanilla)
    learn(control, data, [{"params": list(control.parameters()), "lr": 0.005}], tuning_epochs, batch_size)
    accuracy["vanilla, tuned as long"] = share_right(control, data)

    hyper = [parameter for name, parameter in shc.named_parameters() if ".hyper." in name]
    others = [parameter for name, parameter in shc.named_parameters() if ".hyper." not in name]
    groups = [{"params": others, "lr": 0.005}, {"params": hyper, "lr": 0.05}]  # these start at zero: faster
    from_half: dict[str, list[float]] = {}
    learn(shc, data, groups, tuning_epochs, batch_size, lambda network: note_maps(network, images, from_half))
    accuracy["converted, tuned"] = share_right(shc, data)
    constant = shconv.to_vanilla(shc, images=images)  # one plain network: every map replaced by its mean
    accuracy["its mean maps only"] = share_right(constant, data)

    facts = {"test_accuracy": accuracy["converted, tuned"], "test_images": len(data.test)}
    save_pretrained(shc, folder / "own-network", config=config, facts=facts)
    difference["stored and loaded"] = largest_difference(shc, from_pretrained(folder / "own-network"), images)

    for words, share in accuracy.items():
        low, high = interval(share, data)
        print(f"{words:<23} {share:6.1%} of {len(data.test):,} test images (95 % interval {low:.1%} to {high:.1%})")
    print("\nlargest difference between the logits of 64 images:")
    for words, value in difference.items():
        print(f"{words:<23} {value:.1e}")
    draw(accuracy, data, from_half, folder / "own-network.png")
    return accuracy, difference, from_half


def learn(
    network: nn.Module,
    data: ImageData,
    groups: list[dict[str, Any]],
    epochs: int,
    batch_size: int,
    after_step: Callable[[nn.Module], None] = lambda network: None,
) -> None:
    """SGD with momentum over groups of parameters, each from its own learning rate down to 0 by half a cosine."""
    optimizer = torch.optim.SGD(groups, lr=0.01, momentum=0.9, weight_decay=5e-4)
    steps = epochs * (len(data.train) // batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, steps))
    for epoch in range(epochs):
        for batch in training_batches(data.train, "crop_flip", batch_size=batch_size, seed=0, epoch=epoch):
            network.train()
            loss = F.cross_entropy(network(batch.images.float() / 255), batch.labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            after_step(network)
    network.eval()


@torch.no_grad()
def note_maps(network: nn.Module, images: Tensor, from_half: dict[str, list[float]]) -> None:
    """Add, for every layer, how far its maps of some images are from where they started: mean |M - 1/2|."""
    network.eval()
    with shconv.record_filter_maps(network) as maps:
        network(images[:8])
    for layer, M in maps.items():
        from_half.setdefault(layer, [0.0]).append(float((M - 0.5).abs().mean()))


def share_right(network: nn.Module, data: ImageData) -> float:
    return correct_in(network, data.test, 200, "cpu") / len(data.test)


def interval(share: float, data: ImageData) -> tuple[float, float]:
    return shconv.metrics.accuracy_interval(round(share * len(data.test)), len(data.test))


@torch.no_grad()
def largest_difference(first: nn.Module, second: nn.Module, images: Tensor) -> float:
    return float((first.eval()(images) - second.eval()(images)).abs().max())


def draw(accuracy: dict[str, float], data: ImageData, from_half: dict[str, list[float]], file: Path) -> None:
    """Left, every network's accuracy with its interval; right, the maps on their way from 1/2, a line a layer."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(7, 3.4), layout="constrained")
    for row, (words, share) in enumerate(accuracy.items()):
        colour = "#777777" if words.startswith("vanilla") else "#0072B2"
        low, high = interval(share, data)
        ends = [[100 * (share - low)], [100 * (high - share)]]
        left.errorbar(100 * share, row, xerr=ends, fmt="o", color=colour, capsize=3)
        left.annotate(
            f"{100 * share:.1f}", (100 * share, row), (0, 7), textcoords="offset points", ha="center", fontsize=8
        )
    left.set_yticks(range(len(accuracy)), list(accuracy), fontsize=8)
    left.set_ylim(len(accuracy) - 0.5, -0.7)
    left.set_xlabel(f"accuracy in % on {len(data.test):,} test images")

    colours = plt.colormaps["viridis"]
    for place, (layer, line) in enumerate(from_half.items()):
        depth = place / max(1, len(from_half) - 1)
        ends = depth in (0, 1)
        label = f"{'last' if depth else 'first'}: {layer.removeprefix('network.')}" if ends else None
        right.plot(line, color=colours(0.85 * depth), linewidth=2 if ends else 0.8, label=label)
    right.set_xlabel("step of the fine-tuning")
    right.set_ylabel("mean |M - 1/2|")
    right.set_ylim(0, 1.25 * max(map(max, from_half.values())))
    right.legend(frameon=False, fontsize=8, loc="upper left")
    for axes in (left, right):
        axes.grid(color="#e6e6e6")
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=110)
    plt.close(figure)
    print(f"\npicture: {file}")


if __name__ == "__main__":
    main(*sys.argv[1:])
