"""Draw docs/figures/results.svg, the picture of the README, from the tables in docs/results.md.

python docs/figures/draw_results.py
"""

import re
from pathlib import Path

HERE = Path(__file__).parent
SECTION = "## ResNet-18 and ResNet-18-SHC on Imagenette and CIFAR-10, three seeds"
# What a row shows: its title, the table in results.md, its column, and the objective where the table has several.
ROWS = [
    ("no attack", "Table 1", "clean", None),
    ("FGSM", "Table 2", "FGSM", "least-likely"),
    ("RAND+FGSM", "Table 2", "RAND+FGSM", "least-likely"),
    ("worst case", "Worst case per image", "L∞ 0.02", None),
]
NETWORKS = {"ResNet-18": ("#1f5fa8", "vanilla twin"), "ResNet-18-SHC": ("#8c4a12", "SHC")}
LEFT, WIDTH, STEP = 104, 252, 40  # of the axis, and from a row to the next


def numbers(text: str, data: str, table: str, column: str, objective: str | None) -> dict[str, tuple[float, float]]:
    """Mean and standard deviation over the seeds, in per cent, of each network."""
    section = text.split(SECTION)[1].split("\n## ")[0]
    found = section.split(f"**{table}**")[1].split(f"\n{data}:\n")[1].strip().split("\n\n")[0]
    head, _, *lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in found.splitlines()]
    cells = {
        line[0]: line[head.index(column)]
        for line in lines
        if line[0] in NETWORKS and (objective is None or line[1] == objective)
    }
    pattern = re.compile(r"([\d.]+) ± ([\d.]+)")
    return {name: tuple(map(float, pattern.match(cell).groups())) for name, cell in cells.items()}


def drawn(text: str) -> str:
    """The picture, as SVG."""
    parts, y = [], 58
    for data, title in (("Imagenette", "Imagenette, 64 x 64 pixels"), ("CIFAR-10", "CIFAR-10, 32 x 32 pixels")):
        parts.append(f'<text x="8" y="{y}" font-weight="bold">{title}</text>')
        for name, *where in ROWS:
            y += STEP
            parts.append(f'<text x="8" y="{y + 5}">{name}</text>')
            parts.append(f'<path d="M{LEFT} {y}h{WIDTH}" stroke="#ddd"/>')
            for place, (network, (mean, deviation)) in enumerate(numbers(text, data, *where).items()):
                parts.append(mark(mean, deviation, y - 6 + 12 * place, NETWORKS[network][0]))
        y += 26
        parts += [
            f'<text x="{LEFT + WIDTH * share / 100:g}" y="{y + 8}" text-anchor="middle" fill="#555">{share} %</text>'
            for share in (0, 50, 100)
        ]
        y += 48
    legend = "".join(
        f'<circle cx="{14 + 200 * place}" cy="22" r="5" fill="{colour}"/>'
        f'<text x="{26 + 200 * place}" y="27">ResNet-18, {title}</text>'
        for place, (colour, title) in enumerate(NETWORKS.values())
    )
    about = "Accuracy of ResNet-18 with and without SHC under attack; the numbers are in docs/results.md"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 390 {y - 24}" width="390" role="img" '
            f'aria-label="{about}" font-family="Helvetica, Arial, sans-serif" font-size="14" fill="#1d1d1f">',
            f'<rect width="390" height="{y - 24}" fill="#ffffff"/>',
            legend,
            *parts,
            "</svg>\n",
        ]
    )


def mark(mean: float, deviation: float, y: int, colour: str) -> str:
    """A dot at the mean and a line of one standard deviation to each side; percent on the axis."""
    x, half = LEFT + WIDTH * mean / 100, WIDTH * deviation / 100
    line = f'<path d="M{x - half:.1f} {y}h{2 * half:.1f}" stroke="{colour}" stroke-width="2"/>'
    return f'{line}<circle cx="{x:.1f}" cy="{y}" r="4" fill="{colour}"><title>{mean} ± {deviation}</title></circle>'


if __name__ == "__main__":
    picture = drawn((HERE.parent / "results.md").read_text(encoding="utf-8"))
    (HERE / "results.svg").write_text(picture, encoding="utf-8")
