"""experiments/p4_cutout.py: what a run writes, and one clear line for whatever goes wrong."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
import tempfile
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from experiments import p4_cutout
from experiments.p4 import cuda_kernels, datasets, plain_engine, training
from experiments.p4.cifar10_archives import HOW_TO_GET_IT
from experiments.store import parquet
from tests.p4_runs import SMALL, STEPS, checkpoint, command, complaint, files, no_space, numbers

pytestmark = pytest.mark.usefixtures("one_thread", "small")

SCRIPT = Path(p4_cutout.__file__)


# ---- a run ---------------------------------------------------------------------------------------------------------


def test_a_run_writes_tidy_rows_and_its_log(whole: Path) -> None:
    frame = parquet.read("p4_cutout", whole / "results")
    assert frame.epoch.tolist() == [1, 2, 3, 4]
    assert (frame.dataset == "synthetic").all()
    assert (frame.steps == STEPS).all() and (frame.images == STEPS * 16 * 2).all()
    np.testing.assert_allclose(frame.wall_seconds, (frame.train_seconds + frame.val_seconds).cumsum())
    (written,) = (whole / "results" / "p4_cutout").glob("*.parquet")
    assert written.name.startswith("synthetic-cutout-M02-e4-authors-fp32-cpu-s0-")
    log = written.with_suffix(".log").read_text().splitlines()
    assert [line[:9] for line in log[1:]] == [f"epoch{epoch:4d}" for epoch in (1, 2, 3, 4)]
    assert f"{written.stem} on " in log[0]
    assert not list((whole / "checkpoints").glob("*"))


def test_training_learns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = dataclasses.replace(SMALL, train_images=SMALL.train_images[:32], train_labels=SMALL.train_labels[:32])
    monkeypatch.setattr(datasets, "load", lambda data_dir, dataset: data)
    assert p4_cutout.main(command(tmp_path, "--augment", "none", epochs=25)) == 0
    frame = numbers(tmp_path)
    assert frame.train_loss.tail(5).mean() < 0.5 * frame.train_loss.iloc[0]  # it gets to know 32 images by heart
    assert frame.train_error.tail(5).mean() < 0.5 * frame.train_error.iloc[0]


def test_the_seed_makes_the_numbers(whole: Path, tmp_path: Path) -> None:
    assert p4_cutout.main(command(tmp_path, "--M", "2", "--seed", "1", epochs=1)) == 0
    assert numbers(tmp_path).train_loss[0] != numbers(whole).train_loss[0]


def test_a_run_without_resume_starts_afresh_and_replaces_the_earlier_one(tmp_path: Path) -> None:
    path = checkpoint(tmp_path, "--epochs", "2")
    path.write_bytes(b"of no use")
    for _ in range(2):
        assert p4_cutout.main(command(tmp_path, epochs=2)) == 0
        assert numbers(tmp_path).epoch.tolist() == [1, 2]


# ---- what can go wrong ---------------------------------------------------------------------------------------------


def test_the_greatest_seed_works(tmp_path: Path) -> None:
    assert p4_cutout.main(command(tmp_path, "--seed", str(2**63 - 1), epochs=1)) == 0
    assert set(parquet.read("p4_cutout", tmp_path / "results").seed) == {2**63 - 1}


@pytest.mark.parametrize(
    ("images", "advice"),
    [
        (3 * 16, "--M 2 does"),
        (4 * 16, "--M 4 does"),
        (5 * 16, "--M 4 does"),
        (15, "no smaller one does either; use a smaller --batch-size"),
    ],
)
def test_too_little_gpu_memory_says_which_m_fits(
    images: int, advice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A GPU that takes a number of images; also, that what failed is freed before the next try."""
    alive: weakref.WeakSet[Any] = weakref.WeakSet()
    step = plain_engine.PlainEngine.step

    def limited(engine: Any) -> None:
        alive.add(engine)
        assert len(alive) == 1
        if engine.table.shape[1] > images:
            raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 20.00 GiB")
        step(engine)

    monkeypatch.setattr(plain_engine.PlainEngine, "step", limited)
    assert p4_cutout.main(command(tmp_path, "--M", "8")) == 2
    assert complaint(capsys) == f"--M 8 does not fit this GPU's memory, {advice}"
    assert not files(tmp_path)


def test_too_little_memory_gets_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(plain_engine.PlainEngine, "step", lambda engine: torch.empty(2**50))  # PyTorch's own refusal
    assert p4_cutout.main(command(tmp_path, "--M", "2")) == 2
    assert complaint(capsys) == "--M 2 does not fit this machine's memory; use a smaller --M"


def test_other_failures_are_not_taken_for_too_little_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain_engine.PlainEngine, "step", lambda engine: torch.ones(2) @ torch.ones(3))
    with pytest.raises(RuntimeError, match="inconsistent tensor size"):
        p4_cutout.main(command(tmp_path))


