"""Runs of Problems 1 and 2 as jobs: one row each, with its rate and times, and what describes it."""

from __future__ import annotations

import numpy as np
import pandas as pd

from experiments.store.epochs import counted

# Every column of an epoch frame plays one of these parts.
WHERE = ["allocation", "device"]
SETTING = [
    *("environment", "kind", "framework", "model", "network", "dataset", "device_kind", "strategy", "scaling"),
    *("learners", "workers", "hosts", "gbit", "launcher", "allreduce", "all_reduce", "communication", "base"),
    *("batch_size", "image_size", "precision", "compiled", "jit_compile", "steps_per_execution", "threads"),
]
LENGTH = ["epochs_planned", "whole_epochs"]
DERIVED = [  # from the setting
    *("effective_batch", "per_learner_batch", "learning_rate", "parameters", "gradient_bytes", "device_count"),
    *("learner", "warm_up_steps"),  # a text that names the number of cores; steps that are in no epoch
]
PLACEMENT = ["rank", "worker", "host", "cores", "host_cpu", "host_cores", "link_gbit", "link_round_trip_us"]
IDENTITY = ["run_id", "repeat", "seed", "started", "ended", "throttled_periods"]
MEASURED = [
    *("epoch", "steps", "images", "began", "seconds", "images_per_second", "step_p10", "step_p50", "step_p90"),
    *("wait_seconds", "loss", "train_loss", "test_accuracy", "evaluation_seconds", "setup_seconds", "job_seconds"),
]

# What `jobs` works out. Rates and steps hold for any length, run times for one.
RATES = ["rate", "slowest_rate", "step_seconds", "wait_share"]
TIMES = ["train_seconds", "job_seconds", "setup_seconds", "evaluation_seconds"]


def jobs(epochs: pd.DataFrame) -> pd.DataFrame:
    """One row for each run of an epoch frame (`experiments.store.epochs.read`), with its description and:

    rate: images/s of all learners, the median over epochs. Learners that average take an epoch's images over its
        slowest learner's seconds, independent ones the sum of their rates.
    slowest_rate: all images over the slowest learner's seconds, for independent learners too.
    step_seconds: of one step at that `rate`. wait_share: part of the learners' seconds waited for an all-reduce (NaN
        where that wasn't recorded).
    train_seconds: all counted epochs, each by its slowest learner. setup_seconds: the slowest learner's.
        evaluation_seconds: all tests. job_seconds: the whole job, set-up and end included.
    epochs, steps, images: that count, of a learner (steps) and of all (images).
    version: of the run's rows.
    """
    described = [name for name in [*WHERE, *SETTING, *LENGTH, *DERIVED, *PLACEMENT, *IDENTITY] if name in epochs]
    described = [name for name in described if name not in ("rank", "worker", "host", "cores")]
    if epochs.empty:
        return pd.DataFrame(columns=[*described, "version", *RATES, *TIMES, "epochs", "steps", "images"])
    frame = counted(epochs.assign(version=np.where(epochs.began.isna(), 1, 2)))
    averaging = frame.allreduce.astype(bool) if "allreduce" in frame else pd.Series(True, frame.index)
    each = frame.assign(averaging=averaging).groupby(["run_id", "epoch"])
    by_epoch = each.agg(
        images=("images", "sum"),
        seconds=("seconds", "max"),
        learner_seconds=("seconds", "sum"),
        steps=("steps", "first"),
        sum_of_rates=("images_per_second", "sum"),
        averaging=("averaging", "first"),
    )
    by_epoch["waited"] = each.wait_seconds.sum(min_count=1)
    tested = each.evaluation_seconds.max() if "evaluation_seconds" in frame else np.nan
    slowest = by_epoch.images / by_epoch.seconds
    rates = slowest.where(by_epoch.averaging, by_epoch.sum_of_rates)
    by_epoch = by_epoch.assign(
        rate=rates, slowest_rate=slowest, step_seconds=by_epoch.images / by_epoch.steps / rates, tested=tested
    )
    of_run = by_epoch.groupby("run_id")
    found = of_run[["rate", "slowest_rate", "step_seconds"]].median()
    found["wait_share"] = of_run.waited.sum(min_count=1) / of_run.learner_seconds.sum()
    found["train_seconds"], found["evaluation_seconds"] = of_run.seconds.sum(), of_run.tested.sum(min_count=1)
    found["epochs"] = of_run.size()
    found[["steps", "images"]] = of_run[["steps", "images"]].sum()
    whole = frame.groupby("run_id").agg(setup_seconds=("setup_seconds", "max"), job_seconds=("job_seconds", "first"))
    constant = frame[[*described, "version"]].drop_duplicates("run_id")
    return constant.merge(found, on="run_id").merge(whole, on="run_id")
