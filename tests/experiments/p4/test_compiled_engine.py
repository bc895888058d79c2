"""The compiled engine against the plain one, whose steps are those of its test."""

from __future__ import annotations

import contextlib
import shutil
import unittest.mock
from typing import Any

import pytest
import torch

from experiments.p4 import augment, compiled_engine
from experiments.p4.compiled_engine import CompiledEngine
from experiments.p4.plain_engine import PlainEngine
from experiments.p4.resnet import seeded
from tests.p4_runs import needs_gpu

pytestmark = pytest.mark.usefixtures("one_thread")

SIZE, SAMPLES, BATCH, HOLE, STEPS = 8, 12, 8, 4, 3  # a batch is two instances of four samples
RATE = 0.05


@pytest.fixture
def without_inductor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Traced and differentiated as on a GPU, then run by PyTorch's own kernels: C++ takes minutes to compile."""
    monkeypatch.setattr(compiled_engine, "COMPILER", {"backend": "aot_eager"})


def make(kind: type[PlainEngine], device: str = "cpu", dtype: torch.dtype = torch.float32, **other: Any) -> PlainEngine:
    size, batch = other.get("size", SIZE), other.get("batch", BATCH)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (SAMPLES + 7, size, size, 3), dtype=torch.uint8, generator=generator).to(device)
    labels = torch.randint(0, 10, (SAMPLES + 7,), generator=generator).to(device)
    data = (images[:SAMPLES], labels[:SAMPLES], images[SAMPLES:], labels[SAMPLES:])
    mean, std = torch.tensor([0.5, 0.4, 0.3], device=device), torch.tensor([0.2, 0.25, 0.3], device=device)
    return kind(
        seeded(14, 0), *data, batch=batch, steps=STEPS, hole=HOLE, mean=mean, std=std, dtype=dtype, weight_decay=1e-2,
        momentum=0.9,
    )  # fmt: skip


