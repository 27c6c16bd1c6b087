"""What tests of Triton kernels share: where they run (interpreted in a process, or on a device, at a stated precision;
uninitialised tensors are NaN in either), and the compiler for an sm_90 or sm_80 that nobody has here."""

import copy
import math
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import cache
from multiprocessing import get_context
from operator import index
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

NO_DEVICE = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@dataclass(frozen=True)
class Run:
    """Calls a function of CPU tensors and modules where kernels can run, and gives its results on the CPU."""

    call: Callable[..., Any]
    tf32: bool = False  # whether float32 operands are rounded for the tensor cores

    def __call__(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return self.call(function, *arguments)


def _interpret() -> None:
    os.environ["TRITON_INTERPRET"] = "1"
    # numpy's product of float32 rounds a row by its place in the matrix, on some processors; a device's does not.
    product = np.matmul
    np.matmul = lambda a, b, dtype: product(a.astype(float), b.astype(float)).astype(dtype)  # type: ignore[assignment]
    _quicken()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    assert torch.empty(1).isnan(), "uninitialised memory should be NaN here"


def _quicken() -> None:
    """Triton's interpreter at a third of its time: it replaces the language's functions at every call of a function,
    where once a module is enough in a process that does nothing else, works out every sum of integers twice, to find
    those that overflow, which indices into small tensors don't, and makes anew for every value what its type and shape
    say already."""
    from triton.language import core
    from triton.runtime import interpreter

    patch, patched = interpreter._patch_lang, set()

    def once(function: Any) -> Any:
        if function.__module__ not in patched:
            patched.add(function.__module__)
            patch(function)
            core.tensor.__index__ = lambda self: self.handle.data.item()  # Triton 3.6 asks NumPy before 2.4 for it
        return interpreter._LangPatchScope()  # nothing to take back

    interpreter._patch_lang = once
    interpreter.interpreter_builder.options = replace(interpreter.interpreter_builder.options, sanitize_overflow=False)

    dtype_of, known = interpreter._get_np_dtype, dict[str, Any]()

    def dtype(type_: Any) -> Any:
        name = type_.scalar.name
        if name not in known:
            known[name] = dtype_of(type_.scalar)
        return known[name]

    @cache
    def sizes(shape: tuple[int, ...]) -> tuple[Any, Any]:
        return core.tuple([core.constexpr(size) for size in shape]), core.constexpr(math.prod(shape))

    def tensor(self: Any, handle: Any, type_: Any) -> None:
        self.handle, self.type, self.dtype = handle, type_, type_.scalar
        self.shape, self.numel = sizes(type_.shape if type_.is_block() else ())

    block_of, blocks = core.block_type.__init__, dict[Any, dict[str, Any]]()

    def block(self: Any, element_ty: Any, shape: Any) -> None:
        kind = element_ty.name, tuple(map(index, shape))
        if kind not in blocks:
            block_of(self, element_ty, shape)
            blocks[kind] = vars(self)
        self.__dict__.update(blocks[kind], element_ty=element_ty)

    interpreter._get_np_dtype, core.tensor.__init__, core.block_type.__init__ = dtype, tensor, block


@cache
def _interpreter() -> ProcessPoolExecutor:
    """Triton decides when it is imported whether a process interprets; all files share this one, which takes seconds to
    start. So what they change in it they change back."""
    return ProcessPoolExecutor(1, get_context("spawn"), initializer=_interpret)


@contextmanager
def _interpreting() -> Iterator[Run]:
    yield Run(lambda function, *arguments: _interpreter().submit(function, *arguments).result())


def _moved(value: Any, device: str) -> Any:
    """Tensors and modules within it on the device; nothing that is given changes."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, nn.Module):
        return copy.deepcopy(value).to(device)
    if isinstance(value, dict):
        return {name: _moved(each, device) for name, each in value.items()}
    return tuple(_moved(each, device) for each in value) if type(value) in (tuple, list) else value


@contextmanager
def _on_cuda(precision: str) -> Iterator[Run]:
    """On a device; float32 convolutions in the precision "ieee" or "tf32", which is torch's switch for them."""
    convolutions, before = torch.backends.cudnn.conv, torch.backends.cudnn.conv.fp32_precision

    def call(function: Callable[..., Any], *arguments: Any) -> Any:
        convolutions.fp32_precision = precision
        torch.use_deterministic_algorithms(True)
        try:
            return _moved(function(*_moved(arguments, "cuda")), "cpu")
        finally:
            torch.use_deterministic_algorithms(False)
            convolutions.fp32_precision = before

    yield Run(call, precision == "tf32")


PLACES: dict[str, Callable[[], AbstractContextManager[Run]]] = {
    "interpreter": _interpreting,
    "cuda-float32": lambda: _on_cuda("ieee"),
    "cuda-tf32": lambda: _on_cuda("tf32"),
}


def places(*names: str) -> list[Any]:
    """For a fixture's params, whose values enter as `with request.param() as run`."""
    gpu = [pytest.mark.gpu, NO_DEVICE]
    return [pytest.param(PLACES[name], id=name, marks=gpu if name.startswith("cuda") else []) for name in names]


def compiled_for(
    capability: int, kernel: Any, types: dict[str, str], known: dict[str, Any], warps: int, stages: int, directory: Path
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
    made = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    (directory / "kernel.cubin").write_bytes(made.asm["cubin"])
    command = [triton.knobs.nvidia.cuobjdump.path, "--dump-resource-usage", str(directory / "kernel.cubin")]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+)", said)
    assert found, said
    return int(found[1]), int(found[2]), made
