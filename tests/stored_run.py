"""A run of p3_crosscheck, for tests of what stores runs."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pandas as pd
import pytest

from experiments.store.provenance import Provenance, provenance, run_id

STARTED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def fixed_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Provenance that does not depend on the state of this checkout."""
    monkeypatch.setenv("DLPERF_COMMIT", COMMIT)


def counts(*values: int) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "net": [f"net {k}" for k in range(len(values))],
            "quantity": "parameters",
            "counter": "torch",
            "value": list(values),
            "layers": pd.array([None] * len(values), dtype="Int64"),
            "kernel": pd.array([3] * len(values), dtype="Int64"),
        }
    )


def origin(config: dict[str, Any] | None = None, **changes: Any) -> Provenance:
    config = {"nets": ["AlexNet"]} if config is None else config
    run = run_id("all", config)
    made = provenance("p3_crosscheck", run, config, seed=0, device="cpu", started=STARTED)
    return made.model_copy(update=changes)
