"""Small runs of experiments/p4_cutout.py, and what their tests share."""

from __future__ import annotations

import dataclasses
import errno
import os
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch

from experiments import p4_cutout
from experiments.p4 import datasets
from experiments.p4.synthetic import synthetic
from experiments.store import parquet

_WHOLE = synthetic(seed=0, train=48, test=24)
SMALL = dataclasses.replace(  # every second pixel: a quarter of the time
    _WHOLE, train_images=_WHOLE.train_images[:, ::2, ::2], test_images=_WHOLE.test_images[:, ::2, ::2]
)
needs_gpu = pytest.mark.skipif(
    not torch.cuda.is_available() or os.environ.get("TRITON_INTERPRET") != "0",
    reason="needs a GPU and: TRITON_INTERPRET=0 python -m pytest -m gpu",
)
STEPS = 3  # of an epoch: 48 samples in batches of 16


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "load", lambda data_dir, dataset: SMALL)


def command(where: Path, *more: str, epochs: int = 4) -> list[str]:
    base = ["--data", "synthetic", "--depth", "14", "--batch-size", "16", "--device", "cpu", "--epochs", str(epochs)]
    return [*base, "--results", str(where / "results"), "--checkpoints", str(where / "checkpoints"), *more]


def files(where: Path) -> dict[Path, bytes]:
    """All files below a folder; where empty folders are made doesn't matter."""
    return {path.relative_to(where): path.read_bytes() for path in where.rglob("*") if path.is_file()}


def numbers(where: Path) -> pd.DataFrame:
    """A run's rows without what differs between two runs: times."""
    frame = parquet.read("p4_cutout", where / "results")
    return frame.drop(columns=["train_seconds", "val_seconds", "wall_seconds", "setup_seconds", "started", "ended"])


def assert_same_bits(where: Path, whole: Path) -> None:
    pd.testing.assert_frame_equal(numbers(where), numbers(whole), check_exact=True)
    assert not files(where / "checkpoints")  # done with


def checkpoint(where: Path, *more: str) -> Path:
    """Train one epoch of four and stop."""
    assert p4_cutout.main(command(where, *more, "--minutes", "1e-9")) == 0
    assert not files(where / "results")
    (found,) = (where / "checkpoints").iterdir()
    return found


def complaint(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on stderr that is not the run's log."""
    log = re.compile(r"epoch +\d+ |\d{4}-\d\d-\d\dT|stopped after epoch|p4_cutout: warning: no checkpoint")
    lines = [line for line in capsys.readouterr().err.splitlines() if not log.match(line)]
    assert len(lines) == 1 and lines[0].startswith("p4_cutout: ")
    return lines[0].removeprefix("p4_cutout: ")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Path:
    """An uninterrupted run of four epochs with M = 2; to be read only."""
    where = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets, "load", lambda data_dir, dataset: SMALL)
        assert p4_cutout.main(command(where, "--M", "2")) == 0
    return where


@pytest.fixture(scope="module")
def first_epoch(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Path:
    """The checkpoint of the first epoch of a run with M = 2; to be read only."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets, "load", lambda data_dir, dataset: SMALL)
        return checkpoint(tmp_path_factory.mktemp("first_epoch"), "--M", "2")


def begun(first_epoch: Path, where: Path) -> Path:
    """A copy of the first epoch's checkpoint, to go on from with M = 2."""
    (where / "checkpoints").mkdir(parents=True)
    return Path(shutil.copy(first_epoch, where / "checkpoints"))


def no_space(_: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
