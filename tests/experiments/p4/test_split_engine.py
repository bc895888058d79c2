"""Learners that share a batch, in processes of their own, against one that has it all."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("triton", reason="Triton has wheels for Linux on x86_64 only")

from experiments.p4 import augment
from experiments.p4.fused_engine import FusedEngine
from experiments.p4.plain_engine import PlainEngine
from experiments.p4.resnet import seeded
from experiments.store.files import ROOT

pytestmark = pytest.mark.usefixtures("one_thread")

# Runs a learner, and keeps its weights after some steps.
LEARNER = """
import sys
import torch, torch.distributed as dist
from experiments.p4 import split_engine
from tests.experiments.p4.test_split_engine import np, trained
kind, folder, rank, side, steps = *sys.argv[1:3], *map(int, sys.argv[3:])
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
np.savez(f"{folder}/{rank}.npz", *trained(getattr(split_engine, kind), side, steps, batch=4))
"""
SAMPLES, INSTANCES = 2, 4
SIDE, LEAST_SIDE = 8, 4  # pixels; with 4, an image's last stage has one


def settings(batch: int) -> dict[str, Any]:
    return {
        "batch": batch, "steps": 2, "hole": 4, "mean": torch.tensor([0.5, 0.4, 0.3]),
        "std": torch.tensor([0.2, 0.2, 0.3]), "dtype": torch.float32, "weight_decay": 1e-2, "momentum": 0.9,
    }  # fmt: skip


def data(side: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    images = torch.randint(0, 256, (7, side, side, 3), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, 10, (7,), generator=generator)
    return [images[:4], labels[:4], images[4:], labels[4:]]


def draws(side: int) -> torch.Tensor:
    return augment.draw_epoch(4, side, SAMPLES, INSTANCES, "cutout", seed=4, device="cpu")


def weights(engine: Any) -> list[np.ndarray]:
    if isinstance(engine, PlainEngine):
        return [p.detach().numpy() for p in engine.model.parameters()]
    return [engine.parameters.numpy(), engine.running.numpy()]


def trained(kind: Any, side: int, steps: int = 2, batch: int = SAMPLES * INSTANCES) -> list[np.ndarray]:
    """Trained weights; then, for fused engines, running statistics."""
    engine = kind(seeded(14, 0), *data(side), **settings(batch))
    engine.start_epoch(draws(side), 0.1)
    for _ in range(steps):
        engine.step()
    return weights(engine)


def together(kind: str, folder: Path, side: int = SIDE, steps: int = 2) -> list[list[np.ndarray]]:
    """What two learners end with."""
    environment = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": str(ROOT)}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", LEARNER, kind, *map(str, (folder, rank, side, steps))],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for process in started:
        said = process.communicate(timeout=300)[1]
        assert process.returncode == 0, said
    return [list(np.load(folder / f"{rank}.npz").values()) for rank in range(2)]


def far(got: np.ndarray, want: np.ndarray) -> float:
    return float(np.linalg.norm(got - want) / np.linalg.norm(want))


@pytest.mark.slow
def test_synchronised_learners_train_as_one(tmp_path: Path) -> None:
    first, second = together("SynchronisedSplit", tmp_path)
    alone = trained(FusedEngine, SIDE)
    assert all(map(np.array_equal, first, second))
    assert far(first[0], alone[0]) < 1e-5 and far(first[1][0], alone[1][0]) < 1e-4
    # The last stage has 4 images of 2×2 pixels in a learner, so n/(n−1) is up to 16/15 instead of 32/31.
    assert 1e-4 < far(first[1][1], alone[1][1]) < 1 / 15


def test_local_learners_have_equal_weights_but_own_statistics(tmp_path: Path) -> None:
    """After one step; the slow tests take two."""
    (first, own), (second, other) = together("FusedSplit", tmp_path, LEAST_SIDE, steps=1)
    alone, _ = trained(FusedEngine, LEAST_SIDE, steps=1)
    assert np.array_equal(first, second) and not np.array_equal(own, other)
    # They start as one does and move as far, but elsewhere: BatchNorm sees half of the batch.
    start = FusedEngine(seeded(14, 0), *data(LEAST_SIDE), **settings(8)).parameters.numpy()
    assert 1e-3 < np.linalg.norm(first - alone) / np.linalg.norm(alone - start) < 1


@pytest.mark.slow
def test_plain_and_fused_learners_agree(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    (tmp_path / "fused").mkdir()
    plain, other = together("PlainSplit", tmp_path / "plain")
    for mine, same in zip(plain, other, strict=True):
        assert np.array_equal(mine, same)
    fused, twin = together("FusedSplit", tmp_path / "fused")
    assert np.array_equal(fused[0], twin[0])
    # The engines pack weights in different orders: their sizes are the same.
    norms = [np.sqrt(sum(float((w.astype(float) ** 2).sum()) for w in found)) for found in (plain, fused[:1])]
    assert norms[0] == pytest.approx(norms[1], rel=1e-5)
