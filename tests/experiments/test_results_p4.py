"""The committed CIFAR-10 runs are whole, agree with their raw logs, and say what they are."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest

from experiments.p4 import training
from experiments.store import ledger, parquet
from experiments.store.files import RESULTS
from experiments.store.provenance import run_id

FOLDER = RESULTS / training.EXPERIMENT
RUNS = [run for run in parquet.runs() if run.provenance.experiment == training.EXPERIMENT]
TRAINED, TESTED = 50_000, 10_000

EPOCH = re.compile(
    r"epoch +(\d+)  lr ([\d.]+)  train ([\d.]+) ([\d.]+)%  val ([\d.]+) ([\d.]+)%  ([\d,]+) images/s  ([\d.]+) s"
)
START = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ (\S+) on (.+), set-up ([\d.]+) s, from epoch (\d+)")
STOP = re.compile(r"stopped after epoch \d+ as asked; continue with --resume")

each_run = pytest.mark.parametrize("run", RUNS, ids=lambda run: run.path.stem)


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return parquet.read(training.EXPERIMENT)


def rows(frame: pd.DataFrame, run: parquet.Run) -> pd.DataFrame:
    return frame[frame.run_id == run.provenance.run_id]


def test_every_run_has_its_log_and_nothing_else_lies_there() -> None:
    assert RUNS
    names = {run.path.stem for run in RUNS}
    assert {path.name for path in FOLDER.iterdir()} == {
        f"{name}{end}" for name in names for end in (".parquet", ".log")
    }


@each_run
def test_the_rows_are_those_of_the_configuration(run: parquet.Run, frame: pd.DataFrame) -> None:
    origin, mine = run.provenance, rows(frame, run)
    config = training.Config(**origin.config)
    assert origin.run_id == run_id(config.slug, origin.config, origin.settings)
    assert origin.seed == config.seed
    assert config.dataset == "cifar10" and config.depth == 44 and config.epochs <= 100
    assert mine.epoch.tolist() == list(range(1, config.epochs + 1))
    assert (mine.epochs_planned == config.epochs).all()
    for column in ("dataset", "augment", "M", "batch_size", "precision", "engine", "schedule"):
        assert set(mine[column]) == {getattr(config, column)}
    rates = [training.learning_rate(epoch, config.schedule, config.epochs) for epoch in mine.epoch]
    np.testing.assert_allclose(mine.learning_rate, rates)
    assert (mine.steps == TRAINED // config.batch_size).all()
    assert (mine.images == mine.steps * config.batch_size * config.M).all()


@each_run
def test_errors_are_shares_of_whole_images(run: parquet.Run, frame: pd.DataFrame) -> None:
    mine = rows(frame, run)
    for error, images in ((mine.val_error, TESTED), (mine.train_error, mine.images)):
        counts = error * images
        assert counts.between(0, images).all()
        np.testing.assert_allclose(counts, counts.round(), atol=1e-6)


@each_run
def test_times_add_up_and_fit_into_the_run(run: parquet.Run, frame: pd.DataFrame) -> None:
    origin, mine = run.provenance, rows(frame, run)
    assert (mine.train_seconds > 0).all() and (mine.val_seconds > 0).all()
    np.testing.assert_allclose(mine.wall_seconds, (mine.train_seconds + mine.val_seconds).cumsum())
    assert mine.setup_seconds.is_monotonic_increasing  # each piece of a resumed run adds its own
    elapsed = (origin.ended - origin.started).total_seconds()
    assert mine.wall_seconds.iloc[-1] + mine.setup_seconds.iloc[-1] <= elapsed


@each_run
def test_the_raw_log_tells_the_same(run: parquet.Run, frame: pd.DataFrame) -> None:
    origin, mine = run.provenance, rows(frame, run)
    lines = run.path.with_suffix(".log").read_text().splitlines()
    starts = [found for line in lines if (found := START.fullmatch(line))]
    epochs = [found for line in lines if (found := EPOCH.fullmatch(line))]
    assert len(starts) + len(epochs) + sum(bool(STOP.fullmatch(line)) for line in lines) == len(lines)
    assert lines[0] == starts[0].string and {found[1] for found in starts} == {origin.run_id}
    assert starts[-1][2] == origin.device
    assert float(starts[-1][3]) == pytest.approx(mine.setup_seconds.iloc[-1], abs=0.0501)

    told = np.array([[float(value.replace(",", "")) for value in found.groups()] for found in epochs])
    kept = np.column_stack(
        [
            mine.epoch,
            mine.learning_rate,
            mine.train_loss,
            100 * mine.train_error,
            mine.val_loss,
            100 * mine.val_error,
            mine.images / mine.train_seconds,
            mine.wall_seconds,
        ]
    )
    digits = np.array([0, 4, 4, 2, 4, 2, 0, 1])
    assert told.shape == kept.shape
    assert (np.abs(told - kept) <= 0.501 * 10.0**-digits).all()


def today(sources: dict[str, str]) -> set[str]:
    """The sources' paths, and all that they became since."""
    known, found = ledger.changes(), set[str]()
    while len(found) < len(found := found | set(sources) | {c.becomes for c in known if c.source in found}):
        pass
    return found


@each_run
def test_provenance_names_the_code_that_ran(run: parquet.Run) -> None:
    origin = run.provenance
    needed = {"p4_cutout.py", "p4/training.py", "p4/augment.py", "p4/cifar10.py", "p4/resnet.py"}
    needed |= {"p4/fused_engine.py" if origin.config["engine"] == "fused" else "p4/plain_engine.py"}
    if origin.config["engine"] == "fused" and origin.config["precision"] == "bf16":
        needed |= {"p4/cuda_kernels.cu", "p4/cuda_tiles.cuh"}
    assert {f"experiments/{name}" for name in needed} <= today(origin.sources)
    if origin.config["device"] == "cuda":
        assert {"torch", "cuda"} <= set(origin.versions)
    assert origin.kind == "measured" and not origin.git_dirty
    assert origin.device_count == 1
