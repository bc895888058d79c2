"""Epochs of Problem 1 from rows whose times are worked out here, and from a run of version 1 beside it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from experiments.store import epochs, parquet, schemas

STARTED = datetime(2026, 7, 1, 12, tzinfo=UTC)
JOB: dict[str, Any] = {
    "framework": "torch", "model": "tiny", "device_kind": "cpu", "learners": 2, "hosts": 1, "launcher": "none",
    "allreduce": True, "precision": "float32", "batch_size": 4, "effective_batch": 8, "image_size": 32, "threads": 1,
    "gbit": None, "link_gbit": None, "link_round_trip_us": None, "repeat": 1, "host": 0, "epochs_planned": 2,
    "warm_up_steps": 1, "parameters": 5, "gradient_bytes": 20,
}  # fmt: skip
# Learner, phase, epoch, step, began, seconds, images, wait, loss. Learner 1 waits from 8 to 9 for the second epoch.
PHASES = [
    (0, "set-up", 0, 0, 0.0, 5.0, 0, None, None),
    (0, "train", 1, 1, 5.0, 1.0, 4, 0.25, 7.0),
    (0, "train", 1, 2, 6.0, 3.0, 4, 0.5, 6.0),
    (0, "train", 2, 1, 9.0, 2.0, 4, 0.0, 5.0),
    (0, "train", 2, 2, 11.0, 2.0, 4, 0.125, 4.0),
    (0, "end", 0, 0, 13.0, 7.0, 0, None, None),
    (1, "set-up", 0, 0, 0.0, 5.5, 0, None, None),
    (1, "train", 1, 1, 5.5, 1.5, 4, 0.75, 7.5),
    (1, "train", 1, 2, 7.0, 1.0, 4, 0.5, 6.5),
    (1, "train", 2, 1, 9.0, 3.0, 4, 0.25, 5.5),
    (1, "train", 2, 2, 12.0, 2.0, 4, 0.25, 4.5),
    (1, "end", 0, 0, 14.0, 6.0, 0, None, None),
]


def steps() -> pd.DataFrame:
    """Rows of version 2."""
    names = ["rank", "phase", "epoch", "step", "began", "seconds", "images", "wait_seconds", "loss"]
    rows = pd.DataFrame(PHASES, columns=names).assign(compiled=True, **JOB)
    return rows.assign(cores=rows["rank"].astype(str))


def earlier() -> pd.DataFrame:
    """A row of version 1: one epoch of one learner."""
    known: dict[str, Any] = {
        "rank": 0, "cores": "0", "epoch": 1, "steps": 2, "images": 8, "seconds": 4.0, "images_per_second": 2.0,
        "step_p10": 1.0, "step_p50": 2.0, "step_p90": 3.0, "loss": 6.0, "setup_seconds": 3.0,
    }  # fmt: skip
    return pd.DataFrame([JOB | known | {"learners": 1, "effective_batch": 4}])


def write(folder: Path, run: str, rows: pd.DataFrame, version: int, seconds: float) -> None:
    """A run's file as the store has it, with the rows of a version."""
    origin = {
        "experiment": "p1_horovod", "run_id": run, "kind": "measured", "config": {}, "seed": 0, "git_commit": "0" * 40,
        "git_dirty": False, "sources": {}, "source_hash": "", "command": "python experiments/p1_horovod.py",
        "started": STARTED.isoformat(), "ended": (STARTED + timedelta(seconds=seconds)).isoformat(),
        "host_kind": "Linux", "host_cpu": "a processor", "host_cores": 2, "device": "a processor", "device_count": 2,
        "versions": {}, "schema_version": version, "allocation": "" if version == 1 else "0123abcd",
    }  # fmt: skip
    schema = schemas.of("p1_horovod", version)
    table = pa.Table.from_pandas(rows[schema.names], schema=schema, preserve_index=False)
    path = parquet.path_of("p1_horovod", run, folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table.replace_schema_metadata({parquet.METADATA_KEY: json.dumps(origin).encode()}), path)


@pytest.fixture
def both(tmp_path: Path) -> pd.DataFrame:
    write(tmp_path, "new", steps(), 2, 21.0)
    write(tmp_path, "old", earlier(), 1, 30.0)
    return epochs.read("p1_horovod", tmp_path).set_index(["run_id", "rank", "epoch"]).sort_index()


def test_an_epoch_lasts_from_its_first_step_to_the_end_of_its_last(both: pd.DataFrame) -> None:
    new = both.loc["new"]
    assert list(new.index) == [(0, 1), (0, 2), (1, 1), (1, 2)]
    assert list(new.began) == [5, 9, 5.5, 9]
    assert list(new.seconds) == [4, 4, 2.5, 5]  # learner 1's wait for learner 0 between the epochs is in neither
    assert list(new.images) == [8, 8, 8, 8] and list(new.steps) == [2, 2, 2, 2]
    assert list(new.images_per_second) == [2, 2, 3.2, 1.6]


def test_steps_waits_and_losses_are_summed_up(both: pd.DataFrame) -> None:
    new = both.loc["new"]
    assert list(new.step_p50) == [2, 2, 1.25, 2.5]
    assert list(new.step_p10) == pytest.approx([1.2, 2, 1.05, 2.1])  # a tenth of the way from the shorter step
    assert list(new.step_p90) == pytest.approx([2.8, 2, 1.45, 2.9])
    assert list(new.wait_seconds) == [0.75, 0.125, 1.25, 0.5]
    assert list(new.loss) == [6, 4, 6.5, 4.5]  # of the last step


def test_the_jobs_set_up_and_wall_clock(both: pd.DataFrame) -> None:
    new = both.loc["new"]
    assert list(new.setup_seconds) == [5, 5, 5.5, 5.5]
    assert set(new.job_seconds) == {20.0}  # not the 21 s between the provenance's times
    assert set(new.compiled) == {True} and set(new.effective_batch) == {8} and set(new.allocation) == {"0123abcd"}


def test_earlier_runs_keep_what_they_stored(both: pd.DataFrame) -> None:
    old = both.loc["old"].iloc[0]
    assert (old["seconds"], old["images_per_second"], old["setup_seconds"], old["loss"]) == (4.0, 2.0, 3.0, 6.0)
    assert old["job_seconds"] == 30.0 and not old["compiled"]
    assert pd.isna(old["began"]) and pd.isna(old["wait_seconds"])


def test_a_framework_that_tells_no_wait_has_none(tmp_path: Path) -> None:
    write(tmp_path, "new", steps().assign(wait_seconds=float("nan"), framework="tensorflow"), 2, 21.0)
    assert epochs.read("p1_horovod", tmp_path).wait_seconds.isna().all()


@pytest.mark.parametrize(("version", "rows", "expected"), [(1, earlier(), 1), (2, steps(), 4)])
def test_one_version_alone(version: int, rows: pd.DataFrame, expected: int, tmp_path: Path) -> None:
    write(tmp_path, "run", rows, version, 30.0)
    found = epochs.read("p1_horovod", tmp_path)
    assert len(found) == expected and set(epochs.columns("p1_horovod")) <= set(found.columns)


def test_without_results_there_are_columns(tmp_path: Path) -> None:
    found = epochs.read("p1_horovod", tmp_path)
    assert found.empty and set(epochs.columns("p1_horovod")) <= set(found.columns)
