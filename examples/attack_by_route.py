"""One attack through each route of the gradient, on a small SHC network and on its vanilla twin; and what masking is.

    python examples/attack_by_route.py [FOLDER]

Trains Plain-10-SHC and Plain-10 on the embedded demo data (or loads them, the second time) and draws two pictures into
FOLDER: attack-by-route.png, accuracy against the budget and against the weight of the hypernetwork route in the
attacker's gradient, and attack-images.png, what each attacker made of four images.
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from torch import Tensor, nn

import shconv
from shconv.data import ImageData, load_data
from shconv.training import RECIPES, ModelConfig, train, with_epochs

ROUTES = {  # gradient_route's arguments, by what the attacker's gradient is
    "both routes": ("both", 1.0),
    "convolution route": ("convolution", 1.0),
    "hypernetwork route": ("hypernetwork", 1.0),
    "both, hypernetwork x 30": ("both", 30.0),
}
STYLES = {  # Okabe and Ito's colours; a marker and a line of its own for each
    "twin, vanilla": ("#777777", "--", "s"),
    "both routes": ("#0072B2", "-", "o"),
    "convolution route": ("#D55E00", "--", "v"),
    "hypernetwork route": ("#009E73", "-", "^"),
    "both, hypernetwork x 30": ("#CC79A7", "-", "D"),
    "worst case": ("#000000", ":", "x"),
}


def main(
    folder: str | Path = "runs/examples",
    epochs: int = 7,
    width: int = 16,
    n_images: int = 140,
    steps: int = 5,
    budgets: tuple[int, ...] = (1, 2, 4, 8, 16),
    weights: tuple[float, ...] = (0, 0.3, 1, 3, 10, 30, 100, 300),
) -> tuple[dict[str, Tensor], dict[float, float]]:
    """Which images stand, (budgets, N) by attacker, and the accuracy at the middle budget by hypernetwork weight.

    budgets: L-infinity, in 255ths.
    """
    folder = Path(folder)
    data = load_data("demo")
    networks = {}
    for name in ("plain10_shc", "plain10"):
        config = ModelConfig(name, len(data.classes), stem="small", width=width)
        result = train(config, data, with_epochs(RECIPES["short"], epochs), folder / name)
        networks[name] = result.model
        print(f"{name}, width {width}: accuracy {result.test_accuracy:.1%} on {len(data.test):,} test images")
    shc, twin = networks["plain10_shc"], networks["plain10"]
    images, labels = both_right(shc, twin, data, n_images)
    print(f"attacked: {len(images)} images that both classify correctly; I-FGSM, {steps} steps, untargeted\n")

    stands: dict[str, list[Tensor]] = {words: [] for words in ("twin, vanilla", *ROUTES)}
    made: dict[int, dict[str, Tensor]] = {}
    for budget in budgets:
        attack = shconv.attacks.IFGSM.epsilon_over_steps(budget / 255, steps, objective="untargeted")
        stands["twin, vanilla"].append(right(twin, attack(twin, images, labels), labels))
        made[budget] = {}
        for words, (route, weight) in ROUTES.items():
            with shconv.gradient_route(shc, route, hypernetwork_weight=weight):
                made[budget][words] = attack(shc, images, labels)
            stands[words].append(right(shc, made[budget][words], labels))  # judged by the whole network
    found = {words: torch.stack(each) for words, each in stands.items()}
    # An image that falls at a small budget is broken at every larger one too: the same change is still allowed.
    found["worst case"] = torch.stack([found[words] for words in ROUTES]).all(0).cummin(0).values

    print(f"{'accuracy, %':<24} " + " ".join(f"{budget:>4}/255" for budget in budgets))
    for words, each in found.items():
        print(f"{words:<24} " + " ".join(f"{100 * share:8.1f}" for share in each.float().mean(1)))
    middle = budgets[len(budgets) // 2]
    row = len(budgets) // 2
    missed = (found["both routes"][row] & ~found["worst case"][row]).sum()
    print(f"at {middle}/255 the gradient of both routes missed {missed} images that another attack broke\n")

    by_weight = {}
    attack = shconv.attacks.IFGSM.epsilon_over_steps(middle / 255, steps, objective="untargeted")
    for weight in weights:
        with shconv.gradient_route(shc, "both", hypernetwork_weight=weight):
            by_weight[weight] = float(right(shc, attack(shc, images, labels), labels).float().mean())
    print(f"accuracy at {middle}/255 by the hypernetwork route's weight in the attacker's gradient:")
    print(", ".join(f"{weight:g}: {accuracy:.1%}" for weight, accuracy in by_weight.items()) + "\n")

    draw_accuracy(found, budgets, by_weight, middle, folder / "attack-by-route.png")
    shown = budgets[-2]
    draw_images(shc, images, made[shown], labels, data.classes, shown, folder / "attack-images.png")
    return found, by_weight


def both_right(first: nn.Module, second: nn.Module, data: ImageData, n: int) -> tuple[Tensor, Tensor]:
    """The first n test images that both networks get right, float (n, 3, 32, 32) in [0, 1], and their labels."""
    pairs = [data.test[i] for i in range(min(4 * n, len(data.test)))]
    images, labels = torch.stack([x for x, _ in pairs]).float() / 255, torch.tensor([y for _, y in pairs])
    kept = right(first, images, labels) & right(second, images, labels)
    return images[kept][:n], labels[kept][:n]


@torch.no_grad()
def right(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    return model(images).argmax(1) == labels


def draw_accuracy(
    found: dict[str, Tensor], budgets: tuple[int, ...], by_weight: dict[float, float], middle: int, file: Path
) -> None:
    figure, (left, aside) = plt.subplots(1, 2, figsize=(7, 3.6), sharey=True, layout="constrained")
    for words, each in found.items():
        colour, line, marker = STYLES[words]
        accuracy = [100.0, *(100 * each.float().mean(1)).tolist()]
        left.plot(accuracy, color=colour, linestyle=line, marker=marker, markersize=5, label=words)
    left.set_xticks(range(len(budgets) + 1), [0, *budgets])
    left.set_xlabel("budget, L-infinity, 255ths")
    left.set_ylabel("accuracy, %")
    left.set_ylim(0, 103)
    left.set_title("one attack, by the gradient that it follows", fontsize=9)

    places = range(len(by_weight))
    aside.plot(places, [100 * accuracy for accuracy in by_weight.values()], color="#CC79A7", marker="D", markersize=5)
    twin = 100 * found["twin, vanilla"][budgets.index(middle)].float().mean()
    aside.axhline(twin, color="#777777", linestyle="--")
    aside.text(len(by_weight) - 1, twin - 2, "twin, vanilla", color="#555555", fontsize=8, ha="right", va="top")
    aside.set_xticks(places, [f"{weight:g}" for weight in by_weight])
    aside.set_xlabel("weight of the hypernetwork route\nin the attacker's gradient")
    aside.set_title(f"at {middle}/255: the same network throughout", fontsize=9)
    for axes in (left, aside):
        axes.grid(color="#e6e6e6")
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    save(figure, file)


@torch.no_grad()
def draw_images(
    model: nn.Module,
    images: Tensor,
    made: dict[str, Tensor],
    labels: Tensor,
    classes: tuple[str, ...],
    budget: int,
    file: Path,
) -> None:
    """A row an attacker, four images: what the network sees and answers, and the change, 0 at mid-grey."""
    places = [int((labels == y).nonzero()[0]) for y in labels.unique()][:7:2]
    figure, grid = plt.subplots(1 + len(made), 2 * len(places), figsize=(6.4, 5), layout="constrained")
    for row, (words, shown) in enumerate({"clean": images, **made}.items()):
        confidence, answer = model(shown).softmax(1).max(1)
        for column, place in enumerate(places):
            axes, change = grid[row, 2 * column : 2 * column + 2]
            axes.imshow(shown[place].permute(1, 2, 0).numpy(), interpolation="nearest")
            stands = answer[place] == labels[place]
            said = f"{classes[answer[place]].split('_')[0]} {100 * confidence[place]:.0f}%"
            axes.set_xlabel(said, fontsize=7, color="#000000" if stands else "#D55E00", labelpad=2)
            if not stands:
                axes.xaxis.label.set_fontweight("bold")
            if row:
                delta = (shown[place] - images[place]) * 255 / budget
                change.imshow(((delta.clamp(-1, 1) + 1) / 2).permute(1, 2, 0).numpy(), interpolation="nearest")
            change.set_visible(row > 0)
        grid[row, 0].set_ylabel(words.replace(", ", ",\n"), rotation=0, ha="right", va="center", fontsize=8)
    for axes in grid.flat:
        axes.set(xticks=[], yticks=[])
        for spine in axes.spines.values():
            spine.set_visible(False)
    magnified = f"beside each image the change, {255 // (2 * budget)} times, on grey"
    figure.supxlabel(f"budget {budget}/255; {magnified}; bold: a wrong answer", fontsize=8)
    save(figure, file)


def save(figure: plt.Figure, file: Path) -> None:
    figure.savefig(file, dpi=110)
    plt.close(figure)
    print(f"picture: {file}")


if __name__ == "__main__":
    main(*sys.argv[1:])
