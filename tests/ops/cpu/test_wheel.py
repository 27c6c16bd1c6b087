"""The kernels that come with a wheel: they serve without a compiler, and nothing is built; and the whole way, from the
sources to an installed wheel."""

import json
import os
import platform
import shutil
import subprocess
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch

import shconv
from shconv.ops.cpu import library

ROOT = Path(__file__).parents[3]
# Every result of a layer's op and its gradients, in both layouts, as one digest; and how far they are off.
OP = """
import hashlib, json, logging, sys, torch
logging.basicConfig()
from shconv.ops import filtered_conv2d, reference
from shconv.ops.cpu import library
from shconv.ops.cuda import launcher
torch.manual_seed(0)
drawn = torch.randn(2, 20, 9, 8), torch.randn(17, 20, 3, 3), torch.rand(2, 3, 3)
kernels = library.kernels()
assert not isinstance(kernels, str), kernels
digest, error = hashlib.sha256(), 0
for layout in (torch.contiguous_format, torch.channels_last):
    found = []
    for dtype in (torch.float32, torch.float64):
        leaves = [each.to(dtype).requires_grad_() for each in drawn]
        if dtype == torch.float32:
            x, w, M = leaves
            Y = filtered_conv2d(x.to(memory_format=layout), w, M, padding=1, formulation="compiled")
        else:
            Y = reference.filtered_conv2d(*leaves, None, (1, 1), (1, 1), (1, 1), 1)
        found.append([Y.detach(), *torch.autograd.grad(Y.square().sum(), leaves)])
    for ours, exact in zip(*found):
        digest.update(ours.contiguous().numpy().tobytes())
        error = max(error, float((ours - exact).abs().max() / exact.abs().max()))
launch = getattr(launcher._BUILT.exists() and library.load(launcher._BUILT, launcher._SOURCE), "_name", "")
print(json.dumps({"file": kernels._name, "launch": launch, "digest": digest.hexdigest(), "error": error}))
"""


def said(place: Path, cwd: Path, **changed: str | None) -> dict[str, Any]:
    """What OP prints where the package is in place, with these variables changed, or left out for None."""
    env = os.environ | {"PYTHONPATH": str(place), "OMP_NUM_THREADS": str(torch.get_num_threads())} | changed
    env = {name: value for name, value in env.items() if value is not None}
    done = subprocess.run([sys.executable, "-c", OP], env=env, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "could not be built" not in done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def assert_as_built_here(place: Path, folder: Path) -> dict[str, Any]:
    """The package in place serves without a compiler and gives what the library gives that is built on first use."""
    (folder / "empty").mkdir(parents=True)
    found = said(place, folder, PATH=str(folder / "empty"), SHCONV_CACHE=str(folder), SHCONV_CXX=None, CXX=None)
    assert sorted(each.name for each in folder.iterdir()) == ["empty"]  # nothing was built
    assert found["file"] == str(place / "shconv" / "ops" / "cpu" / "kernels.so")
    assert found["error"] < 1e-4
    here = StringIO()
    with redirect_stdout(here):
        exec(OP, {})
    built = json.loads(here.getvalue().splitlines()[-1])
    assert built["file"] != found["file"]
    assert found["digest"] == built["digest"]
    return found


def test_a_library_that_came_with_the_package_serves_without_a_compiler(tmp_path: Path) -> None:
    if isinstance(library.kernels(), str):
        pytest.skip(str(library.kernels()))
    package = Path(shutil.copytree(Path(shconv.__file__).parent, tmp_path / "place" / "shconv"))
    shutil.copy(library.kernels()._name, package / "ops" / "cpu" / "kernels.so")  # type: ignore[union-attr]
    assert_as_built_here(tmp_path / "place", tmp_path / "cache")


@pytest.mark.slow
@pytest.mark.skipif((platform.system(), platform.machine()) != ("Linux", "x86_64"), reason="wheels for Linux on x86-64")
def test_a_wheel_is_built_installed_and_serves_without_a_compiler(tmp_path: Path) -> None:
    for tool in ("build", "auditwheel", "hatchling"):
        pytest.importorskip(tool)
    if isinstance(library.kernels(), str):
        pytest.skip(str(library.kernels()))
    into = ["--outdir", str(tmp_path / "wheel"), str(ROOT)]
    command = [sys.executable, "-m", "build", "--no-isolation", "--wheel", *into]
    subprocess.run(command, env=os.environ | {"SHCONV_BUILD_KERNELS": "1"}, check=True, capture_output=True)
    (wheel,) = (tmp_path / "wheel").iterdir()
    assert wheel.name.endswith("-py3-none-linux_x86_64.whl")
    shown = subprocess.run([sys.executable, "-m", "auditwheel", "show", str(wheel)], capture_output=True, text=True)
    assert "manylinux_2_" in shown.stdout
    install = [sys.executable, "-m", "pip", "install", "--no-deps", "--target", str(tmp_path / "place"), str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    found = assert_as_built_here(tmp_path / "place", tmp_path / "cache")
    assert found["launch"] == str(tmp_path / "place" / "shconv" / "ops" / "cuda" / "launch.so")


def test_another_compiler_that_is_named_is_used_and_a_broken_library_said(tmp_path, monkeypatch, caplog) -> None:
    monkeypatch.setattr(library, "_BUILT", tmp_path / "kernels.so")
    assert library._that_came_with_it(library._BUILT) is None
    (tmp_path / "kernels.so").write_bytes(b"no library")
    monkeypatch.delenv("SHCONV_CXX", raising=False)
    assert library._that_came_with_it(library._BUILT) is None
    assert "do not load" in caplog.text
    caplog.clear()
    monkeypatch.setenv("SHCONV_CXX", "clang++")
    assert library._that_came_with_it(library._BUILT) is None
    assert caplog.text == ""
