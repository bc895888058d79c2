"""Builds and binds cuda_kernels.cu: the 3×3 convolutions of stride 1 in CUDA C++, where nvcc and a GPU are at hand."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import torch
from torch import Tensor

from experiments.cli import RunError

SOURCE = Path(__file__).with_name("cuda_kernels.cu")
HEADERS = [SOURCE.with_name(f"cuda_{part}.cuh") for part in ("backward", "forward", "tiles")]
POINTER, FLOAT, INT = ctypes.c_void_p, ctypes.c_float, ctypes.c_int


class KernelError(RunError):
    """The kernels did not build or did not start; the message holds the compiler's or driver's words."""


def nvcc() -> str | None:
    """The CUDA compiler, from the path or CUDA's usual folder; None without one."""
    return shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")


@functools.cache
def library() -> ctypes.CDLL:
    """The compiled kernels for this GPU, built once for each version of the source. Raises KernelError."""
    compiler = nvcc()
    if compiler is None:
        raise KernelError("nvcc, CUDA's compiler, is not installed")
    architecture = "sm_{}{}".format(*torch.cuda.get_device_capability())
    sources = b"".join(path.read_bytes() for path in (SOURCE, *HEADERS))
    name = hashlib.sha256(sources + architecture.encode()).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "dlperf"
    cache.mkdir(parents=True, exist_ok=True)
    built = cache / f"kernels-{name}.so"
    if not built.exists():
        fresh = built.with_suffix(f".{os.getpid()}.tmp")
        flags = ["-O3", "-std=c++17", f"-arch={architecture}", "--shared", "-Xcompiler", "-fPIC"]
        done = subprocess.run([compiler, *flags, "-o", fresh, SOURCE], capture_output=True, text=True)
        if done.returncode:
            raise KernelError(f"nvcc could not build {SOURCE.name}: {done.stderr.strip()}")
        fresh.replace(built)
    made = ctypes.CDLL(str(built))
    made.conv_forward.argtypes = [INT] * 3 + [POINTER] * 13 + [FLOAT] + [POINTER] * 2 + [INT] * 3 + [POINTER]
    made.conv_backward.argtypes = [INT] * 2 + [POINTER] * 24 + [FLOAT] + [INT] * 3 + [POINTER]
    return made


def _call(function: str, *arguments: Tensor | int | float) -> None:
    values = [a.data_ptr() if isinstance(a, Tensor) else a for a in arguments]
    error = getattr(library(), function)(*values, torch.cuda.current_stream().cuda_stream)
    if error:
        raise KernelError(f"{function}: CUDA error {error}")


def forward(
    channels: int, kind: int, sums: bool, x: Tensor, w: Tensor, y: Tensor, x_norm: tuple[Tensor, ...], s: Tensor,
    s_norm: tuple[Tensor, ...], joined: Tensor, count: float, y_sum: Tensor, y_square: Tensor, images: int,
    processors: int, early: bool,
) -> None:  # fmt: skip
    """y = conv(x), x first treated as `kind` says; norms are (sum, square, γ, β), and w is packed."""
    _call(
        "conv_forward", channels, kind, int(sums), x, w, y, *x_norm, s, *s_norm, joined, count, y_sum, y_square, images,
        processors, int(early),
    )  # fmt: skip


def backward(
    channels: int, end: int, tensors: tuple[Tensor, ...], count: float, images: int, processors: int, early: bool
) -> None:
    """The gradients of a convolution's input and weights; `tensors` in the order of cuda_kernels.cu."""
    _call("conv_backward", channels, end, *tensors, count, images, processors, int(early))
