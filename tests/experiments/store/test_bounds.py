"""No run can have these rows, whoever wrote them: refused at writing, and at reading with file and row."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from experiments.cli import RunError
from experiments.store import bounds, parquet, schemas
from experiments.store.provenance import provenance

pytestmark = pytest.mark.usefixtures("fixed_commit")
NAN, INF = float("nan"), float("inf")
PHASES = [("set-up", 0, 0), ("train", 1, 1), ("train", 1, 2), ("end", 0, 0)]


def rows(experiment: str) -> pd.DataFrame:
    """Rows that are possible: two epochs of one learner, or the phases of an epoch of two steps."""
    schema = schemas.of(experiment)
    plain: dict[Any, Any] = {pa.string(): "x", pa.int64(): 2, pa.float64(): 1.0, pa.bool_(): True}
    values = {field.name: plain[field.type] for field in schema} | {"rank": 0, "worker": 0, "host": 0}
    if "phase" in schema.names:
        step = "step" if "step" in schema.names else "execution"
        given = [values | {"phase": phase, "epoch": epoch, step: number} for phase, epoch, number in PHASES]
    else:
        counted = [name for name in bounds.KEYS[experiment] if schema.field(name).type == pa.int64()][-1]
        given = [values | {counted: number} for number in (1, 2)]
    return pd.DataFrame(given)[schema.names]


CASES: list[tuple[str, dict[str, Any], str]] = [
    ("p4_cutout", {"val_error": NAN}, "val_error"),
    ("p4_cutout", {"val_error": INF}, "val_error inf: is not a finite number"),
    ("p4_cutout", {"val_error": -0.1}, "val_error -0.1: must be at least 0"),
    ("p4_cutout", {"val_error": 1.01}, "val_error 1.01: a fraction is at most 1"),
    ("p4_cutout", {"train_loss": -INF}, "is not a finite number"),
    ("p4_cutout", {"train_seconds": -1.0}, "train_seconds -1.0: must be at least 0"),
    ("p4_cutout", {"M": 0}, "M 0: must be at least 1"),
    ("p4_cutout", {"epoch": 0}, "epoch 0: the first epoch is 1"),
    ("p4_cutout", {"epoch": 3}, "epoch 3, epochs_planned 2: more epochs than planned"),
    ("p4_cutout", {"epoch": 2}, "epoch 2: the row is there twice"),
    ("p4_cutout", {"engine": "<b>x</b>"}, "no name has markup"),
    ("p4_cutout", {"engine": "a\nb"}, "no name has markup"),
    ("p4_split", {"images_per_second": -5.0}, "images_per_second -5.0"),
    ("p4_split", {"images_per_second": 0.0}, "no rate is zero"),
    ("p4_throughput", {"images_per_second": INF}, "is not a finite number"),
    ("p4_throughput", {"window": 2}, "the row is there twice"),
    ("allreduce", {"bus_bandwidth": NAN}, "bus_bandwidth"),
    ("allreduce", {"learners": -3}, "learners -3: must be at least 1"),
    ("allreduce", {"bytes": 0}, "bytes 0"),
    ("p1_horovod", {"rank": 99}, "rank 99, learners 2: rank begins with 0"),
    ("p1_horovod", {"rank": -3}, "rank -3: must be at least 0"),
    ("p1_horovod", {"host": 2}, "host 2, hosts 2"),
    ("p1_horovod", {"seconds": -0.1}, "seconds -0.1"),
    ("p1_horovod", {"began": INF}, "began inf"),
    ("p1_horovod", {"loss": INF}, "loss inf"),
    ("p1_horovod", {"phase": "nap"}, "phase nap: phases are"),
    ("p1_horovod", {"phase": "train"}, "epoch 0: epochs begin with 1"),
    ("p1_horovod", {"epoch": 1}, "phase set-up, epoch 1"),
    ("p2_strategy", {"worker": 2}, "worker 2, workers 2"),
    ("p2_strategy", {"test_accuracy": 1.5}, "test_accuracy 1.5"),
    ("p2_strategy", {"execution": 4}, "steps begin with 1, other phases have 0"),
    ("scaling_fit", {"error": -1.5}, "error -1.5: must be at least -1"),
    ("scaling_fit", {"low": -INF}, "low -inf: is not a finite number"),
    ("scaling_fit", {"predicted": -1.0}, "predicted -1.0"),
    ("p3_crosscheck", {"value": -1}, "value -1"),
]  # fmt: skip


@pytest.mark.parametrize("experiment", sorted(set(schemas.SCHEMAS) - {"p4_images"}))
def test_possible_rows(experiment: str) -> None:
    assert bounds.first_problem(pa.Table.from_pandas(rows(experiment), schemas.of(experiment)), experiment) is None


def test_each_experiment_has_a_key_in_each_version() -> None:
    assert set(bounds.KEYS) == set(schemas.SCHEMAS)
    for experiment, key in bounds.KEYS.items():
        assert set(key) <= set(schemas.of(experiment).names)


@pytest.mark.parametrize(("experiment", "change", "message"), CASES)
def test_impossible_rows(experiment: str, change: dict[str, Any], message: str, tmp_path: Path) -> None:
    good = rows(experiment)
    wrong = good.assign(**{name: [value, *good[name][1:]] for name, value in change.items()})
    origin = provenance(experiment, "x", {}, seed=0, device="cpu", started=datetime.now(UTC))
    kept = tmp_path / experiment / "x.refused.csv"
    with pytest.raises((RunError, parquet.SchemaError)) as written:
        parquet.write(wrong, origin, log="raw", results=tmp_path)
    assert message in str(written.value)
    if isinstance(written.value, RunError):  # else a value is missing, which the schema itself refuses
        assert f"its raw rows are in {kept}" in str(written.value)
        assert len(pd.read_csv(kept)) == len(wrong) and kept.with_suffix(".log").read_text() == "raw"
    assert parquet.runs(tmp_path) == []
    path = tmp_path / experiment / "x.parquet"
    path.parent.mkdir(exist_ok=True)
    columns = [pa.array(wrong[field.name].tolist(), field.type) for field in schemas.of(experiment)]
    table = pa.Table.from_arrays(columns, schema=schemas.of(experiment))
    pq.write_table(table.replace_schema_metadata({parquet.METADATA_KEY: origin.model_dump_json().encode()}), path)
    with pytest.raises(parquet.SchemaError) as read:
        parquet.read(experiment, tmp_path)
    assert message in str(read.value) and str(path) in str(read.value)
