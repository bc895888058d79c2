"""Series of throughputs in one form: published ones, and those that Problems 1 and 2 have measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from experiments.machine.device_names import short_name
from experiments.scaling import published
from experiments.store import epochs, suspicious

# The common form of all inputs; series that differ only in precision share a `setting`.
POINTS = ["series", "setting", "network", "learners", "per_learner_batch", "images_per_second", "gradient_bytes"]
POINTS += ["node_learners", "link_gbit_per_second", "source"]
Row = dict[str, Any]


def throughputs(frame: pd.DataFrame) -> pd.DataFrame:
    """The published throughputs as plain points."""
    rates = frame[frame.unit == "images/s"].rename(columns={"value": "images_per_second"})
    sizes = {name: float(size) for name, (size, _) in published.networks().items()}
    setting = rates[["framework", "network", "machine"]].agg(" ".join, axis=1)
    return rates.assign(gradient_bytes=rates.network.map(sizes), setting=setting)[POINTS]


def as_points(rows: pd.DataFrame, batch: str, size: float) -> pd.DataFrame:
    """Throughput of all learners in the time of the slowest, as points: a run's median over epochs, then over runs.

    Only epochs that `epochs.counted` keeps count.
    """
    rows = epochs.counted(rows)
    named = rows.assign(per_learner_batch=rows[batch].astype(float))
    keys = ["series", "learners", "per_learner_batch"]
    whole = named.groupby([*keys, "run_id", "epoch"], as_index=False).agg(
        images=("images", "sum"), seconds=("seconds", "max")
    )
    whole["images_per_second"] = whole.images / whole.seconds
    of_runs = whole.groupby([*keys, "run_id"], as_index=False).images_per_second.median()
    points = of_runs.groupby(keys, as_index=False).images_per_second.median()
    more: Row = {"setting": points.series, "network": "ResNet-50", "gradient_bytes": size, "source": "measured"}
    return points.assign(**more, node_learners=np.nan, link_gbit_per_second=np.nan)[POINTS]


def one_allocation(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of each series from one allocation, since rates compare only within one.

    The allocation with the most sizes, then with the most runs, then the latest.
    """
    if rows.empty:
        return rows
    alike = rows.groupby(["series", "allocation"])
    rank = alike.agg(sizes=("learners", "nunique"), runs=("run_id", "nunique"), started=("started", "max"))
    best = rank.sort_values(list(rank.columns)).reset_index().drop_duplicates("series", keep="last")
    return rows.merge(best[["series", "allocation"]], on=["series", "allocation"])


def _trusted(experiment: str, results: Path) -> pd.DataFrame:
    """The epochs of all runs but suspicious ones that nobody has explained."""
    return suspicious.trusted(epochs.read(experiment, results), suspicious.find(experiment, results))


def horovod_epochs(results: Path) -> pd.DataFrame:
    """Problem 1's epochs of learners that average, with the name of their series."""
    rows = _trusted("p1_horovod", results)
    rows = rows[(rows.kind == "measured") & rows.allreduce.astype(bool)]
    names = []
    for row in records(rows):
        how = (", mixed precision" if row.precision == "mixed" else "") + (", compiled" if row.compiled else "")
        device = short_name(row.device)
        names.append(f"Horovod {row.framework}, {device}, {row.image_size} pixels{how}")
    return rows.assign(series=names)


def strategy_epochs(results: Path) -> pd.DataFrame:
    """Problem 2's epochs, with the name of their series."""
    rows = _trusted("p2_strategy", results)
    rows = rows[rows.kind == "measured"]
    names = []
    for row in records(rows):
        how = row.all_reduce if row.strategy == "mirrored" else row.communication
        setting = row.precision + (", XLA" if row.jit_compile else "")
        setting += f", {row.steps_per_execution} steps a call" if row.steps_per_execution > 1 else ""
        device, size = short_name(row.device), "" if row.image_size == 32 else f", {row.image_size} pixels"
        names.append(f"tf.distribute {row.strategy} {how}, {row.scaling}, {device}{size}, {setting}")
    return rows.assign(series=names)


def without_scaling(names: pd.Series) -> pd.Series:
    """Names of series of Problem 2 without weak or strong: what they have in common."""
    return names.str.replace(r", (weak|strong),", ",", regex=True)


def measured(results: Path) -> tuple[pd.DataFrame, list[str]]:
    """The points that Problems 1 and 2 have measured, and the ids of their runs; empty where there are none."""
    frames, runs = [], []
    horovod, distributed = one_allocation(horovod_epochs(results)), one_allocation(strategy_epochs(results))
    if len(horovod):
        # Where the same learners ran on several numbers of hosts, a curve takes the fewest hosts.
        alike = horovod.groupby(["framework", "device_kind", "batch_size", "image_size", "learners"])
        horovod = horovod[horovod.hosts == alike.hosts.transform("min")]
        frames.append(as_points(horovod, "batch_size", float(published.networks()["ResNet-50"][0])))
    if len(distributed):
        # The homework's jobs of more than 8 learners have two hosts.
        extra = (distributed.hosts - 1 - (distributed.learners > 8)).abs()
        distributed = distributed[extra == extra.groupby([distributed.series, distributed.learners]).transform("min")]
        # Its ResNet-50 has another classifier, so its gradient is not the derived one.
        frames.append(as_points(distributed, "per_learner_batch", np.nan))
    runs = sorted({*horovod.run_id, *distributed.run_id})
    return (pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=POINTS)), runs


def records(frame: pd.DataFrame) -> list[Any]:
    """The frame's rows, with its columns as attributes."""
    return list(frame.itertuples(index=False))
