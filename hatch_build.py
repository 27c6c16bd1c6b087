"""Wheels with the C++ kernels in them: SHCONV_BUILD_KERNELS=1 compiles ops/cpu/csrc for every level of x86-64 into one
shared library, which chooses among them by the processor it is loaded on, and ops/cuda/csrc into another. Without it
nothing is compiled.

Every level is the same source with other flags, linked into one object whose symbols are its own but for the C
interface: templates that two levels instantiate must not be taken for the same.
"""

import os
import platform
import re
import shlex
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCE = Path("src", "shconv", "ops", "cpu", "csrc", "filtered.cpp")
PLACE = "shconv/ops/cpu/kernels.so"
LAUNCHER = Path("src", "shconv", "ops", "cuda", "csrc", "launch.cpp")  # one code serves every level
LAUNCHER_PLACE = "shconv/ops/cuda/launch.so"
FLAGS = ["-std=c++17", "-O3", "-fPIC", "-pthread", "-w", "-fno-gnu-unique"]
# Name -> flags, and what the processor and the system must have, best first; the last runs everywhere.
LEVELS = {
    "amx": (
        ["-march=x86-64-v4", "-mavx512bf16", "-mamx-tile", "-mamx-bf16"],
        ["x86-64-v4", "avx512bf16", "amx-tile", "amx-bf16"],
    ),
    "avx512": (["-march=x86-64-v4"], ["x86-64-v4"]),
    "avx2": (["-march=x86-64-v3"], ["x86-64-v3"]),
    "baseline": (["-march=x86-64"], []),
}


# What newer glibc and libstdc++ call by a new version or name, by the older one: the library loads on more systems.
OLDER = """pthread_create pthread_create@GLIBC_2.2.5
expf expf@GLIBC_2.2.5
_ZSt28__throw_bad_array_new_lengthv _ZSt17__throw_bad_allocv
"""


class CustomBuildHook(BuildHookInterface):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if (
            self.target_name != "wheel"
            or version == "editable"
            or os.environ.get("SHCONV_BUILD_KERNELS", "") in ("", "0")
        ):
            return
        if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
            raise SystemExit("SHCONV_BUILD_KERNELS=1 builds for Linux on x86-64 only: build without it")
        self._folder = tempfile.TemporaryDirectory(prefix="shconv-kernels")
        library = build(Path(self.root), Path(self._folder.name))
        build_data["force_include"][str(library)] = PLACE
        build_data["force_include"][str(launcher(Path(self.root), Path(self._folder.name)))] = LAUNCHER_PLACE
        build_data["pure_python"] = False
        build_data["tag"] = "py3-none-linux_x86_64"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if hasattr(self, "_folder"):
            self._folder.cleanup()


def build(root: Path, folder: Path) -> Path:
    """The shared library, made in folder."""
    compiler = compilers()
    objects, levels = [], dict[str, set[str]]()
    for level, (flags, _) in LEVELS.items():
        compiled, made = folder / f"{level}.first.o", folder / f"{level}.o"
        run(*compiler, *FLAGS, *flags, "-c", str(root / SOURCE), "-o", str(compiled))
        run("ld", "-r", "--force-group-allocation", str(compiled), "-o", str(made))
        names = levels[level] = set(re.findall(r" T (shconv_\w+)$", run("nm", str(made)), re.MULTILINE))
        keep, rename = folder / f"{level}.keep", folder / f"{level}.rename"
        keep.write_text("".join(f"{name}\n" for name in names))
        rename.write_text(OLDER + "".join(f"{name} {name}_{level}\n" for name in names))
        run("objcopy", f"--keep-global-symbols={keep}", str(made))
        run("objcopy", f"--redefine-syms={rename}", str(made))
        objects.append(str(made))
    choice = folder / "choice.cpp"
    choice.write_text(chooser(levels))
    library = folder / "kernels.so"
    run(
        *compiler, "-O2", "-fPIC", "-shared", "-pthread", str(choice), *objects, "-o", str(library),
        "-Wl,--gc-sections", "-s",
    )  # fmt: skip
    return library


def launcher(root: Path, folder: Path) -> Path:
    """The library that launches kernels on a GPU, made in folder."""
    made = folder / "launch.so"
    run(*compilers(), *FLAGS, "-shared", "-s", str(root / LAUNCHER), "-o", str(made))
    return made


def compilers() -> list[str]:
    return shlex.split(os.environ.get("SHCONV_CXX") or os.environ.get("CXX") or "g++")


def chooser(levels: dict[str, set[str]]) -> str:
    """C++ that gives every function of the interface the code of the best level, once, when the library is loaded.
    levels: name -> its functions; one that a level lacks, such as those of matrix tiles, fails there."""
    checks = "".join(
        f"    if ({' && '.join(f'__builtin_cpu_supports({chr(34)}{each}{chr(34)})' for each in needs) or 'true'}) "
        f"return {place};\n"
        for place, (_, needs) in enumerate(LEVELS.values())
    )
    lines = [f"static int best() {{\n    __builtin_cpu_init();\n{checks}}}\n"]
    lines.append('extern "C" {\ntypedef int Code();\nstatic int absent() { return 1; }\n')
    for name in sorted(set().union(*levels.values())):
        lines += [f"Code {name}_{level};\n" for level in levels if name in levels[level]]
        codes = ", ".join(f"{name}_{level}" if name in levels[level] else "absent" for level in levels)
        lines.append(f"static Code* choose_{name}() {{ Code* const codes[] = {{{codes}}}; return codes[best()]; }}\n")
        lines.append(f'Code {name} __attribute__((ifunc("choose_{name}")));\n')
    named = ", ".join(f'"{level}"' for level in levels)
    lines.append(f"const char* shconv_level() {{ const char* const all[] = {{{named}}}; return all[best()]; }}\n")
    return "".join([*lines, "}\n"])


def run(*command: str) -> str:
    try:
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    except FileNotFoundError:
        raise SystemExit(f"{command[0]} is not there: the kernels need a C++ compiler and binutils") from None
