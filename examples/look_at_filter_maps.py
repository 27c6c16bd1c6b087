"""What a layer's hypernetwork makes of an image: the filter maps of a small SHC network, looked at from all sides.

    python examples/look_at_filter_maps.py [FOLDER]

Trains Plain-10-SHC on the embedded demo data (or loads it, the second time) and draws two pictures into FOLDER:
filter-maps.png, images beside their map at every layer, and map-shifts.png, how far the map moves from an image to
another one, to its adversarial image and to random noise of the same size.
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from torch import Tensor, nn

import shconv
from shconv.data import load_data
from shconv.training import RECIPES, ModelConfig, train, with_epochs

Maps = dict[str, Tensor]  # layer name -> M (N, 3, 3)
LINES = {  # an image's map is compared with that of -> colour (Okabe and Ito's), line, marker
    "an image of another class": ("#D55E00", "-", "o"),
    "another image of its class": ("#E69F00", "-", "s"),
    "its adversarial image": ("#0072B2", "--", "^"),
    "the image with random signs": ("#000000", ":", "v"),
}


def main(
    folder: str | Path = "runs/examples",
    epochs: int = 7,
    width: int = 16,
    per_class: int = 60,
    epsilon: float = 8 / 255,
) -> tuple[Maps, Maps, dict[str, list[float]]]:
    """The maps of clean images, those of adversarial ones, and the mean shift at every layer, a list for each line."""
    folder = Path(folder)
    data = load_data("demo")
    classes = len(data.classes)
    config = ModelConfig("plain10_shc", classes, stem="small", width=width)
    trained = train(config, data, with_epochs(RECIPES["short"], epochs), folder / "plain10_shc")
    model = trained.model
    print(f"Plain-10-SHC, width {width}: accuracy {trained.test_accuracy:.1%} on {len(data.test):,} test images")

    pairs = [data.test[i] for i in range(per_class * classes)]  # in the demo the classes take turns
    images, labels = torch.stack([x for x, _ in pairs]).float() / 255, torch.tensor([y for _, y in pairs])
    attack = shconv.attacks.IFGSM.epsilon_over_steps(epsilon, steps=5, objective="untargeted")
    adversarial = attack(model, images, labels)
    signs = 2.0 * torch.randint(0, 2, images.shape, generator=torch.Generator().manual_seed(0)) - 1
    maps, clean_right = maps_and_right(model, images, labels)
    maps_adversarial, adversarial_right = maps_and_right(model, adversarial, labels)
    maps_noisy, noisy_right = maps_and_right(model, (images + epsilon * signs).clamp(0, 1), labels)
    print(f"{len(images)} of them: accuracy {clean_right:.1%}; moved by {255 * epsilon:.0f}/255 at every pixel:")
    print(f"{noisy_right:.1%} with random signs, {adversarial_right:.1%} after I-FGSM (5 steps, untargeted)\n")

    shifts: dict[str, list[float]] = {words: [] for words in LINES}
    print("M of each layer: its extremes, how often it names the class, mean |M - M'| from an image to one of another")
    print("class, to another of its class, to its adversarial image, to that with random signs")
    print("layer          least   most  class    other    same  advers   noise")
    for layer, M in maps.items():
        others = (M.roll(1, 0), M.roll(classes, 0), maps_adversarial[layer], maps_noisy[layer])
        for line, other in zip(shifts.values(), others, strict=True):
            line.append(float((M - other).abs().mean()))
        row = "".join(f"{line[-1]:8.4f}" for line in shifts.values())
        print(f"{layer:<13}{M.min():7.3f}{M.max():7.3f}{class_told_by(M, labels):7.1%} {row}")
    print(f"class by chance: {1 / classes:.1%}\n")

    draw_maps(images, maps, data.classes, folder / "filter-maps.png")
    draw_shifts(images, adversarial, maps, maps_adversarial, shifts, epsilon, folder / "map-shifts.png")
    return maps, maps_adversarial, shifts


@torch.no_grad()
def maps_and_right(model: nn.Module, images: Tensor, labels: Tensor) -> tuple[Maps, float]:
    """Every layer's maps of some images, and the share of the images that the network gets right."""
    with shconv.record_filter_maps(model) as maps:
        right = model(images).argmax(1) == labels
    return dict(maps), float(right.float().mean())


def class_told_by(M: Tensor, labels: Tensor) -> float:
    """How often a map's nine numbers tell the class, by the nearest of the classes' mean maps (the image left out)."""
    s, right = M.flatten(1), 0
    for i in range(len(s)):
        others = torch.arange(len(s)) != i
        means = torch.stack([s[others & (labels == y)].mean(0) for y in labels.unique()])
        right += int(labels.unique()[(means - s[i]).norm(dim=1).argmin()] == labels[i])
    return right / len(s)


