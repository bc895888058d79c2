"""Problem 2 on the homework's own machine, projected by the scaling model."""

from __future__ import annotations

import numpy as np
import pandas as pd

from experiments.store import parquet
from report.figures.strategy_runs import EPOCHS, IMAGES
from report.used import selects


@selects
def k80(fitted: pd.DataFrame | None = None) -> pd.DataFrame:
    """The scaling model's projection for the homework's jobs on K80, with 80 % intervals: a row a job with `rate`,
    `low`, `high` (images/s) and `ten_seconds`, `ten_low`, `ten_high`. `fitted`: the rows of `scaling_fit`."""
    rows = parquet.read("scaling_fit") if fitted is None else fitted
    rows = rows[(rows.method == "homework") & rows.series.str.contains("K80")]
    if len(rows):
        rows = rows[rows.run_id == rows.sort_values("started").run_id.iloc[-1]]
    jobs = pd.DataFrame(
        {
            "run_id": rows.run_id,
            "scaling": np.where(rows.series.str.contains("weak"), "weak", "strong"),
            "learners": rows.learners.astype(int),
            "per_learner_batch": rows.per_learner_batch.astype(float),
            "rate": rows.predicted.astype(float),
            "low": rows.low.astype(float),
            "high": rows.high.astype(float),
        }
    )
    effective = jobs.learners * jobs.per_learner_batch
    images = EPOCHS * (IMAGES // effective) * effective
    jobs["ten_seconds"], jobs["ten_low"], jobs["ten_high"] = images / jobs.rate, images / jobs.high, images / jobs.low
    return jobs.reset_index(drop=True)