def table(seed: int = 1, size: int = SIZE, device: str = "cpu") -> torch.Tensor:
    return augment.draw_epoch(SAMPLES, size, BATCH // 2, 2, "cutout", seed=seed, device=device)


def train(engine: PlainEngine, draws: torch.Tensor, rate: float, steps: int = STEPS) -> None:
    engine.start_epoch(draws, rate)
    for _ in range(steps):
        engine.step()


def relative(got: torch.Tensor, want: torch.Tensor) -> float:
    return float((got.double() - want.double()).norm() / want.double().norm().clamp(min=1e-12))


def assert_alike(engine: PlainEngine, plain: PlainEngine, tolerance: float) -> None:
    """Metrics, weights, momenta and running statistics, each within a share of its norm."""
    assert engine.train_metrics() == pytest.approx(plain.train_metrics(), rel=tolerance)
    assert engine.evaluate() == pytest.approx(plain.evaluate(), rel=tolerance)
    state = engine.state()
    assert state.keys() == plain.state().keys()
    apart = {name: relative(state[name], tensor) for name, tensor in plain.state().items()}
    assert {name: value for name, value in apart.items() if value > tolerance} == {}


@pytest.mark.usefixtures("without_inductor")
def test_steps_are_the_plain_engines_also_at_another_rate_and_after_a_checkpoint() -> None:
    plain, engine = make(PlainEngine), make(CompiledEngine)
    for each in (plain, engine):
        train(each, table(), RATE, steps=1)
    # One step from no momentum: momenta are the gradients and the decay.
    assert_alike(engine, plain, 1e-5)
    for each in (plain, engine):
        each.step()
    assert_alike(engine, plain, 1e-5)
    resumed = make(CompiledEngine)
    resumed.load_state({name: tensor.clone() for name, tensor in engine.state().items()})
    for each in (plain, engine, resumed):
        train(each, table(seed=2), RATE / 10)
    assert_alike(engine, plain, 1e-5)
    assert all(torch.equal(engine.state()[name], tensor) for name, tensor in resumed.state().items())


@pytest.mark.usefixtures("without_inductor")
def test_metrics_and_rate_are_an_epochs_own() -> None:
    plain, engine = make(PlainEngine), make(CompiledEngine)
    for each in (plain, engine):
        train(each, table(), RATE, steps=1)
    before = {name: p.detach().clone() for name, p in engine.model.named_parameters()}
    for each in (plain, engine):
        train(each, table(seed=3), 0.0, steps=2)
    assert all(torch.equal(before[name], p) for name, p in engine.model.named_parameters())  # a rate of 0
    assert engine.train_metrics() == pytest.approx(plain.train_metrics(), rel=1e-5)


@pytest.mark.usefixtures("without_inductor")
def test_bf16_rounds_as_the_plain_engine_does() -> None:
    plain, engine = make(PlainEngine, dtype=torch.bfloat16), make(CompiledEngine, dtype=torch.bfloat16)
    exact = make(PlainEngine)
    for each in (plain, engine, exact):
        train(each, table(), RATE, steps=1)
    assert all(not t.is_floating_point() or t.dtype == torch.float32 for t in engine.state().values())
    assert engine.train_metrics()[0] == pytest.approx(plain.train_metrics()[0], rel=1e-3)
    assert engine.train_metrics()[0] != exact.train_metrics()[0]


@pytest.mark.usefixtures("without_inductor")
def test_the_state_of_another_network_is_refused() -> None:
    engine = make(CompiledEngine)
    state = engine.state()
    del state["momentum.fc.bias"]
    with pytest.raises(ValueError, match=r"'momentum\.fc\.bias' does not fit"):
        engine.load_state(state)


class Recorded:
    """A CUDA graph's stand-in without a GPU: a replay does what was recorded, here by hand."""

    replays = 0

    def replay(self) -> None:
        self.replays += 1


@pytest.mark.usefixtures("without_inductor")
def test_a_capture_leaves_no_trace_and_steps_are_replays(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("Stream", "current_stream", "synchronize"):
        monkeypatch.setattr(torch.cuda, name, lambda: unittest.mock.MagicMock())
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Recorded)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "graph", lambda graph, stream: contextlib.nullcontext())
    fresh, engine = make(PlainEngine), make(CompiledEngine)
    assert isinstance(engine, CompiledEngine)
    engine.rate.fill_(RATE)  # so that the warm-up changes every weight
    engine._capture()
    assert all(torch.equal(engine.state()[name], tensor) for name, tensor in fresh.state().items())
    assert not engine.metrics.any() and engine.step_count.item() == 0
    assert all(p.grad is None for p in engine.model.parameters())
    train(engine, table(), RATE, steps=2)
    assert isinstance(engine.graph, Recorded) and engine.graph.replays == 2
    assert all(torch.equal(engine.state()[name], tensor) for name, tensor in fresh.state().items())


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs: apt-get install g++")
def test_the_compilers_own_kernels_give_the_plain_engines_steps() -> None:
    plain, engine = make(PlainEngine), make(CompiledEngine)
    for each in (plain, engine):
        train(each, table(), RATE, steps=2)
    assert_alike(engine, plain, 1e-4)


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-3), (torch.bfloat16, 1e-1)])
def test_a_replay_is_the_plain_engines_step(
    dtype: torch.dtype, tolerance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    plain = make(PlainEngine, "cuda", dtype, size=32)
    engine = make(CompiledEngine, "cuda", dtype, size=32)
    assert isinstance(engine, CompiledEngine) and engine.graph is not None
    assert engine.step_count.item() == 0 and not engine.metrics.any()
    for name, tensor in plain.state().items():  # the capture left no trace
        assert torch.equal(engine.state()[name], tensor), name
    for rate, seed in ((RATE, 1), (RATE / 10, 2)):
        for each in (plain, engine):
            train(each, table(seed, size=32, device="cuda"), rate, steps=2)
        assert engine.step_count.item() == 2
        assert engine.train_metrics()[0] == pytest.approx(plain.train_metrics()[0], rel=tolerance)
    for name, p in plain.model.named_parameters():
        if name.endswith("conv1.weight"):
            assert relative(dict(engine.model.named_parameters())[name].detach(), p.detach()) < tolerance, name
