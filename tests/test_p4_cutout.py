"""Problem 4's script: schedules, resuming bit for bit, bad input; and the committed runs."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from experiments import cifar, p4_cutout, store

SECONDS = ["train_seconds", "val_seconds", "wall_seconds", "setup_seconds"]
# What a child process runs: the script, on data small enough for tests.
DRIVER = """
import sys
from experiments import cifar, p4_cutout
small = cifar.synthetic(seed=0, train=96, test=40)
cifar.load = lambda data_dir, dataset: small
sys.exit(p4_cutout.main(sys.argv[1:]))
"""


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    data = cifar.synthetic(seed=0, train=96, test=40)
    monkeypatch.setattr(cifar, "load", lambda data_dir, dataset: data)


def command(where: Path, *more: str, epochs: int = 4) -> list[str]:
    base = ["--data", "synthetic", "--depth", "14", "--batch-size", "16", "--device", "cpu", "--epochs", str(epochs)]
    return [*base, "--results", str(where / "results"), "--checkpoints", str(where / "checkpoints"), *more]


def rows(where: Path) -> pd.DataFrame:
    return store.read("p4_cutout", where / "results")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run."""
    where = tmp_path_factory.mktemp("whole")
    data = cifar.synthetic(seed=0, train=96, test=40)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cifar, "load", lambda data_dir, dataset: data)
        assert p4_cutout.main(command(where, "--M", "2")) == 0
    return where


def test_the_authors_schedule_drops_once_within_100_epochs() -> None:
    rates = [p4_cutout.learning_rate(epoch, "authors", 100) for epoch in range(1, 101)]
    assert rates[:81] == [0.1] * 81
    assert rates[81:] == pytest.approx([0.01] * 19)


def test_the_scaled_schedule_has_all_three_drops() -> None:
    rates = [p4_cutout.learning_rate(epoch, "scaled", 100) for epoch in range(1, 101)]
    # After 40.5, 61 and 82 epochs: the first whole epochs behind these are numbers 42, 62 and 83.
    drops = [epoch for epoch in range(2, 101) if rates[epoch - 1] < 0.5 * rates[epoch - 2]]
    assert drops == [42, 62, 83]
    assert rates[-1] == pytest.approx(1e-4)


def test_a_run_writes_tidy_rows(whole: Path) -> None:
    frame = rows(whole)
    assert frame.epoch.tolist() == [1, 2, 3, 4]
    assert (frame.dataset == "synthetic").all()
    assert (frame.steps == 6).all() and (frame.images == 6 * 16 * 2).all()
    np.testing.assert_allclose(frame.wall_seconds, (frame.train_seconds + frame.val_seconds).cumsum())
    assert not list((whole / "checkpoints").glob("*"))  # done with
    (log,) = (whole / "results" / "p4_cutout").glob("*.log")
    assert len(log.read_text().splitlines()) == 5


def test_training_learns(tmp_path: Path) -> None:
    assert p4_cutout.main(command(tmp_path, "--augment", "none", epochs=30)) == 0
    frame = rows(tmp_path)
    assert frame.train_loss.iloc[-1] < 0.7 * frame.train_loss.iloc[0]


def test_a_run_in_pieces_has_the_numbers_of_a_whole_one(whole: Path, tmp_path: Path) -> None:
    pieces = 0
    while not list((tmp_path / "results").glob("*/*.parquet")):
        assert p4_cutout.main(command(tmp_path, "--M", "2", "--resume", "--minutes", "1e-9")) == 0
        pieces += 1
    assert pieces == 4  # an epoch each
    a, b = rows(whole), rows(tmp_path)
    pd.testing.assert_frame_equal(a.drop(columns=[*SECONDS, "started"]), b.drop(columns=[*SECONDS, "started"]))
    assert b.wall_seconds.is_monotonic_increasing


def test_a_killed_run_goes_on_with_the_same_numbers(whole: Path, tmp_path: Path) -> None:
    first = command(tmp_path, "--M", "2", "--minutes", "1e-9")
    assert p4_cutout.main(first) == 0  # one epoch and a checkpoint
    run = [sys.executable, "-c", DRIVER, *command(tmp_path, "--M", "2", "--resume")]
    environment = os.environ | {"PYTHONPATH": str(store.ROOT)}
    killed = subprocess.Popen(run, env=environment, stderr=subprocess.PIPE, text=True)
    assert killed.stderr is not None
    for line in killed.stderr:
        if line.startswith("epoch   2"):  # it has begun another epoch by now
            break
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    assert not (tmp_path / "results").exists()
    assert p4_cutout.main(command(tmp_path, "--M", "2", "--resume")) == 0
    a, b = rows(whole), rows(tmp_path)
    pd.testing.assert_frame_equal(a.drop(columns=[*SECONDS, "started"]), b.drop(columns=[*SECONDS, "started"]))


