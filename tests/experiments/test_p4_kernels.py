"""The table of kernel times: every kernel that the engine launches has its name, and steps are told apart."""

from __future__ import annotations

import itertools
import re
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

pytest.importorskip("triton", reason="Triton has wheels for Linux on x86_64 only")

from derivations import roofline
from experiments import p4_kernels
from experiments.cli import RunError
from experiments.p4 import (
    augment,
    cuda_kernels,
    datasets,
    fused_engine,
    training,
    triton_backward,
    triton_downsample,
    triton_forward,
)
from experiments.p4.resnet import seeded
from experiments.p4.synthetic import synthetic
from experiments.store import parquet
from tests.p4_runs import needs_gpu

BATCH = 2
EXPECTED = {kernel.name: kernel.launches for kernel in roofline.kernels(1, 2, 44)}


def launched(name: str) -> str:
    """A CUDA kernel's name as a profiler shows it."""
    return f"void (anonymous namespace)::{name}(unsigned short const*, float)"


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the kernels that the engine launches from now on; none of them runs."""
    seen: list[str] = []

    class Kernel:
        def __init__(self, name: str) -> None:
            self.name = name

        def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
            return lambda *arguments, **constants: seen.append(self.name)

    for module in (triton_forward, triton_downsample, triton_backward):
        for name, kernel in vars(module).items():
            if hasattr(kernel, "fn") and kernel.fn.__module__ == module.__name__:
                monkeypatch.setattr(module, name, Kernel(kernel.fn.__name__))

    def forward(channels: int, kind: int, *rest: Any) -> None:
        seen.append(launched(f"forward<{channels}, {kind}>"))

    def backward(channels: int, end: int, *rest: Any) -> None:
        seen.append(launched(f"backward<{channels}, {end}>"))

    monkeypatch.setattr(cuda_kernels, "forward", forward)
    monkeypatch.setattr(cuda_kernels, "backward", backward)
    return seen


def engine(depth: int = 44) -> fused_engine.FusedEngine:
    """One with the CUDA twins, which has no need of a GPU as long as nothing runs."""
    data = (torch.zeros(4, 32, 32, 3, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64))
    made = fused_engine.FusedEngine(
        seeded(depth, 0), *data, *data, batch=BATCH, steps=2, hole=16, mean=torch.zeros(3), std=torch.ones(3),
        dtype=torch.bfloat16, weight_decay=0.0, momentum=0.9,
    )  # fmt: skip
    made.use_cuda = True
    return made


@pytest.mark.parametrize("depth", [14, 44])
def test_every_launch_of_a_step_is_in_the_table(depth: int, launches: list[str]) -> None:
    engine(depth)._launch_step()
    names = [p4_kernels.table_name(name) for name in launches]
    assert Counter(names) == {kernel.name: kernel.launches for kernel in roofline.kernels(BATCH, 2, depth)}
    assert names[-1] == p4_kernels.LAST and names.count(p4_kernels.LAST) == 1


def test_every_table_name_is_some_kernels() -> None:
    cuda = [f"forward<{c}, {kind}>" for c in (16, 32, 64) for kind in range(5)]
    cuda += [f"backward<{c}, {end}>" for c in (16, 32, 64) for end in range(4)]
    named = {p4_kernels.table_name(name) for name in [*p4_kernels.TRITON, *map(launched, cuda)]}
    assert named == set(EXPECTED)
    assert p4_kernels.table_name("Memset (Device)") is None
    assert p4_kernels.table_name("void at::native::vectorized_elementwise_kernel<4, float>(int)") is None


@pytest.mark.skipif(cuda_kernels.nvcc() is None, reason="nvcc is not installed")
def test_the_compiled_names_are_the_mappings(tmp_path: Path) -> None:
    made = tmp_path / "kernels.ptx"
    command = [str(cuda_kernels.nvcc()), "-std=c++17", "-arch=sm_90", "-ptx", "-o", str(made), str(cuda_kernels.SOURCE)]
    subprocess.run(command, check=True, capture_output=True)
    mangled = re.findall(r"\.entry (\w+)\(", made.read_text())
    shown = subprocess.run(["c++filt"], input="\n".join(mangled), capture_output=True, text=True, check=True).stdout
    names = Counter(p4_kernels.table_name(name) for name in shown.splitlines())
    assert len(mangled) == 3 * (5 + 4) and names.total() == len(mangled)
    assert set(names) == {name for name in EXPECTED if name not in p4_kernels.TRITON.values()}


def step(seconds: float, missing: int = 0) -> list[p4_kernels.Event]:
    """A step's events, each launch of a kernel with the same seconds; a Memset counts for nothing."""
    example = {name: shown for shown in p4_kernels.TRITON for name in [p4_kernels.TRITON[shown]]}
    for c in (16, 32, 64):
        example[f"conv1, {c} channels"] = launched(f"forward<{c}, 3>")
        example[f"conv2, {c} channels"] = launched(f"forward<{c}, 1>")
        example[f"conv2, {c} channels, backward"] = launched(f"backward<{c}, 1>")
        example[f"conv1, {c} channels, backward"] = launched(f"backward<{c}, 2>")
    example["stem"] = launched("forward<16, 0>")
    example["stem, weight gradient"] = launched("backward<16, 0>")
    events = [(example[name], seconds) for name, count in EXPECTED.items() for _ in range(count)]
    return [("Memset (Device)", 9.0), *events[missing:]]


