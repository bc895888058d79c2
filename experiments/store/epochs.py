"""Epochs of Problems 1 and 2, whichever version a run's rows have: a row for each learner (worker) and epoch.

Newer runs store every step and phase, from which epochs are derived here; earlier ones stored epochs and nothing finer.
What those can't tell is absent (NaN).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from experiments.store import parquet, schemas
from experiments.store.files import RESULTS

# What tells the members of a job apart, and a step of its timeline.
MEMBER = {"p1_horovod": "rank", "p2_strategy": "worker"}
STEP = {"p1_horovod": "step", "p2_strategy": "execution"}
# What earlier code could not vary, so that its runs have it though their rows don't say.
CONSTANT: dict[str, dict[str, Any]] = {"p1_horovod": {"compiled": False}, "p2_strategy": {"image_size": 32}}
# Beside the columns of version 1: phases since the job's start (s), and the whole job's wall clock.
ADDED = ["began", "wait_seconds", "job_seconds"]


def read(experiment: str, results: Path = RESULTS) -> pd.DataFrame:
    """Epochs of p1_horovod or p2_strategy, in the columns of version 1 and those of version 2 that hold for a job.

    Adds `began` (s from the job's start to the epoch's), `wait_seconds` (sum over its steps) and `job_seconds`, from
    the job's start to its end: by its rows, of earlier runs by their provenance. `setup_seconds` goes from the job's
    start to the end of the warm-up; in earlier runs from the learner's, a second or two later. Raises SchemaError.
    """
    earlier = parquet.read(experiment, results, version=1).assign(**CONSTANT[experiment])
    earlier["job_seconds"] = (
        (pd.to_datetime(earlier.ended) - pd.to_datetime(earlier.started)).dt.total_seconds().astype(float)
    )
    newer = derive(parquet.read(experiment, results), experiment)
    whole = [frame for frame in (earlier, newer) if len(frame)]
    columns = list(dict.fromkeys([*earlier.columns, *newer.columns, *ADDED]))
    return (pd.concat(whole, ignore_index=True) if whole else newer).reindex(columns=columns)


def counted(epochs: pd.DataFrame) -> pd.DataFrame:
    """The epochs without the first ones of earlier jobs of several workers: no barrier followed the warm-up there, so
    they hold what a worker waited for the others."""
    if "workers" not in epochs:
        return epochs
    return epochs[epochs.began.notna() | (epochs.workers == 1) | (epochs.epoch > 1)]


def derive(rows: pd.DataFrame, experiment: str) -> pd.DataFrame:
    """Epochs from rows of version 2. An epoch lasts from the start of its first step to the end of its last."""
    member, step = MEMBER[experiment], STEP[experiment]
    of_steps = {"phase", "epoch", step, "began", "seconds", "images", "wait_seconds", "loss", "test_accuracy"}
    fixed = [name for name in rows.columns if name not in of_steps]
    if rows.empty:
        return rows[fixed]
    rows = rows.assign(ended_at=rows.began + rows.seconds)
    key = ["run_id", member]
    train = rows[rows.phase == "train"]
    per_call = train.steps_per_execution if "steps_per_execution" in train else 1
    steps = train.assign(step_seconds=train.seconds / per_call).groupby([*key, "epoch"])
    found = steps.agg(
        began=("began", "min"),
        ended_at=("ended_at", "max"),
        steps=(step, "size"),
        images=("images", "sum"),
        loss=("loss", "last" if experiment == "p1_horovod" else "mean"),
    )
    for name, part in {"step_p10": 0.1, "step_p50": 0.5, "step_p90": 0.9}.items():
        found[name] = steps.step_seconds.quantile(part)
    if "wait_seconds" in train:
        found["wait_seconds"] = steps.wait_seconds.sum(min_count=1)
    if experiment == "p2_strategy":
        found["steps"] *= steps.steps_per_execution.first()
        found = found.rename(columns={"loss": "train_loss"})
        tests = rows[rows.phase == "test"].set_index([*key, "epoch"])
        found["test_accuracy"], found["evaluation_seconds"] = tests.test_accuracy, tests.seconds
    found["seconds"] = found.pop("ended_at") - found.began
    found["images_per_second"] = found.images / found.seconds
    found = found.reset_index()
    jobs = rows.groupby("run_id").ended_at.max().rename("job_seconds")
    setups = rows[rows.phase == "set-up"].set_index(key).ended_at.rename("setup_seconds")
    constant = rows[fixed].drop_duplicates(key)
    return constant.merge(found, on=key).merge(setups, on=key).merge(jobs, on="run_id")


def columns(experiment: str) -> list[str]:
    """The columns that `read` gives at least."""
    return [*schemas.of(experiment, 1).names, *parquet.ORIGIN, *ADDED]
