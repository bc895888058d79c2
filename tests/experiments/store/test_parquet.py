"""The results store: what is written comes back whole, and bad files are named."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from experiments.store import parquet, schemas
from experiments.store.files import RESULTS
from experiments.store.provenance import provenance, run_id
from tests.stored_run import STARTED, counts, origin

pytestmark = pytest.mark.usefixtures("fixed_commit")


def epochs(dataset: str, run: int = 2) -> pd.DataFrame:
    """Rows of p4_cutout with every column filled by its type."""
    values: dict[str, Any] = {}
    for field in schemas.SCHEMAS["p4_cutout"]:
        values[field.name] = "x" if field.type == pa.string() else 1 if field.type == pa.int64() else 0.5
    return pd.DataFrame([values | {"dataset": dataset, "epochs_planned": run, "epoch": k + 1} for k in range(run)])


# ---- round trip ----------------------------------------------------------------------------------------------------


def test_round_trip(tmp_path: Path) -> None:
    made = origin()
    path = parquet.write(counts(7, 8), made, log="one\ntwo\n", results=tmp_path)
    assert path == tmp_path / "p3_crosscheck" / f"{made.run_id}.parquet"
    assert path.with_suffix(".log").read_text() == "one\ntwo\n"
    read = parquet.read("p3_crosscheck", tmp_path)
    assert read["value"].tolist() == [7, 8]
    assert read["layers"].isna().all() and read["kernel"].tolist() == [3, 3]
    assert set(read["run_id"]) == {made.run_id} and set(read["kind"]) == {"measured"}
    assert set(read["device"]) == {"cpu"} and set(read["seed"]) == {0}
    assert [(run.path, run.provenance, run.rows) for run in parquet.runs(tmp_path)] == [(path, made, 2)]


def test_units_and_meanings_travel_in_the_file(tmp_path: Path) -> None:
    schema = pq.read_schema(parquet.write(counts(1), origin(), results=tmp_path))
    assert schema.field("value").metadata[b"unit"] == b"count"
    for field in schema:
        assert field.metadata[b"unit"] and field.metadata[b"doc"]


def test_every_column_of_every_schema_has_a_unit_and_a_meaning() -> None:
    for schema in schemas.SCHEMAS.values():
        for field in schema:
            assert field.metadata[b"unit"] and field.metadata[b"doc"]


def test_columns_may_come_in_any_order(tmp_path: Path) -> None:
    frame = counts(5)
    parquet.write(frame[frame.columns[::-1]], origin(), results=tmp_path)
    assert parquet.read("p3_crosscheck", tmp_path)["value"].tolist() == [5]


def test_running_again_replaces_and_another_configuration_adds(tmp_path: Path) -> None:
    parquet.write(counts(1, 2, 3), origin(), results=tmp_path)
    parquet.write(counts(4), origin(started=datetime.now(UTC), git_commit="f" * 40), results=tmp_path)
    assert parquet.read("p3_crosscheck", tmp_path)["value"].tolist() == [4]
    parquet.write(counts(5), origin({"nets": ["VGG"]}), results=tmp_path)
    assert sorted(parquet.read("p3_crosscheck", tmp_path)["value"]) == [4, 5]
    assert len(parquet.runs(tmp_path)) == 2


def test_without_results_the_frame_is_empty_but_has_all_columns(tmp_path: Path) -> None:
    read = parquet.read("p4_cutout", tmp_path)
    assert read.empty
    assert set(schemas.SCHEMAS["p4_cutout"].names) < set(read.columns)
    assert {"run_id", "kind", "device", "started"} < set(read.columns)
    assert parquet.runs(tmp_path) == []


def test_empty_and_full_frames_have_the_same_columns(tmp_path: Path) -> None:
    empty = parquet.read("p3_crosscheck", tmp_path)
    parquet.write(counts(1), origin(), results=tmp_path)
    assert list(parquet.read("p3_crosscheck", tmp_path).columns) == list(empty.columns)


def test_projected_runs_can_be_told_from_measured_ones(tmp_path: Path) -> None:
    parquet.write(counts(1), origin(), results=tmp_path)
    parquet.write(counts(2), origin({"nodes": 8}, kind="projected"), results=tmp_path)
    read = parquet.read("p3_crosscheck", tmp_path)
    assert dict(zip(read["value"], read["kind"], strict=True)) == {1: "measured", 2: "projected"}


def test_synthetic_data_can_be_told_from_cifar10(tmp_path: Path) -> None:
    for dataset in ("cifar10", "synthetic"):
        config = {"dataset": dataset, "M": 1}
        run = run_id("m1", config)
        made = provenance("p4_cutout", run, config, seed=0, device="cpu", started=STARTED)
        parquet.write(epochs(dataset), made, results=tmp_path)
    read = parquet.read("p4_cutout", tmp_path)
    assert read.groupby("dataset")["run_id"].nunique().to_dict() == {"cifar10": 1, "synthetic": 1}
    assert not schemas.SCHEMAS["p4_cutout"].field("dataset").nullable


# ---- what does not fit is not written ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda f: f.drop(columns="value"), "missing or unknown columns: value"),
        (lambda f: f.assign(extra=1), "missing or unknown columns: extra"),
        (lambda f: f.assign(value="many"), "rows do not fit the schema"),
        (lambda f: f.assign(value=1.5), "rows do not fit the schema"),
        (lambda f: f.assign(value=float("nan")), "rows do not fit the schema"),
        (lambda f: f.assign(value=None), "rows do not fit the schema"),
        (lambda f: f.assign(net=None), "rows do not fit the schema"),
        (lambda f: f.assign(net=3), "rows do not fit the schema"),
        (lambda f: f.assign(value=2**64), "rows do not fit the schema"),
        (lambda f: f.iloc[:0], "must have rows"),
    ],
)
def test_rows_that_break_the_schema(tmp_path: Path, change: Callable[[pd.DataFrame], pd.DataFrame], match: str) -> None:
    made = origin()
    with pytest.raises(parquet.SchemaError, match=match) as caught:
        parquet.write(change(counts(1)), made, results=tmp_path)
    assert made.run_id in str(caught.value)
    assert not list(tmp_path.rglob("*.parquet"))


def test_float_columns_refuse_nan_in_a_measurement(tmp_path: Path) -> None:
    """A loss that became NaN must not turn into an empty cell."""
    made = provenance("p4_cutout", "m1-x", {}, seed=0, device="cpu", started=STARTED)
    with pytest.raises(parquet.SchemaError, match="train_loss"):
        parquet.write(epochs("cifar10").assign(train_loss=float("nan")), made, results=tmp_path)


def test_unknown_experiments(tmp_path: Path) -> None:
    made = origin(experiment="p9_unknown")
    with pytest.raises(parquet.SchemaError, match="no schema for experiment 'p9_unknown'"):
        parquet.write(counts(1), made, results=tmp_path)
    with pytest.raises(parquet.SchemaError, match="no schema for experiment 'p9_unknown'"):
        parquet.read("p9_unknown", tmp_path)


# ---- bad files stop with their name --------------------------------------------------------------------------------


def stopped(path: Path, match: str) -> None:
    for reading in (lambda: parquet.read("p3_crosscheck", path.parents[1]), lambda: parquet.runs(path.parents[1])):
        with pytest.raises(parquet.SchemaError, match=match) as caught:
            reading()
        assert str(path) in str(caught.value)


def rewritten(path: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    """The file as one from before digests, with a change."""
    table = pq.read_table(path)
    metadata = {parquet.METADATA_KEY: table.schema.metadata[parquet.METADATA_KEY]}
    pq.write_table(change(table.replace_schema_metadata(metadata)), path)


def with_origin(table: pa.Table, **changes: Any) -> pa.Table:
    kept = json.loads(table.schema.metadata[parquet.METADATA_KEY])
    return table.replace_schema_metadata({parquet.METADATA_KEY: json.dumps(kept | changes).encode()})


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    return parquet.write(counts(*range(50)), origin(), results=tmp_path)


@pytest.mark.parametrize("kept", [0.0, 0.05, 0.5, 0.99])
def test_truncated_files(stored: Path, kept: float) -> None:
    content = stored.read_bytes()
    stored.write_bytes(content[: int(kept * len(content))])
    stopped(stored, "cannot be read")


def test_files_of_another_kind(stored: Path) -> None:
    stored.write_bytes(b"PAR1 this is not parquet PAR1")
    stopped(stored, "cannot be read")
    stored.unlink()
    stored.mkdir()
    stopped(stored, "cannot be read|no provenance")


def test_no_flipped_bit_reads_as_another_number_or_origin(stored: Path) -> None:
    """Damage is either found, with the file's name, or was in bytes that say nothing, such as statistics."""
    content = stored.read_bytes()
    rows, run = parquet.read("p3_crosscheck", stored.parents[1]), parquet.run(stored)
    found, bits = 0, range(0, 8 * len(content), max(1, 8 * len(content) // 600))
    for bit in bits:
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        stored.write_bytes(damaged)
        try:
            read, known = parquet.read("p3_crosscheck", stored.parents[1]), parquet.run(stored)
        except parquet.SchemaError as error:
            assert str(stored) in str(error)
            found += 1
        else:
            pd.testing.assert_frame_equal(read, rows)
            assert known == run
    assert found > len(bits) / 2


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda t: t.drop_columns(["value"]), "columns or types break the schema"),
        (lambda t: t.append_column("more", t["value"]), "columns or types break the schema"),
        (lambda t: t.set_column(3, "value", t["value"].cast(pa.float64())), "columns or types break the schema"),
        (lambda t: t.select(t.column_names[::-1]), "columns or types break the schema"),
        (lambda t: t.replace_schema_metadata(None), "has no provenance"),
        (lambda t: t.replace_schema_metadata({parquet.METADATA_KEY: b"{"}), "cannot be read"),
        (lambda t: t.replace_schema_metadata({parquet.METADATA_KEY: b"{}"}), "cannot be read"),
        (lambda t: with_origin(t, git_commit="main"), "cannot be read"),
        (lambda t: with_origin(t, host_cores=0), "cannot be read"),
        (lambda t: with_origin(t, kind="guessed"), "cannot be read"),
        (lambda t: with_origin(t, more=1), "cannot be read"),
        (lambda t: with_origin(t, run_id="../x"), "cannot be read"),
        (lambda t: with_origin(t, allocation="<b>"), "cannot be read"),
        (lambda t: with_origin(t, run_id="another"), "names another run"),
        (lambda t: with_origin(t, experiment="p4_cutout"), "names another run"),
        (lambda t: t.slice(0, 0), "has no rows"),
    ],
)
def test_files_that_break_the_schema(stored: Path, change: Callable[[pa.Table], pa.Table], match: str) -> None:
    rewritten(stored, change)
    stopped(stored, match)