def test_seconds_are_those_of_whole_steps() -> None:
    steps = p4_kernels.by_step(step(9.0, missing=1) + step(1.0) + step(4.0) + step(2.0), EXPECTED)
    assert [found["join"] for found in steps] == [2.0, 8.0, 4.0]
    assert [sum(found.values()) for found in steps] == [92.0, 4 * 92.0, 2 * 92.0]
    with pytest.raises(RunError, match="saw 2 whole steps, and 3 are needed"):
        p4_kernels.by_step(step(1.0) * 2 + step(1.0)[:-1], EXPECTED)


def test_events_are_kernels_in_order_of_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """The profiler's own way, with a CPU in a GPU's place."""
    monkeypatch.setattr(p4_kernels, "ProfilerActivity", SimpleNamespace(CUDA=torch.profiler.ProfilerActivity.CPU))
    monkeypatch.setattr(p4_kernels, "DeviceType", SimpleNamespace(CUDA=torch.autograd.DeviceType.CPU))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    x = torch.ones(3)
    events = p4_kernels.profile(SimpleNamespace(_launch_step=lambda: x.exp().neg()), steps=2)
    assert [name for name, _ in events] == ["aten::exp", "aten::neg"] * 2
    assert all(0 < seconds < 1 for _, seconds in events)


@pytest.mark.gpu
@needs_gpu
@pytest.mark.skipif(cuda_kernels.nvcc() is None, reason="nvcc is not installed")
def test_on_a_gpu_the_profiler_sees_every_kernel(capsys: pytest.CaptureFixture[str]) -> None:
    lines: list[str] = []
    assert p4_kernels.main(["--data", "synthetic", "--M", "1"], lines.append) == 0, capsys.readouterr().err
    assert len(lines) == 2 + len(EXPECTED) + 1
    assert [line for line in lines if line.startswith("not of the step")] == []


def test_rows_and_table() -> None:
    config = training.Config("synthetic", "cutout", 2, 64, 1, "authors", "bf16", "fused", 44, "cuda", 0)
    steps = [{name: seconds * count for name, count in EXPECTED.items()} for seconds in (1e-6, 4e-6, 2e-6)]
    frame = p4_kernels.rows(config, steps, whole=5e-4, speed=1e12)
    join = frame[frame.kernel == "join"].iloc[0]
    assert (join.seconds, join.seconds_least, join.seconds_most) == pytest.approx((4e-6, 2e-6, 8e-6))
    assert join.launches == 2 and join.bytes == 128 * 2 * 3 * (32 * 32 * 16 + 16 * 16 * 32)
    lines = [re.split(r"\s{2,}", line.strip()) for line in p4_kernels.table(frame)]
    # 18.9 MB in 4 µs are 4.719 TB/s; 2 of 92 launches
    assert ["2", "join", "2", "0.004 (0.002–0.008)", "2.2%", "18.9", "471.9%"] in lines
    assert lines[-1][:5] == ["2", "all, and the step as a graph", "92", "0.184; 0.500", "100.0%"]
    assert len(lines) == len(EXPECTED) + 1


