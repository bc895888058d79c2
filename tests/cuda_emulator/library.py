"""Builds cuda_kernels.cu for the CPU, its blocks and warps emulated: the kernels' own source, without a GPU."""

from __future__ import annotations

import ctypes
import functools
import re
import subprocess
from pathlib import Path
from typing import Any

from torch import Tensor

from experiments.p4 import cuda_kernels

HERE = Path(__file__).parent
# What g++ can't read of CUDA C++, and what stands in for it: a header, and functions in PTX.
FOR_CPU = {
    r"#include <cuda_runtime.h>": '#include "threads.hpp"',
    r"extern (__shared__ [^;]*)\[\];": r"\1[emulator::SHARED / 2];",
    r"__device__ __forceinline__ uint32_t pack\(.*?(?=struct Moments)": '#include "instructions.hpp"\n',
}


@functools.cache
def parameters(function: str) -> dict[str, Any]:
    """Names and ctypes of a C function's parameters, by the source."""
    found = re.search(rf'extern "C" int {function}\((.*?)\) {{', cuda_kernels.SOURCE.read_text(), re.DOTALL)
    assert found is not None
    kinds: dict[str, Any] = {}
    for parameter in found[1].split(","):
        kind, name = parameter.rsplit(maxsplit=1)
        pointer = "*" in parameter or "cudaStream_t" in kind
        kinds[name] = ctypes.c_void_p if pointer else {"int": ctypes.c_int, "float": ctypes.c_float}[kind.strip()]
    return kinds


class Emulated:
    """The kernels on the CPU, to be called in the place of `cuda_kernels._call`."""

    def __init__(self, folder: Path, wrong: tuple[str, str] | None = None) -> None:
        """Build in `folder`; `wrong` puts its second text in the place of its first, which the source has once."""
        texts = {path.name: path.read_text() for path in (cuda_kernels.SOURCE, *cuda_kernels.HEADERS)}
        if wrong is not None:
            assert sum(text.count(wrong[0]) for text in texts.values()) == 1
            texts = {name: text.replace(*wrong) for name, text in texts.items()}
        for name, text in texts.items():
            for pattern, becomes in FOR_CPU.items():
                text = re.sub(pattern, becomes, text, flags=re.DOTALL)
            (folder / name).write_text(text)
        # Some systems' g++ has jumps checked, which then refuse to lead from one fiber's stack to another's.
        flags = ["-std=c++17", "-O1", "-U_FORTIFY_SOURCE", "-shared", "-fPIC", "-w", f"-I{HERE}", "-x", "c++"]
        subprocess.run(["g++", *flags, "-o", folder / "kernels.so", folder / cuda_kernels.SOURCE.name], check=True)
        self.functions = ctypes.CDLL(str(folder / "kernels.so"))

    def __call__(self, function: str, *arguments: Tensor | int | float) -> None:
        called = getattr(self.functions, function)
        called.argtypes = list(parameters(function).values())
        error = called(*(a.data_ptr() if isinstance(a, Tensor) else a for a in arguments), None)
        if error:
            raise cuda_kernels.KernelError(f"{function}: CUDA error {error}")
