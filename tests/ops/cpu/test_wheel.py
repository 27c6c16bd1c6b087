"""The kernels that come with a wheel: they serve without a compiler, and nothing is built; and the whole way, from the
sources to an installed wheel."""

import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import shconv
from shconv.ops.cpu import library

ROOT = Path(__file__).parents[3]
OP = """
import ctypes, json, logging, sys, torch
logging.basicConfig()
from shconv.ops import filtered_conv2d, reference
from shconv.ops.cpu import library
torch.manual_seed(0)
x, w, M = torch.randn(2, 20, 9, 8, requires_grad=True), torch.randn(17, 20, 3, 3), torch.rand(2, 3, 3)
kernels = library.kernels()
assert not isinstance(kernels, str), kernels
Y = filtered_conv2d(x, w, M, padding=1, formulation="compiled")
Y.square().sum().backward()
leaf = x.detach().double().requires_grad_()
exact = reference.filtered_conv2d(leaf, w.double(), M.double(), None, (1, 1), (1, 1), (1, 1), 1)
exact.square().sum().backward()
error = max(float((Y - exact).abs().max()), float((x.grad - leaf.grad).abs().max() / leaf.grad.abs().max()))
print(json.dumps({"file": kernels._name, "error": error}))
"""


def without_a_compiler(place: Path, cache: Path) -> dict[str, Any]:
    """What the op says where the package is in place: which library it took, and how far its results are off."""
    (cache / "empty").mkdir(parents=True)
    env = {name: value for name, value in os.environ.items() if name not in ("SHCONV_CXX", "CXX")}
    env |= {"PATH": str(cache / "empty"), "PYTHONPATH": str(place), "SHCONV_CACHE": str(cache)}
    done = subprocess.run([sys.executable, "-c", OP], env=env, cwd=cache, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "could not be built" not in done.stderr
    assert sorted(each.name for each in cache.iterdir()) == ["empty"]  # nothing was built
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return said


def test_a_library_that_came_with_the_package_serves_without_a_compiler(tmp_path: Path) -> None:
    if isinstance(library.kernels(), str):
        pytest.skip(str(library.kernels()))
    package = Path(shutil.copytree(Path(shconv.__file__).parent, tmp_path / "place" / "shconv"))
    built = package / "ops" / "cpu" / "kernels.so"
    shutil.copy(library.kernels()._name, built)  # type: ignore[union-attr]
    said = without_a_compiler(tmp_path / "place", tmp_path / "cache")
    assert said["file"] == str(built)
    assert said["error"] < 1e-4


@pytest.mark.slow
@pytest.mark.skipif((platform.system(), platform.machine()) != ("Linux", "x86_64"), reason="wheels for Linux on x86-64")
def test_a_wheel_is_built_installed_and_serves_without_a_compiler(tmp_path: Path) -> None:
    for tool in ("build", "auditwheel", "hatchling"):
        pytest.importorskip(tool)
    command = [
        sys.executable,
        "-m",
        "build",
        "--no-isolation",
        "--wheel",
        "--outdir",
        str(tmp_path / "wheel"),
        str(ROOT),
    ]
    subprocess.run(command, env=os.environ | {"SHCONV_BUILD_KERNELS": "1"}, check=True, capture_output=True)
    (wheel,) = (tmp_path / "wheel").iterdir()
    assert wheel.name.endswith("-py3-none-linux_x86_64.whl")
    shown = subprocess.run([sys.executable, "-m", "auditwheel", "show", str(wheel)], capture_output=True, text=True)
    assert "manylinux_2_" in shown.stdout
    install = [sys.executable, "-m", "pip", "install", "--no-deps", "--target", str(tmp_path / "place"), str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    said = without_a_compiler(tmp_path / "place", tmp_path / "cache")
    assert said["file"] == str(tmp_path / "place" / "shconv" / "ops" / "cpu" / "kernels.so")
    assert (tmp_path / "place" / "shconv" / "ops" / "cuda" / "launch.so").exists()
    assert said["error"] < 1e-4


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
