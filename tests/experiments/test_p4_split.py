"""A batch over several learners, as a user runs it on CPUs; the engines' own tests are in test_split_engine.py."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("triton", reason="Triton has wheels for Linux on x86_64 only")

from experiments import p4_split
from experiments.machine import allocation
from experiments.p4.resnet import seeded
from experiments.store import parquet
from experiments.store.files import ROOT
from experiments.store.provenance import run_id
from tests.processes import started_for

SCRIPT = ROOT / "experiments" / "p4_split.py"
TINY = ["--data", "synthetic", "--device", "cpu", "--depth", "14", "--M", "2", "--batch-size", "2500", "--epochs", "1"]


def command(results: Path, *arguments: str) -> list[str]:
    return [sys.executable, str(SCRIPT), "--results", str(results), *TINY, *arguments]


@pytest.mark.slow
def test_two_learners_write_the_rows_of_one_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(allocation.TOKEN, "one go")
    done = subprocess.run(command(tmp_path), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = parquet.read("p4_split", tmp_path)
    assert len(rows) == 1
    row = rows.iloc[0]
    assert (row.learners, row.batch_norm, row.M, row.epoch, row.steps) == (2, "local", 2, 1, 2)
    assert row.images == 2 * 2 * 2500 and row.images_per_second == pytest.approx(row.images / row.seconds)
    assert row.gradient_bytes == 4 * sum(p.numel() for p in seeded(14, 0).parameters())
    assert 0 < row.train_loss < 5 and 0 <= row.val_error <= 1 and np.isfinite(row.val_loss)
    origin = parquet.runs(tmp_path)[0].provenance
    assert origin.device_count == 2 and origin.config["learners"] == 2 and origin.config["M"] == 2
    names = ["p4_split", "machine/nvidia", "p4/split_engine", "p4/plain_engine", "p4/training", "p4/augment"]
    names += ["p4/synthetic", "p4/resnet"]
    assert {f"experiments/{name}.py" for name in names} <= set(origin.sources)
    again = subprocess.run(command(tmp_path, "--skip-finished"), capture_output=True, text=True)
    assert again.returncode == 0 and "finished before, skipped" in again.stderr and not again.stdout


def learners_of(results: Path) -> list[int]:
    """Process ids by rank."""
    found = {int(words[words.index(b"--rank") + 1]): pid for pid, words, _ in started_for(results, "--rank")}
    return [found[rank] for rank in sorted(found)]


@pytest.mark.slow
def test_a_learner_that_dies_ends_the_job(tmp_path: Path) -> None:
    job = subprocess.Popen(command(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while len(found := learners_of(tmp_path)) < 2:
        assert job.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    time.sleep(1)
    os.kill(found[1], signal.SIGKILL)
    _, said = job.communicate(timeout=60)
    assert job.returncode == 1 and "p4_split: learner 1 was killed by signal 9; all others were stopped" in said
    assert not learners_of(tmp_path) and not list(tmp_path.rglob("*.parquet"))


def test_more_learners_than_gpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("experiments.machine.nvidia.gpus", lambda: ["0"])
    assert p4_split.main(["--results", str(tmp_path), "--device", "cuda", "--learners", "2"]) == 2
    assert "2 learners need as many GPUs, this machine has 1" in capsys.readouterr().err


def test_settings_have_results_of_their_own() -> None:
    names = set()
    for more in ("", "--repeat 2", "--seed 1", "--learners 1", "--M 4", "--epochs 2", "--precision bf16"):
        c = p4_split.configure(p4_split.arguments().parse_args([*TINY, *more.split()]))
        names.add(run_id(c.slug, c.flat()))
    assert len(names) == 7
