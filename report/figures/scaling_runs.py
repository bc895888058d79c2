"""The scaling model's rows as its figures take them, and how they write numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from experiments.store import parquet
from experiments.store.files import RESULTS
from report.figures.horovod_runs import rate_text
from report.used import remembered

FIT = "python experiments/scaling_fit.py"
SUMS = "python experiments/allreduce.py --backend nccl --learners 2"
RULES = {
    "model": "fitted model",
    "line": "straight line through the last fitted point",
    "doubling": "constant loss per doubling",
}
OBSERVED = {"published": "published curves", "measured": "this project's runs"}


def load(results: Path = RESULTS) -> pd.DataFrame:
    """The rows of the newest fit."""
    rows = parquet.read("scaling_fit", results)
    return rows[rows.run_id == rows.sort_values("started").run_id.iloc[-1]] if len(rows) else rows


# ---- held-out points -----------------------------------------------------------------------------------------------


@remembered
def held(rows: pd.DataFrame) -> pd.DataFrame:
    """The curves' held-out points with the errors of the fitted model and of both simple rules, by `RULES`, and
    `basis`, by `OBSERVED`.

    A rule starts from the fitted points of the same series, of one batch where each number of learners ran with
    several. Points without two fitted sizes to start from are left out, as not all rules can be scored there.
    """
    curves = rows[rows.method == "curve"]
    found = []
    for _, own in curves.groupby("series", sort=False):
        several = own.groupby("learners").per_learner_batch.nunique().max() > 1
        for _, points in own.groupby("per_learner_batch", sort=False) if several else [("", own)]:
            seen = points[points.role == "fitted"]
            ahead = points[points.role == "held out"]
            if seen.learners.nunique() < 2:
                continue
            ruled = {name: rule(seen, ahead.learners) / ahead.observed - 1 for name, rule in SIMPLE.items()}
            basis = np.where(ahead.source == "measured", "measured", "published")
            found.append(ahead.assign(model=ahead.error, basis=basis, **ruled))
    return pd.concat(found) if found else curves.assign(model=None, line=None, doubling=None, basis=None)


def straight_line(seen: pd.DataFrame, learners: Any) -> Any:
    """Images/s in proportion to learners, through the last fitted point."""
    last = seen.iloc[int(seen.learners.argmax())]
    return last.observed * learners / last.learners


def loss_per_doubling(seen: pd.DataFrame, learners: Any) -> Any:
    """Images/s where each doubling keeps the same share of efficiency as from the first fitted point to the last."""
    first, last = seen.iloc[int(seen.learners.argmin())], seen.iloc[int(seen.learners.argmax())]
    kept = (last.observed / last.learners) / (first.observed / first.learners)
    doublings = np.log2(learners / last.learners) / np.log2(last.learners / first.learners)
    return straight_line(seen, learners) * kept**doublings


SIMPLE = {"line": straight_line, "doubling": loss_per_doubling}


def mean_errors(points: pd.DataFrame) -> dict[str, float]:
    """The mean absolute error of each rule over held-out points."""
    return {name: float(points[name].abs().mean()) for name in RULES}


# ---- text ----------------------------------------------------------------------------------------------------------


def signed(fraction: float, digits: int = 1) -> str:
    """An error: +3.1 %, −0.5 %."""
    return f"{100 * fraction:+.{digits}f} %".replace("-", "−")


def between(errors: Any, digits: int = 1) -> str:
    """The range of several errors: +2.2 to +3.1 %; one number where both ends read the same."""
    low, high = signed(min(errors), digits), signed(max(errors), digits)
    return high if low == high else f"{low.removesuffix(' %')} to {high}"


def interval(point: Any) -> str | None:
    """A point's 80 % interval; None where the fit has as many parameters as points."""
    return None if pd.isna(point.low) else f"{rate_text(point.low)}–{rate_text(point.high)}"


def batch(point: Any) -> str | None:
    """A learner's images, where they are stated."""
    return None if pd.isna(point.per_learner_batch) else f"{point.per_learner_batch:g}"