def test_ctrl_c_says_how_to_go_on(tmp_path: Path) -> None:
    run = [sys.executable, "-c", DRIVER, *command(tmp_path, epochs=100)]
    child = subprocess.Popen(run, env=os.environ | {"PYTHONPATH": str(store.ROOT)}, stderr=subprocess.PIPE, text=True)
    assert child.stderr is not None
    while not child.stderr.readline().startswith("epoch"):
        assert child.poll() is None
    time.sleep(0.2)
    child.send_signal(signal.SIGINT)
    last = child.stderr.read().splitlines()[-1]
    assert child.wait() == 130
    assert last == "p4_cutout: interrupted; continue with --resume from the last checkpoint"


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("p4_cutout:")]
    assert len(lines) == 1
    return lines[0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--M", "0"], "--M must be at least 1, not 0"),
        (["--epochs", "101"], "no run of more than 100 epochs"),
        (["--epochs", "0"], "--epochs must be at least 1"),
        (["--batch-size", "97"], "more than the 96 training images"),
        (["--depth", "15"], "--depth must be 6n+2"),
        (["--device", "tpu"], "--device must be auto, cpu or cuda"),
        (["--engine", "fused"], "--engine fused needs a GPU"),
        (["--minutes", "0"], "--minutes must be positive"),
        (["--seed", "-1"], "--seed must be at least 0"),
    ],
)
def test_bad_input_gets_one_line(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert p4_cutout.main([*command(tmp_path), *arguments]) == 2
    assert said in one_line(capsys)
    assert not (tmp_path / "results").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_gpu_that_is_not_there_gets_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert p4_cutout.main([*command(tmp_path), "--device", "cuda"]) == 2
    assert "PyTorch sees no GPU" in one_line(capsys)


def test_missing_data_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def nothing(data_dir: Path | None, dataset: str) -> cifar.Cifar:
        raise cifar.DataError(f"no CIFAR-10: {cifar.HOW_TO_GET_IT}")

    monkeypatch.setattr(cifar, "load", nothing)
    assert p4_cutout.main(command(tmp_path)) == 2
    assert "--data synthetic" in one_line(capsys)


def checkpoint(where: Path, *more: str) -> Path:
    assert p4_cutout.main(command(where, *more, "--minutes", "1e-9")) == 0
    (found,) = (where / "checkpoints").glob("*.ckpt")
    return found


@pytest.mark.parametrize("damage", ["torn", "garbage", "empty"])
def test_a_damaged_checkpoint_is_named_and_kept(
    damage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = checkpoint(tmp_path)
    whole = path.read_bytes()
    path.write_bytes({"torn": whole[: len(whole) // 2], "garbage": b"x" * 1000, "empty": b""}[damage])
    before = path.read_bytes()
    capsys.readouterr()
    assert p4_cutout.main(command(tmp_path, "--resume")) == 2
    assert str(path) in (line := one_line(capsys)) and "remove it to start afresh" in line
    assert path.read_bytes() == before


def test_a_checkpoint_of_another_configuration_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = checkpoint(tmp_path / "other", "--M", "2")
    mine = checkpoint(tmp_path / "mine")
    mine.write_bytes(other.read_bytes())
    capsys.readouterr()
    assert p4_cutout.main(command(tmp_path / "mine", "--resume")) == 2
    assert "another configuration (M=2)" in one_line(capsys)


def test_a_checkpoint_runs_no_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Hostile:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "touched",))

    path = checkpoint(tmp_path)
    torch.save({"config": Hostile()}, path)
    capsys.readouterr()
    assert p4_cutout.main(command(tmp_path, "--resume")) == 2
    assert str(path) in one_line(capsys)
    assert not (tmp_path / "touched").exists()


def test_a_full_disk_leaves_earlier_results_as_they_were(
    whole: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {p: p.read_bytes() for p in (whole / "results").rglob("*") if p.is_file()}

    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(store, "write_atomically", full)
    assert p4_cutout.main(command(whole, "--M", "2")) == 2
    assert "No space left on device" in one_line(capsys)
    assert {p: p.read_bytes() for p in (whole / "results").rglob("*") if p.is_file()} == before


def test_a_run_that_diverges_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(p4_cutout, "LEARNING_RATE", float("nan"))
    assert p4_cutout.main(command(tmp_path)) == 1
    assert "not finite after epoch 1" in one_line(capsys)
    assert not (tmp_path / "results").exists()


def test_committed_runs_agree_with_their_raw_logs() -> None:
    runs = [run for run in store.runs() if run.provenance.experiment == "p4_cutout"]
    assert runs
    frame = store.read("p4_cutout")
    assert set(frame.dataset) == {"cifar10"}
    for run in runs:
        mine = frame[frame.run_id == run.provenance.run_id]
        assert mine.epoch.tolist() == list(range(1, run.provenance.config["epochs"] + 1))
        assert (mine.images == mine.steps * mine.M * mine.batch_size).all()
        np.testing.assert_allclose(mine.wall_seconds, (mine.train_seconds + mine.val_seconds).cumsum())
        logged = re.findall(r"^epoch +(\d+) .* val [\d.]+ ([\d.]+)%", run.path.with_suffix(".log").read_text(), re.M)
        told = {int(epoch): float(error) for epoch, error in logged}
        assert told == pytest.approx({e: 100 * v for e, v in zip(mine.epoch, mine.val_error, strict=True)}, abs=0.0051)
