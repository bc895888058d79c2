"""Files from before digests are held against the manifest; newer ones against their own digests."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from experiments.store import checksums, parquet
from tests.stored_run import counts, origin

pytestmark = pytest.mark.usefixtures("fixed_commit")


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    return parquet.write(counts(1, 2), origin(), log="a log\n", results=tmp_path)


def as_earlier(path: Path, value: int) -> None:
    """The run as a script from before digests would have written it, with a value of its first row."""
    table = pq.read_table(path)
    values = pa.array([value, 2], pa.int64())
    table = table.set_column(table.column_names.index("value"), table.schema.field("value"), values)
    metadata = {parquet.METADATA_KEY: table.schema.metadata[parquet.METADATA_KEY]}
    pq.write_table(table.replace_schema_metadata(metadata), path)


def test_a_digest_depends_on_the_values_alone() -> None:
    schema = pa.schema([pa.field("a", pa.float64()), pa.field("b", pa.string()), pa.field("c", pa.binary())])
    rows = {"a": [0.1, None, 2.0], "b": ["x", None, "z"], "c": [b"\xff", b"", b"1"]}
    table = pa.table(rows, schema=schema)
    digest = checksums.of_rows(table)
    assert checksums.of_rows(pa.concat_tables([table.slice(0, 1), table.slice(1)])) == digest
    for name, values in {"a": [0.1, 0.0, 2.0], "b": ["x", "", "z"], "c": [b"\xfe", b"", b"1"]}.items():
        assert checksums.of_rows(pa.table(rows | {name: values}, schema=schema)) != digest
    assert checksums.of_rows(table.rename_columns(["a", "b", "d"])) != digest


@pytest.mark.parametrize("what", ["rows", "provenance"])
def test_what_was_not_written_is_refused(stored: Path, what: str) -> None:
    table = pq.read_table(stored)
    metadata = dict(table.schema.metadata)
    if what == "rows":
        place = table.column_names.index("value")
        table = table.set_column(place, table.schema.field("value"), pa.array([1, 3], pa.int64()))
    else:
        metadata[parquet.METADATA_KEY] = metadata[parquet.METADATA_KEY].replace(b'"seed":0', b'"seed":1')
    pq.write_table(table.replace_schema_metadata(metadata), stored)
    with pytest.raises(parquet.SchemaError, match=rf"is damaged, its {what} .* not what was written"):
        parquet.read("p3_crosscheck", stored.parents[1])


def test_earlier_files_are_held_against_the_manifest(stored: Path) -> None:
    results = stored.parents[1]
    as_earlier(stored, 1)
    assert parquet.read("p3_crosscheck", results)["value"].tolist() == [1, 2]
    assert checksums.write_manifest(results) == 2
    assert parquet.read("p3_crosscheck", results)["value"].tolist() == [1, 2]
    as_earlier(stored, 7)
    with pytest.raises(parquet.SchemaError, match="SHA-256 is not the one in manifest"):
        parquet.run(stored)


def test_a_newer_run_replaces_a_listed_one(stored: Path) -> None:
    checksums.write_manifest(stored.parents[1])
    parquet.write(counts(5), origin(), results=stored.parents[1])
    assert parquet.read("p3_crosscheck", stored.parents[1])["value"].tolist() == [5]


def test_the_manifest_is_as_sha256sum_writes_it(stored: Path) -> None:
    results = stored.parents[1]
    checksums.write_manifest(results)
    done = subprocess.run(["sha256sum", "-c", checksums.MANIFEST], cwd=results, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.count(": OK") == 2
    log = hashlib.sha256(b"a log\n").hexdigest()
    assert checksums.manifest(results)[f"p3_crosscheck/{stored.stem}.log"] == log
    assert checksums.list_files(results) == checksums.manifest(results)