class Profiled(SimpleNamespace):
    """An engine whose steps only count; it must not be asked for more steps than an epoch has."""

    def start_epoch(self, table: torch.Tensor, rate: float) -> None:
        self.left = len(table)

    def step(self) -> None:
        self.left -= 1
        assert self.left >= 0

    def _launch_step(self) -> None:
        self.step()


@pytest.fixture
def with_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with a GPU, as far as the script can tell without one; its profiler sees three whole steps."""
    data = synthetic(seed=0, train=96, test=16)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA none")
    monkeypatch.setattr(cuda_kernels, "nvcc", lambda: "nvcc")
    monkeypatch.setattr(datasets, "load", lambda data_dir, dataset: data)
    monkeypatch.setattr(p4_kernels, "bandwidth", lambda device: 1e12)
    seconds = itertools.count()
    monkeypatch.setattr(p4_kernels, "now", lambda device: float(next(seconds)))
    monkeypatch.setattr("experiments.store.provenance.library_versions", lambda given: {})
    monkeypatch.setattr(training, "make_engine", lambda config, data: Profiled())
    draws = torch.zeros(24, BATCH, 6, dtype=torch.int32)
    monkeypatch.setattr(augment, "draw_epoch", lambda *arguments: draws)

    def profile(engine: Any, steps: int) -> list[p4_kernels.Event]:
        for _ in range(steps):
            engine._launch_step()
        return step(1e-6) * steps

    monkeypatch.setattr(p4_kernels, "profile", profile)


@pytest.mark.usefixtures("with_gpu")
def test_rows_are_stored_with_their_units(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DLPERF_COMMIT", "0" * 40)
    lines: list[str] = []
    arguments = ["--data", "synthetic", "--batch-size", "4", "--M", "1", "2", "--results", str(tmp_path), "--write"]
    assert p4_kernels.main(arguments, lines.append) == 0
    stored = parquet.read("p4_kernels", tmp_path)
    assert stored["M"].tolist() == [1] * len(EXPECTED) + [2] * len(EXPECTED)
    assert set(stored["run_id"].str.slice(0, 13)) == {"synthetic-M01", "synthetic-M02"}
    assert set(stored["step_seconds"]) == {1 / p4_kernels.REPLAYS}
    assert "not of the step: Memset (Device)" in lines
    assert {f"experiments/p4/{name}" for name in ("fused_passes.py", "cuda_kernels.cu", "cuda_tiles.cuh")} < set(
        parquet.runs(tmp_path)[0].provenance.sources
    )


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["--steps", "2"], "--steps must be at least 3, not 2"),
        (["--steps", "25"], "an epoch has 24 steps of --batch-size 4"),
        (["--M", "1", "1"], "--M needs different numbers"),
        (["--M", "0"], "--M must be at least 1"),
    ],
)
@pytest.mark.usefixtures("with_gpu")
def test_bad_input_gets_one_line(wrong: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--data", "synthetic", "--batch-size", "4", *wrong]
    assert p4_kernels.main(arguments, lambda line: None) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_without_a_gpu_or_nvcc_it_refuses(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert p4_kernels.main(["--data", "synthetic"]) == 2
    assert capsys.readouterr().err == (
        "p4_kernels: PyTorch sees no GPU here, and the times of its kernels are what this measures\n"
    )
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(cuda_kernels, "nvcc", lambda: None)
    assert p4_kernels.main(["--data", "synthetic"]) == 2
    assert "install nvcc, CUDA's compiler" in capsys.readouterr().err
