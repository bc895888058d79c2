"""Made-up epochs of Problems 1 and 2, as the fit of scaling reads them."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from experiments.machine import allocation
from experiments.store import schemas

LINK = {
    "backend": pa.string(), "hosts": pa.int64(), "learners": pa.int64(), "bytes": pa.float64(), "seconds": pa.float64(),
}  # fmt: skip
HERE: dict[str, Any] = {"kind": "measured", "device": "a GPU", "allocation": "here"}
HERE |= {"started": datetime(2026, 1, 2, tzinfo=UTC), "hosts": 1}
HOROVOD: dict[str, Any] = HERE | {"framework": "torch", "device_kind": "gpu", "batch_size": 8, "image_size": 224}
HOROVOD |= {"images": 100, "precision": "float32", "compiled": False, "allreduce": True}
STRATEGY: dict[str, Any] = HERE | {"precision": "float32", "jit_compile": False, "steps_per_execution": 1}
STRATEGY |= {"image_size": 32, "all_reduce": None, "communication": None}
Epochs = dict[str, list[dict[str, Any]]]


@pytest.fixture
def measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Epochs:
    """Epochs of 1, 2 and 4 learners of both problems, by experiment; all-reduces have a schema of what is read."""
    monkeypatch.setenv("DLPERF_COMMIT", "0" * 40)
    monkeypatch.setenv(allocation.TOKEN, "a go")
    monkeypatch.setattr("experiments.machine.allocation.current", lambda: "here")
    fields = [schemas.column(column, kind, "-", "-", nullable=True) for column, kind in LINK.items()]
    monkeypatch.setitem(schemas.SCHEMAS, "allreduce", pa.schema(fields))
    found: Epochs = {"p1_horovod": [], "p2_strategy": []}
    for p in (1, 2, 4):
        for allreduce, hosts, base in ((True, 1, 1.0), (True, 2, 7.0), (False, 1, 0.1)):
            run = {"learners": p, "hosts": hosts, "allreduce": allreduce, "run_id": f"p1-{p}-{hosts}-{allreduce}"}
            for epoch, rank in product((1, 2, 3), range(p if hosts <= p else 0)):
                seconds = base * (5.0 if epoch == 1 else 1.0) - 0.01 * rank
                found["p1_horovod"].append(HOROVOD | run | {"epoch": epoch, "rank": rank, "seconds": seconds})
        run = {"learners": p, "per_learner_batch": 256 // p, "scaling": "strong", "strategy": "mirrored"}
        run |= {"all_reduce": "nccl", "run_id": f"p2-{p}", "images": 256}
        found["p2_strategy"] += [STRATEGY | run | {"epoch": e, "seconds": 1 / p + 0.1} for e in (1, 2)]
    monkeypatch.setattr("experiments.store.epochs.read", lambda experiment, results: pd.DataFrame(found[experiment]))
    return found
