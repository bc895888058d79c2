"""Storing a projection: its rows, with the printed table as its log."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd
import scipy

from experiments.store import parquet
from experiments.store.provenance import Code, provenance, run_id

SHOWN = ["learners", "per_learner_batch", "observed", "predicted", "low", "high"]


def write(
    experiment: str, label: str, rows: pd.DataFrame, shown: list[str], config: dict[str, Any], started: datetime,
    code: Code, results: Path
) -> Path:  # fmt: skip
    """Print the columns `shown` and store the rows; returns their file. `config` has the seed and the fit's inputs, so
    both are part of the run's name. Raises SchemaError."""
    rows = rows.astype({"learners": "int64", "freedom": "Int64"})
    origin = provenance(
        experiment,
        run_id(label, config),
        config,
        seed=config["seed"],
        device="cpu",
        started=started,
        code=code,
        kind="projected",
        versions={"scipy": scipy.__version__},
    )
    log = rows[shown].to_string(index=False) + "\n"
    print(log, end="")
    return parquet.write(rows, origin, log=log, results=results)