def test_kernels_that_do_not_build_get_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: Any) -> None:
        raise cuda_kernels.KernelError("nvcc could not build cuda_kernels.cu: line 3: error\n1 error")

    monkeypatch.setattr(p4_cutout, "make_engine", broken)
    assert p4_cutout.main(command(tmp_path)) == 1
    assert complaint(capsys) == "nvcc could not build cuda_kernels.cu: line 3: error 1 error"


def test_a_missing_triton_gets_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "experiments.p4.fused_engine", raising=False)
    monkeypatch.setitem(sys.modules, "triton", None)  # what Python takes for a module that is not there
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert p4_cutout.main([*command(tmp_path), "--device", "cuda"]) == 2
    assert complaint(capsys) == "--engine fused needs triton, which is not installed; use --engine plain"


def test_the_script_needs_no_installation_and_says_in_one_line_how_to_get_missing_data(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "DLPERF_DATA"}}
    run = [sys.executable, str(SCRIPT), "--device", "cpu", "--data-dir", "nowhere", "--results", "results"]
    done = subprocess.run(run, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == f"p4_cutout: no CIFAR-10 data: nowhere does not exist; {HOW_TO_GET_IT}\n"
    assert not files(tmp_path)


def test_a_commit_that_cannot_be_told_is_refused_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DLPERF_COMMIT", "yesterday")
    assert p4_cutout.main(command(tmp_path)) == 2
    assert "DLPERF_COMMIT must be a commit" in complaint(capsys)
    assert not files(tmp_path)


def test_checkpoints_follow_the_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a checkout that can only be read will do."""
    seen: list[Path] = []

    def train(c: object, data: object, progress: object, state: object, path: Path, deadline: float) -> bool:
        seen.append(path)
        return False

    monkeypatch.setattr(p4_cutout, "train", train)
    smoke = [
        "--data",
        "synthetic",
        "--epochs",
        "2",
        "--depth",
        "14",
        "--batch-size",
        "16",
        "--device",
        "cpu",
        "--results",
    ]
    assert p4_cutout.main([*smoke, str(tmp_path / "try")]) == 0
    assert [path.parent for path in seen] == [tmp_path / "try" / "checkpoints"]


@pytest.mark.parametrize("folder", ["results", "checkpoints"])
@pytest.mark.parametrize("below", ["", "folder"])
def test_a_folder_that_cannot_be_written_is_noticed_before_training(
    folder: str, below: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(datasets, "load", lambda data_dir, dataset: pytest.fail("too late"))
    assert p4_cutout.main(command(tmp_path, f"--{folder}", str(tmp_path / "file" / below))) == 2
    assert re.search(r"(Not a directory|File exists): .*; earlier results are as they were", complaint(capsys))
    assert list(files(tmp_path)) == [Path("file")]


@pytest.mark.parametrize("folder", ["results", "checkpoints"])
def test_a_full_disk_is_noticed_before_training(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened = tempfile.TemporaryFile

    def full(dir: Path) -> Any:
        return opened(dir=dir) if folder not in str(dir) else no_space(0)

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    monkeypatch.setattr(datasets, "load", lambda data_dir, dataset: pytest.fail("too late"))
    assert p4_cutout.main(command(tmp_path)) == 2
    assert "No space left on device; earlier results" in complaint(capsys)


def test_a_disk_full_at_the_end_leaves_earlier_results_as_they_were(
    whole: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(whole)
    monkeypatch.setattr(os, "fsync", no_space)
    assert p4_cutout.main(command(whole, "--M", "2")) == 2
    (path,) = (whole / "results").rglob("*.parquet")
    said = f"[Errno 28] No space left on device: '{path}'; earlier results are as they were, "
    assert complaint(capsys).startswith(said)
    assert files(whole) == before


def test_provenance_tells_the_code_that_the_run_started_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commits = iter("ab")
    monkeypatch.setattr("experiments.store.provenance.git_state", lambda: (40 * next(commits), False))
    monkeypatch.setattr("experiments.store.provenance.file_hash", lambda path: "as it was at the start")
    load = datasets.load

    def edited(*arguments: Any) -> Any:
        monkeypatch.setattr("experiments.store.provenance.file_hash", lambda path: "edited")
        return load(*arguments)

    monkeypatch.setattr(datasets, "load", edited)
    assert p4_cutout.main(command(tmp_path, epochs=1)) == 0
    (run,) = parquet.runs(tmp_path / "results")
    assert run.provenance.git_commit == 40 * "a"
    assert set(run.provenance.sources.values()) == {"as it was at the start"}
    assert {"experiments/p4_cutout.py", "experiments/p4/plain_engine.py"} < set(run.provenance.sources)


def test_a_run_that_diverges_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(training, "LEARNING_RATE", float("nan"))
    assert p4_cutout.main(command(tmp_path)) == 1
    assert "not finite after epoch 1" in complaint(capsys)
    assert not files(tmp_path)
