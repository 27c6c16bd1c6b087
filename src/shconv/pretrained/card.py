"""The model card: what the network is, on what images it was trained, what it gets right, and what its robustness
numbers are worth. It says what is known and that the rest is not."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from torch import nn

from shconv.intervals import wilson
from shconv.report import Run, load_run, read
from shconv.report.audit.tables import audit_tables
from shconv.report.output.render import to_markdown
from shconv.report.paper.tables import paper_tables
from shconv.report.published import network_name, twin
from shconv.routes import shc_layers

HEAD = """---
library_name: shconv
pipeline_tag: image-classification
tags:
- image-classification
- statistical-hyper-convolution
---
"""

USE = """## Use

```python
from shconv.pretrained import from_pretrained

model = from_pretrained(".")  # this folder, or OWNER/NAME
```"""

WORTH = """## What its robustness numbers are worth

Accuracy under an attack is an upper bound: it only shows what the tried attacks did not find. A stronger
attack can only lower it. The kernels of an SHC network depend on the image, and this can make gradients
misleading without making the network robust. So a high number under gradient attacks alone is no evidence of
robustness; `shconv audit` looks for this. Nothing here is a guarantee. Do not rely on this network where an attacker
would gain by fooling it."""

UNTRIED = "No attack was run on this network for this card, so its robustness is unknown."


def model_card(name: str, model: nn.Module, info: Mapping[str, Any], rows: str | Path | None) -> str:
    """README.md for a network; info as config.json has it, rows a run folder. Raises InputError for a damaged one."""
    info = without_places(info)
    run = None if rows is None else load_run(rows)
    parts = [HEAD + f"# {_plain(name)}", _network(model), _data(_with_data(info, run)), USE, WORTH]
    parts += [UNTRIED] if run is None else list(_tables(run, name))
    text = "\n\n".join(part for part in parts if part) + "\n"
    return text if run is None else text.replace(_plain(run.data.name), _plain(_without_place(run.data.name)))


def without_places(value: Any) -> Any:
    """Plain values for others to read: of an absolute path, which tells of the machine, the last part is left."""
    if isinstance(value, Mapping):
        return {key: without_places(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [without_places(each) for each in value]
    return _without_place(value) if isinstance(value, str) else value


def _without_place(text: str) -> str:
    """folder:/home/me/birds -> folder:birds."""
    kind, colon, path = text.partition(":")
    if not (colon and kind.isalpha() and len(kind) > 1):
        kind, colon, path = "", "", text
    known = next((each for each in (PurePosixPath(path), PureWindowsPath(path)) if each.is_absolute()), None)
    return text if known is None or "\n" in text or path.startswith("//") else f"{kind}{colon}{known.name}"


def _with_data(info: Mapping[str, Any], run: Run | None) -> Mapping[str, Any]:
    """What the run tells of the data, where nobody else does."""
    return {"data": vars(run.data), **info} if run is not None else info


def _network(model: nn.Module) -> str:
    layers = shc_layers(model)
    total = sum(parameter.numel() for parameter in model.parameters())
    theta = sum(parameter.numel() for layer in layers.values() for parameter in layer.hyper.parameters())
    kind = f"{len(layers)} Statistical Hyper-Convolutions" if layers else "no Statistical Hyper-Convolution"
    return (
        f"An image classifier with {kind}; {total:,} parameters, {theta:,} of them in hypernetworks. "
        "It takes images in [0, 1], (N, channels, height, width), and gives logits; normalisation, if any, is inside."
    )


def _data(info: Mapping[str, Any]) -> str:
    data, recipe = info.get("data") or {}, info.get("recipe") or {}
    lines = ["## Training data and accuracy", ""]
    if data:
        counts = ", ".join(f"{data[key]:,} {key.replace('_', ' ')}" for key in _counted(data))
        lines.append(
            f"- Data: {_plain(data.get('name', 'not said'))}, {len(data.get('classes') or ())} classes; {counts}"
        )
        preset = f", test preset {_plain(data['test_preset'])}" if data.get("test_preset") else ""
        lines.append(f"- Image size as tested: {_plain(data.get('image_size', 'not said'))}{preset}")
    else:
        lines.append("- Data: not said")
    if recipe:
        lines.append("- Recipe: " + ", ".join(f"{_plain(key)} {_plain(value)}" for key, value in recipe.items()))
    lines.append(f"- Accuracy: {_accuracy(info, data)}")
    return "\n".join(lines)


def _accuracy(info: Mapping[str, Any], data: Mapping[str, Any]) -> str:
    share, n = info.get("test_accuracy"), info.get("test_images", data.get("test_images"))
    if not isinstance(share, int | float):
        return "not said"
    if not isinstance(n, int):
        return f"{share:.2%}"
    low, high = wilson(round(share * n), n)
    return f"{share:.2%} of {n:,} test images (95 % interval {low:.1%} to {high:.1%})"


def _counted(data: Mapping[str, Any]) -> list[str]:
    return [key for key in ("train_images", "test_images") if isinstance(data.get(key), int) and data[key]]


def _tables(run: Run, name: str) -> Iterator[str]:
    """What the run measured of the network and its twin, and what that shows."""
    own = {twin(name), f"{twin(name)}_shc"}
    yield (
        f"Measured in the run {_plain(run.folder.resolve().name)}, on the network of this name there and its "
        "twin. Whoever saved this folder states that it is the same network."
    )
    for table in paper_tables(run) if run.rows else ():
        lines = tuple(line for line in table.lines if line.model in own and any(cell.scores for cell in line.cells))
        if lines:
            yield f"##{to_markdown(replace(table, lines=lines))}".rstrip()
    for grid in audit_tables([audit for audit in run.audits if audit.model == name]):
        yield f"##{to_markdown(grid)}".rstrip()
    others = {network_name(row.model) for row in run.rows if row.model not in own}
    said = [each for each in map(str, read(run)) if _is_about(each, set(map(network_name, own)), others)]
    if said:
        yield "### What these rows show\n\n" + "\n".join(f"- {_plain(each)}" for each in said)


def _is_about(text: str, own: set[str], others: set[str]) -> bool:
    return any(name in text for name in own) or not any(name in text for name in others)


def _plain(value: Any) -> str:
    """One line that is text and nothing else in Markdown."""
    text = " ".join(str(value).split())
    for character, entity in (("&", "&amp;"), ("<", "&lt;"), ("|", "&#124;"), ("`", "&#96;"), ("[", "&#91;")):
        text = text.replace(character, entity)
    return text
