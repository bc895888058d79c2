"""Every kernel of cuda_kernels.cu against its Triton twin, and both against PyTorch's autograd in double precision.

On a machine without a GPU, the same checks hold Triton's kernels in its interpreter and the CUDA kernels in an emulator
of blocks and warps. What only a GPU shows is whether nvcc builds them, and races within a warp.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton", reason="Triton has wheels for Linux on x86_64 only")

from experiments.p4 import cuda_kernels
from experiments.p4.activations import (
    BLOCK_END,
    BLOCK_END_TWO,
    INNER,
    JOINED,
    JOINED_ALONE,
    JOINED_TWO,
    NORMALISED,
    RAW,
    WEIGHTS_ONLY,
)
from tests.cuda_emulator.library import Emulated, parameters
from tests.p4_kernels import Bench, assert_alike, backward, bench, by_autograd, forward, forward_in_double
from tests.p4_runs import needs_gpu

pytestmark = pytest.mark.usefixtures("one_thread")

SIDES = {16: 32, 32: 16, 64: 8}  # of an image in pixels, by channels
INPUTS = (RAW, NORMALISED, JOINED_ALONE, JOINED, JOINED_TWO)
FORWARD = [(channels, kind, train) for channels in SIDES for kind in INPUTS for train in (False, True)]
BACKWARD = [(channels, end) for channels in SIDES for end in (WEIGHTS_ONLY, INNER, BLOCK_END, BLOCK_END_TWO)]
BATCHES = (64, 20 * 64)  # the second has more tiles than a GPU has blocks: each block takes several

# Differences are norms, as shares of the reference's. Rounding to bf16, of 8 significant bits, moves a number by at
# most 2^-9 of itself. A result has been rounded at most four times on its way: x, y, the output's gradient, and itself.
# Errors of fp32 sums are nothing beside that, and sums over pixels hold rounded numbers whose errors average out.
BF16 = 4 * 2**-9
# Twins round the same numbers. They differ where fp32 sums in another order fall on the other side of a boundary
# between two bf16 numbers, a whole 2^-8 apart, which one number in a hundred does at most: 2^-8 · √0.01 = 2^-8 / 10.
TWINS = 2**-8 / 10
FP32 = 1e-5  # the interpreter's: 2^-24, grown by sums of hundreds of products that partly cancel


# ---- on a GPU ------------------------------------------------------------------------------------------------------


def twins(on: Bench, kernels: Callable[[], dict[str, Tensor]]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The same by the CUDA kernels and by Triton's."""
    assert on.passes.use_cuda and on.passes._has_cuda_twin(on.conv)
    cuda = kernels()
    on.passes.use_cuda = False
    return cuda, kernels()


@pytest.mark.gpu
@needs_gpu
@pytest.mark.skipif(cuda_kernels.nvcc() is None, reason="nvcc is not installed")
@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize(("channels", "kind", "train"), FORWARD)
def test_forward_on_a_gpu(channels: int, kind: int, train: bool, batch: int) -> None:
    on = bench(channels, 32, batch, "cuda", torch.bfloat16)
    want = forward_in_double(on, kind, train)
    cuda, by_triton = twins(on, lambda: forward(on, kind, train))
    assert_alike(cuda, want, BF16)
    assert_alike(by_triton, want, BF16)
    assert_alike(cuda, by_triton, TWINS)


@pytest.mark.gpu
@needs_gpu
@pytest.mark.skipif(cuda_kernels.nvcc() is None, reason="nvcc is not installed")
@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize(("channels", "end"), BACKWARD)
def test_backward_on_a_gpu(channels: int, end: int, batch: int) -> None:
    on = bench(channels, 32, batch, "cuda", torch.bfloat16)
    given, want = by_autograd(on, end)
    cuda, by_triton = twins(on, lambda: backward(on, end, given))
    assert_alike(cuda, want, BF16)
    assert_alike(by_triton, want, BF16)
    assert_alike(cuda, by_triton, TWINS)