def test_the_rewriting_itself_is_harmless(stored: Path) -> None:
    """So that the test above can fail for nothing but its change."""
    rewritten(stored, with_origin)
    assert len(parquet.read("p3_crosscheck", stored.parents[1])) == 50


def test_empty_cells_in_required_columns(stored: Path) -> None:
    field = schemas.SCHEMAS["p3_crosscheck"].field("value").with_nullable(True)
    rewritten(stored, lambda t: t.set_column(3, field, pa.array([None] * 50, pa.int64())))
    stopped(stored, "columns or types break the schema")


def test_a_renamed_file_is_not_taken_for_another_run(stored: Path) -> None:
    other = stored.rename(stored.with_name("other.parquet"))
    stopped(other, "names another run")


def test_results_of_an_unknown_experiment(tmp_path: Path, stored: Path) -> None:
    folder = tmp_path / "p9_unknown"
    folder.mkdir()
    (folder / stored.name).write_bytes(stored.read_bytes())
    with pytest.raises(parquet.SchemaError, match=r"p9_unknown.*no schema"):
        parquet.runs(tmp_path)


# ---- what is committed ---------------------------------------------------------------------------------------------


def test_committed_results_read_cleanly() -> None:
    found = parquet.runs()
    assert len(found) == len(list(RESULTS.rglob("*.parquet")))
    for run in found:
        assert run.provenance.started < run.provenance.ended
        assert run.provenance.sources and run.provenance.command.startswith("python ")
        assert run.provenance.run_id.endswith(run_id("", run.provenance.config, run.provenance.settings))
    for experiment in sorted({run.provenance.experiment for run in found}):
        versions = range(1, schemas.version(experiment) + 1)
        frame = pd.concat([parquet.read(experiment, version=version) for version in versions])
        assert len(frame) == sum(run.rows for run in found if run.provenance.experiment == experiment)


def test_committed_cutout_runs_are_of_real_data() -> None:
    frame = parquet.read("p4_cutout")
    assert set(frame["dataset"]) <= {"cifar10"}
    for _, run in frame.groupby("run_id"):
        assert run["epoch"].tolist() == list(range(1, len(run) + 1))
        assert run["val_error"].between(0, 1).all()


def test_a_file_that_begins_with_a_dot_is_no_run(tmp_path: Path) -> None:
    path = parquet.write(counts(1), origin(), results=tmp_path)
    (path.parent / f"._{path.name}").write_bytes(b"a file manager's")
    assert [run.path for run in parquet.runs(tmp_path)] == [path]
    assert len(parquet.read("p3_crosscheck", tmp_path)) == 1 and len(parquet.origins("p3_crosscheck", tmp_path)) == 1
