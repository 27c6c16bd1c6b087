"""What importing parts of the package brings along, each looked at in a fork of one process that has only torch, or of
its fork that has shconv too."""

import json
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import shconv

COMMANDS = [each.stem for each in Path(shconv.__file__).parent.glob("commands/*.py") if each.stem != "__init__"]
HEAVY = {"triton", "matplotlib", "torchvision", "skimage", "scipy", "tyro", "timm", "torch._dynamo"}
REGISTERED = (
    "import torch; ops = torch.ops.shconv; import torch.utils.flop_counter as f; "
    "assert {ops.layer, ops.layer_backward, ops.filtered_conv2d, ops.filter_map} <= set(f.flop_registry)"
)
# What is run, and what it may not have imported.
CASES: dict[str, tuple[str, set[str]]] = {
    "shconv": ("import shconv", {*HEAVY, "jinja2", "accelerate", "rich", "shconv.audit", "torch.utils.flop_counter"}),
    # All that any command imports before it knows which one is wanted.
    "every command": ("import " + ", ".join(f"shconv.commands.{name}" for name in COMMANDS), HEAVY),
    "sizes of networks": ("from shconv.commands import info; info._relatives()", {"torch._dynamo"}),
    "report": ("import shconv.report", {"matplotlib"}),
    "the audit, when it is asked for": (
        "import shconv; assert callable(shconv.audit.run) and not hasattr(shconv, 'audits')",
        {"matplotlib"},
    ),
    "the counter of operations, before": (f"import torch.utils.flop_counter, shconv.ops; {REGISTERED}", set()),
    "the counter of operations, after": (f"import shconv.ops, torch.utils.flop_counter; {REGISTERED}", set()),
}
FORKS = """
import json, os, sys, torch
before = set(sys.modules)
def look(name, code, then=()):
    end, other = os.pipe()
    if os.fork() == 0:
        try:
            exec(code)
            said = {name: sorted(set(sys.modules) - before)}
        except BaseException as error:
            said = {name: repr(error)}
        for each in then:
            said |= look(*each)
        os.write(other, json.dumps(said).encode())
        os._exit(0)
    os.close(other)
    with open(end) as file:
        return json.load(file)
print(json.dumps(look(*json.loads(sys.argv[1]))))
"""


@pytest.fixture(scope="module")
def imported() -> dict[str, list[str]]:
    """By case, the modules that torch alone did not import; or the error."""
    codes = {name: code for name, (code, _) in CASES.items()}
    without = [(name, codes.pop(name)) for name in ("the counter of operations, before",)]
    tree = ("torch", "", [*without, ("shconv", codes.pop("shconv"), list(codes.items()))])
    command = [sys.executable, "-c", FORKS, json.dumps(tree)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    told: dict[str, list[str]] = json.loads(done.stdout)
    return told


@pytest.mark.parametrize("case", CASES)
def test_importing_it_imports_nothing_heavy(case: str, imported: dict[str, list[str]]) -> None:
    assert any(name.startswith("shconv") for name in imported[case]), imported[case]
    assert set(imported[case]) & CASES[case][1] == set()


@pytest.fixture(scope="module")
def uses() -> dict[str, set[str]]:
    """By file, the files of the package that it imports, not for types either."""
    root = Path(shconv.__file__).parent
    files = {".".join(("shconv", *each.relative_to(root).with_suffix("").parts)): each for each in root.rglob("*.py")}
    files = {name.removesuffix(".__init__"): each for name, each in files.items()}
    found = {}
    for name, file in files.items():
        code = re.sub(r'""".*?"""|#[^\n]*', "", file.read_text(encoding="utf-8"), flags=re.DOTALL)
        imports = re.findall(r"^ *from (shconv[\w.]*) import (?:\(([^)]*)\)|(.*))", code, re.MULTILINE)
        named = [
            (module, word) for module, *some in imports for word in re.findall(r"(\w+)(?: as \w+)?", "".join(some))
        ]
        used = {f"{module}.{word}" if f"{module}.{word}" in files else module for module, word in named}
        found[name] = used & (files.keys() - {"shconv"})
    return found


def test_no_files_use_each_other(uses: dict[str, set[str]]) -> None:
    """There is an order in which each file uses only those before it; the package itself hands on what all have."""
    order = list(TopologicalSorter(uses).static_order())  # a CycleError names those that do
    assert order.index("shconv.report.numbers") < order.index("shconv.report.folder.audits")
    assert len(order) > 300


def test_the_architecture_says_which_folders_each_folder_uses(uses: dict[str, set[str]]) -> None:
    text = (Path(__file__).parents[1] / "docs" / "architecture.md").read_text(encoding="utf-8")
    folders = {each.parent.name for each in Path(shconv.__file__).parent.glob("*/__init__.py")}
    assert len(folders) > 15
    for folder in folders - {"commands"}:  # which use all
        (entry,) = re.findall(rf"\*\*`{folder}/`(.*?)(?=\n- |\n\n)", text, re.DOTALL)
        said = re.findall(r"`(\w+)`", " ".join(re.findall(r"\bUses ([^.]*)\.", entry)))
        used = {other.split(".")[1] for file, others in uses.items() if f"{file}.".startswith(f"shconv.{folder}.")
                for other in others}  # fmt: skip
        assert set(said) & folders == used & folders - {folder}, folder