# ---- anywhere ------------------------------------------------------------------------------------------------------


def test_shapes_are_those_of_the_engines_convolutions() -> None:
    passes = bench(16, 32, 1).passes
    passes.use_cuda = True
    with_twin = [conv for conv in passes.layers.all() if passes._has_cuda_twin(conv)]
    assert {conv.c_in: conv.size for conv in with_twin} == SIDES
    assert {(conv.c_out, conv.kernel, conv.stride) for conv in with_twin} == {(c, 3, 1) for c in SIDES}
    for channels, side in SIDES.items():
        on = bench(channels, 32, 1)
        assert {(c.c_in, c.c_out, c.size) for c in (on.conv, on.before, on.side)} == {(channels, channels, side)}
        assert len({on.conv, on.before, on.side}) == 3


@pytest.mark.parametrize(("channels", "kind", "train"), FORWARD)
def test_tritons_forward_in_its_interpreter(channels: int, kind: int, train: bool) -> None:
    on = bench(channels, 8, 3)
    assert_alike(forward(on, kind, train), forward_in_double(on, kind, train), FP32)


@pytest.mark.parametrize(("channels", "end"), BACKWARD)
def test_tritons_backward_in_its_interpreter(channels: int, end: int) -> None:
    on = bench(channels, 8, 3)
    given, want = by_autograd(on, end)
    assert_alike(backward(on, end, given), want, FP32)


# ---- in the emulator -----------------------------------------------------------------------------------------------

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Emulated:
    return Emulated(tmp_path_factory.mktemp("kernels"))


