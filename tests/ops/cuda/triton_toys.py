"""What tests of Triton kernels share: a process that interprets them, where every uninitialised tensor is NaN, and the
compiler for an sm_90 that nobody has here. Triton decides when it is imported whether a process interprets."""

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

Run = Callable[..., Any]


def _interpret() -> None:
    os.environ["TRITON_INTERPRET"] = "1"
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    assert torch.empty(1).isnan(), "uninitialised memory should be NaN here"


@contextmanager
def interpreting() -> Iterator[Run]:
    """Yields what calls a function there."""
    with ProcessPoolExecutor(1, get_context("spawn"), initializer=_interpret) as process:
        yield lambda function, *arguments: process.submit(function, *arguments).result()


def compiled_for_hopper(
    kernel: Any, types: dict[str, str], known: dict[str, Any], warps: int, stages: int, directory: Path
) -> tuple[int, int, Any]:
    """Registers, stack bytes (where spills go) and what Triton made. Arguments known are constants, those with a type
    that begins with * pointers to 16-byte boundaries, "i32/16" multiples of 16, and those without one any integer."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    names = kernel.arg_names
    source = ASTSource(
        kernel,
        {name: "constexpr" if name in known else types.get(name, "i32").removesuffix("/16") for name in names},
        {name: known[name] for name in names if name in known},
        {(i,): [["tt.divisibility", 16]] for i, name in enumerate(names) if re.match(r"\*|.*/16", types.get(name, ""))},
    )
    options = {"num_warps": warps, "num_stages": stages}
    made = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
    (directory / "kernel.cubin").write_bytes(made.asm["cubin"])
    command = [triton.knobs.nvidia.cuobjdump.path, "--dump-resource-usage", str(directory / "kernel.cubin")]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+)", said)
    assert found, said
    return int(found[1]), int(found[2]), made