def draw_maps(images: Tensor, maps: Maps, classes: tuple[str, ...], file: Path) -> None:
    """Above, every layer's mean map; below, two images of every second class and what their maps are beyond it."""
    places = [y + turn * len(classes) for y in range(0, len(classes), 2) for turn in range(2)]
    figure, grid = plt.subplots(1 + len(places), 1 + len(maps), figsize=(7, 6.9), layout="constrained")
    for column, (layer, M) in enumerate(maps.items(), start=1):
        mean = M.mean(0)
        above = grid[0, column].imshow(mean.numpy(), cmap="cividis", vmin=0.3, vmax=0.7)
        grid[0, column].set_title(layer.replace(".", "\n"), fontsize=8)
        for row, place in enumerate(places, start=1):
            below = grid[row, column].imshow((M[place] - mean).numpy(), cmap="PuOr", vmin=-0.15, vmax=0.15)
    beside(grid[0, 0], "mean map")
    for row, place in enumerate(places, start=1):
        grid[row, 0].imshow(images[place].permute(1, 2, 0).numpy(), interpolation="nearest")
        beside(grid[row, 0], classes[place % len(classes)])
    for axes in grid.flat:
        bare(axes)
    options = {"location": "bottom", "extend": "both", "aspect": 25}
    figure.colorbar(above, ax=grid[:, :4], label="mean map, M", **options)
    figure.colorbar(below, ax=grid[:, 4:], label="an image's map minus the mean map", **options)
    save(figure, file)


def draw_shifts(
    images: Tensor,
    adversarial: Tensor,
    maps: Maps,
    maps_adversarial: Maps,
    shifts: dict[str, list[float]],
    epsilon: float,
    file: Path,
) -> None:
    """Above, the mean shift by layer; below, where it is largest, images of which it is small, usual and large."""
    figure = plt.figure(figsize=(7, 5.2), layout="constrained")
    upper, lower = figure.subfigures(2, 1, height_ratios=(1.25, 1))
    axes = upper.subplots()
    for (words, values), (colour, line, marker) in zip(shifts.items(), LINES.values(), strict=True):
        axes.plot(values, color=colour, linestyle=line, marker=marker, label=words)
    axes.set_xticks(range(len(maps)), [layer.replace(".", "\n") for layer in maps], fontsize=8)
    axes.set_ylabel("mean |M - M'|, a tap")
    axes.set_ylim(0, 1.4 * max(map(max, shifts.values())))  # room for the legend above the lines
    axes.legend(title="from an image to", frameon=False, fontsize=8, title_fontsize=8, loc="upper left", ncols=2)
    axes.spines[["top", "right"]].set_visible(False)

    layer = max(maps, key=lambda name: float((maps[name] - maps_adversarial[name]).abs().mean()))
    M, M_adversarial = maps[layer], maps_adversarial[layer]
    moved = (M - M_adversarial).abs().mean((1, 2))
    grid = lower.subplots(2, 6)
    for pair, (words, share) in enumerate((("lower quartile", 0.25), ("median", 0.5), ("upper quartile", 0.75))):
        place = moved.argsort()[int(share * len(moved))]
        grid[0, 2 * pair].set_title(f"{words}\n{moved[place]:.3f} a tap", fontsize=8, loc="left")
        for row, (shown, each) in enumerate(((images, M), (adversarial, M_adversarial))):
            grid[row, 2 * pair].imshow(shown[place].permute(1, 2, 0).numpy(), interpolation="nearest")
            beyond = (each[place] - M.mean(0)).numpy()
            colours = grid[row, 2 * pair + 1].imshow(beyond, cmap="PuOr", vmin=-0.15, vmax=0.15)
    for each in grid.flat:
        bare(each)
    beside(grid[0, 0], "clean")
    beside(grid[1, 0], f"adversarial\n{255 * epsilon:.0f}/255")
    lower.colorbar(colours, ax=grid, extend="both", label=f"map minus mean map,\n{layer}")
    save(figure, file)


def beside(axes: Axes, words: str) -> None:
    axes.set_ylabel(words.replace("_", "\n"), rotation=0, ha="right", va="center", fontsize=8)


def bare(axes: Axes) -> None:
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_visible(False)


def save(figure: plt.Figure, file: Path) -> None:
    figure.savefig(file, dpi=110)
    plt.close(figure)
    print(f"picture: {file}")


if __name__ == "__main__":
    main(*sys.argv[1:])