@pytest.fixture
def emulated(built: Emulated, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the place of launches, and so behind everything else that leads to one."""
    monkeypatch.setattr(cuda_kernels, "_call", built)


def with_twin(channels: int) -> Bench:
    """Eight tiles, of which a GPU of one multiprocessor has five or fewer at work."""
    on = bench(channels, 32, channels // 8, dtype=torch.bfloat16)
    on.passes.use_cuda = True
    assert on.passes._has_cuda_twin(on.conv) and on.passes.batch * on.conv.size // 8 == 8
    return on


@needs_compiler
@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize(("channels", "kind", "train"), FORWARD)
def test_forward_in_the_emulator(channels: int, kind: int, train: bool) -> None:
    on = with_twin(channels)
    assert_alike(forward(on, kind, train), forward_in_double(on, kind, train), BF16)


@needs_compiler
@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize(("channels", "end"), BACKWARD)
def test_backward_in_the_emulator(channels: int, end: int) -> None:
    on = with_twin(channels)
    given, want = by_autograd(on, end)
    assert_alike(backward(on, end, given), want, BF16)


# Barriers, and waits for copies, each with the lines that say which one it is.
FORWARD_HEAD = "    __syncthreads();  // the coefficients are there, and the last tile is no longer needed\n"
BACKWARD_HEAD = (
    "    __syncthreads();  // the tile and the coefficients are there, and the last tile is no longer needed\n"
)
END = "    __syncthreads();  // the last tile is no longer needed\n"
BARRIERS = (
    "    finish_copies();\n" + FORWARD_HEAD,
    FORWARD_HEAD,
    "    __syncthreads();\n    if (t + gridDim.x < g.tiles) fetch(t + gridDim.x);",
    "  if (!g.sums) return;\n  constexpr int PARTIAL = 4 / T::COLUMNS * C;\n  float* partial = "
    "reinterpret_cast<float*>(memory);\n  __syncthreads();",
    "  __syncthreads();\n  if (threadIdx.x >= C) return;",
    "    finish_copies();\n" + BACKWARD_HEAD,
    BACKWARD_HEAD,
    "    __syncthreads();\n  };",
    "    let_next_start();\n" + END + "    sum_rows",
    "  __syncthreads();\n  if (SPLIT > 1)",
)


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize("barrier", BARRIERS, ids=range(len(BARRIERS)))
def test_a_missing_barrier_is_outside_the_tolerance(
    barrier: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without = re.sub(r"(__syncthreads|finish_copies)\(\);", ";", barrier, count=1)
    monkeypatch.setattr(cuda_kernels, "_call", Emulated(tmp_path, (barrier, without)))
    on = with_twin(16)
    given, want = by_autograd(on, INNER)
    with pytest.raises((AssertionError, cuda_kernels.KernelError)):  # an error where threads wait for ever
        assert_alike(forward(on, NORMALISED, True), forward_in_double(on, NORMALISED, True), BF16)
        assert_alike(backward(on, INNER, given), want, BF16)


@needs_compiler
@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize("channels", SIDES)
def test_wrong_inputs_are_outside_the_tolerance(channels: int) -> None:
    on = with_twin(channels)
    given, want = by_autograd(on, BLOCK_END_TWO)
    forgotten = (replace(given, gamma=0 * given.gamma), replace(given, beta=0 * given.beta))
    for wrong in (*forgotten, replace(given, add=0 * given.add), replace(given, y=given.y.roll(1, 0))):
        with pytest.raises(AssertionError, match=r"'weight'|'x'"):
            assert_alike(backward(on, BLOCK_END_TWO, wrong), want, BF16)
    side = {name: tensor for name, tensor in want.items() if name.startswith("side")}
    wrong_side = backward(on, BLOCK_END_TWO, replace(given, side=given.side.flip(0)))
    with pytest.raises(AssertionError, match="side gamma"):
        assert_alike({name: wrong_side[name] for name in side}, side, BF16)
    on.passes.packed.copy_(on.passes.packed.flip(0))  # the order of the other direction
    with pytest.raises(AssertionError, match="'x'"):
        assert_alike(backward(on, BLOCK_END_TWO, given), want, BF16)
    with pytest.raises(AssertionError, match="'y'"):
        assert_alike(forward(on, NORMALISED, True), forward_in_double(on, NORMALISED, True), BF16)


def test_a_tile_left_out_is_outside_the_tolerance() -> None:
    want = {"dx": torch.ones(64 * 32**2, 16)}
    missing = {"dx": want["dx"].clone()}
    missing["dx"][-8 * 32 :] = torch.nan  # what is there before a kernel writes
    with pytest.raises(AssertionError, match="'dx': nan"):
        assert_alike(missing, want, BF16)
    most = max(BATCHES[0] * side // 8 for side in SIDES.values())  # tiles, of eight rows
    assert 1 / most > 9 * TWINS  # what a sum over pixels then lacks beside the twin's


# ---- the binding ---------------------------------------------------------------------------------------------------


def test_calls_have_the_sources_parameters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a GPU: the library is empty, and its functions only convert what they are given, as ctypes does."""

    def compiler(command: list[Any], **options: Any) -> SimpleNamespace:
        Path(command[command.index("-o") + 1]).touch()
        return SimpleNamespace(returncode=0)

    called = []

    class Function:
        argtypes: tuple[Any, ...] = ()

        def __call__(self, *values: Any) -> int:
            called.append([kind(value) for kind, value in zip(self.argtypes, values, strict=True)])
            return 0

    functions = SimpleNamespace(conv_forward=Function(), conv_backward=Function())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(cuda_kernels, "nvcc", lambda: "nvcc")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: SimpleNamespace(cuda_stream=7))
    monkeypatch.setattr(cuda_kernels.subprocess, "run", compiler)
    monkeypatch.setattr(cuda_kernels.ctypes, "CDLL", lambda path: functions)
    monkeypatch.setattr(cuda_kernels, "library", cuda_kernels.library.__wrapped__)
    assert cuda_kernels.library() is functions
    for name in ("conv_forward", "conv_backward"):
        assert list(getattr(functions, name).argtypes) == list(parameters(name).values())
    on = with_twin(16)
    forward(on, NORMALISED, True)
    given, _ = by_autograd(on, INNER)
    backward(on, INNER, given)
    assert [arguments[-1].value for arguments in called] == [7, 7]
