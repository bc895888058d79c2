"""Predictions for more GPUs from the measured ones, made before the larger jobs run and test them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd

from experiments.scaling import published
from experiments.scaling.fit import LEVEL, PREDICTS, Fit, fit
from experiments.scaling.predictions import arrays, row
from experiments.scaling.series import (
    Row,
    as_points,
    horovod_epochs,
    one_allocation,
    records,
    strategy_epochs,
    without_scaling,
)


def measured_gpus(results: Path) -> tuple[pd.DataFrame, list[str]]:
    """Points of GPUs of one host, and the ids of their runs. Weak and strong scaling of a setting share one `setting`
    and one allocation, as they share the model's parameters."""
    frames, runs = [], []
    for rows, batch, size in (
        (horovod_epochs(results), "batch_size", float(published.networks()["ResNet-50"][0])),
        # Problem 2's ResNet-50 has another classifier, so its gradient is not the derived one.
        (strategy_epochs(results), "per_learner_batch", np.nan),
    ):
        rows = rows[(rows.device_kind == "gpu") & (rows.hosts == 1)]
        if rows.empty:
            continue
        names = rows.series
        chosen = one_allocation(rows.assign(series=without_scaling(names), scaled=names))
        setting = chosen.drop_duplicates("scaled").set_index("scaled").series
        points = as_points(chosen.assign(series=chosen.scaled), batch, size)
        frames.append(points.assign(setting=points.series.map(setting)))
        runs += list(chosen.run_id.unique())
    empty = pd.DataFrame(columns=["series", "setting", "learners"])
    return (pd.concat(frames, ignore_index=True) if frames else empty), sorted(runs)


def ahead(
    points: pd.DataFrame, numbers: list[int], level: float = LEVEL, draws: int = 2000, seed: int = 0
) -> list[Row]:
    """Rows of the fit and of each number of learners that a series has not been run with yet.

    A series whose batch per learner shrinks as learners are added keeps its effective batch; another keeps the batch
    per learner. Settings without one GPU, or with one alone, are left out: they give nothing to fit.
    """
    rng = np.random.default_rng(seed)
    rows: list[Row] = []
    for _, setting in points.groupby("setting", sort=True):
        if 1 not in set(setting.learners) or setting.learners.nunique() < 2:
            continue
        result = fit(*arrays(setting), setting.images_per_second.to_numpy(float))
        for _, own in setting.groupby("series", sort=True):
            seen = ", ".join(str(int(p)) for p in sorted(set(own.learners)))
            for point in records(own.sort_values("learners")):
                rows.append(_row(result, "fitted", point, seen))
            effective = own.learners * own.per_learner_batch
            strong = effective.nunique() == 1 and own.per_learner_batch.nunique() > 1
            for learners in (p for p in numbers if p > own.learners.max()):
                batch = effective.iloc[0] / learners if strong else own.per_learner_batch.iloc[0]
                wanted = SimpleNamespace(
                    series=own.series.iloc[0],
                    network="ResNet-50",
                    learners=learners,
                    per_learner_batch=float(batch),
                    gradient_bytes=own.gradient_bytes.iloc[0],
                    source="measured",
                )
                where = np.array([float(learners)]), np.array([float(batch)])
                low, high = result.interval(*where, rng, level=level, draws=draws)[:, 0]
                rows.append(_row(result, "projected", wanted, seen) | {"low": float(low), "high": float(high)})
    return rows


def _row(result: Fit, role: str, point: SimpleNamespace, seen: str) -> Row:
    """A point of the fit with its parameters."""
    where = np.array([float(point.learners)]), np.array([float(point.per_learner_batch)])
    compute, overhead, exposed = result.parts(*where)[:, 0]
    more: Row = {"compute_seconds": float(compute), "exposed_seconds": float(exposed), "fit_points": seen}
    more |= {"overhead_seconds": float(overhead * point.per_learner_batch) if result.overhead else None}
    more |= {"form": PREDICTS, "form_weight": result.form(PREDICTS).weight, "freedom": result.freedom}
    return row("ahead", role, point, float(result.predict(*where)[0]), **more)
