"""The results store: one tidy parquet file a run.

`results/<experiment>/<run-id>.parquet` holds the measurement rows; the file's metadata holds the run's
`Provenance` and digests of both; `<run-id>.log` beside it holds the raw log. Files are written whole or not at all.
"""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from experiments.cli import RunError, UsageError
from experiments.machine import settings
from experiments.store import bounds, checksums, schemas
from experiments.store.claims import claimed
from experiments.store.files import RESULTS, write_together
from experiments.store.provenance import Provenance

METADATA_KEY = b"dlperf"
DIGESTS_KEY = b"dlperf-sha256"  # of the provenance and of the rows

# What `read` adds to the schema's columns; `environment`: the settings of the host that can change a number, as JSON.
ORIGIN = [
    "run_id",
    "kind",
    "seed",
    "allocation",
    "device",
    "device_count",
    "host_cpu",
    "host_cores",
    "started",
    "ended",
    "environment",
    "throttled_periods",
]


class SchemaError(UsageError):
    """A results file is corrupt or breaks its schema; the message names the file."""


@dataclass(frozen=True)
class Run:
    """One stored run: its file, provenance and number of rows."""

    path: Path
    provenance: Provenance
    rows: int


def path_of(experiment: str, run: str, results: Path = RESULTS) -> Path:
    """Where a run is stored."""
    return results / experiment / f"{run}.parquet"


def write(frame: pd.DataFrame, origin: Provenance, *, log: str | None = None, results: Path = RESULTS) -> Path:
    """Validate a run's rows and write them with their provenance, replacing an earlier run of the same id.

    Raises SchemaError when the rows do not fit the experiment's schema, RunError, with the raw rows kept in a file
    beside, when a value can't be, and UsageError when another process has claimed the file.
    """
    path = path_of(origin.experiment, origin.run_id, results)
    schema = _schema(origin.experiment, path)
    if not len(frame):
        raise SchemaError(f"{path}: a run must have rows")
    if set(frame.columns) != set(schema.names):
        wrong = ", ".join(sorted(set(frame.columns) ^ set(schema.names)))
        raise SchemaError(f"{path}: missing or unknown columns: {wrong}")
    try:
        table = pa.Table.from_pandas(frame[schema.names], schema=schema, preserve_index=False)
        _check_nulls(table)
    except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
        raise SchemaError(f"{path}: rows do not fit the schema: {error}") from error
    if problem := bounds.first_problem(table, origin.experiment):
        refused = path.with_name(f"{path.stem}.refused.csv")
        raw = frame.to_csv(index=False).encode()
        write_together({refused: raw, refused.with_suffix(".log"): (log or "").encode()})
        found = f"row {problem[0] + 1}: {problem[1]}"
        raise RunError(f"{path.stem} is impossible: {found}; it was not stored, its raw rows are in {refused}")
    metadata = origin.model_dump_json().encode()
    digests = {"provenance": checksums.of_bytes(metadata), "rows": checksums.of_rows(table)}
    table = table.replace_schema_metadata({METADATA_KEY: metadata, DIGESTS_KEY: json.dumps(digests).encode()})
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer, compression="zstd", write_page_checksum=True)
    made = {path: buffer.getvalue().to_pybytes()}
    with claimed(path):
        write_together(made if log is None else made | {path.with_suffix(".log"): log.encode()})
    return path


def files(results: Path, experiment: str = "*") -> list[Path]:
    """The stored runs' files, in order. What begins with a dot is no run: file managers and macOS leave such behind."""
    return sorted(path for path in results.glob(f"{experiment}/*.parquet") if not path.name.startswith("."))


def _schema(experiment: str, path: Path, version: int | None = None) -> pa.Schema:
    if experiment not in schemas.SCHEMAS:
        known = ", ".join(sorted(schemas.SCHEMAS))
        raise SchemaError(f"{path}: no schema for experiment '{experiment}'; known: {known}")
    try:
        return schemas.of(experiment, version)
    except KeyError:
        newest = schemas.version(experiment)
        raise SchemaError(f"{path}: rows of version {version}, this code knows 1 to {newest}; update it") from None


def _check_nulls(table: pa.Table) -> None:
    for field in table.schema:
        if not field.nullable and table[field.name].null_count:
            raise ValueError(f"column '{field.name}' has empty values")


@dataclass(frozen=True)
class _Opened:
    """A file whose footer was read and validated; `digest` of its rows, where it has one."""

    run: Run
    file: pq.ParquetFile
    digest: str | None

    def rows(self) -> pa.Table:
        """Its rows. Raises SchemaError, which names it."""
        path = self.run.path
        try:
            table = self.file.read()
            _check_nulls(table)
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise _unreadable(path, error) from error
        except ValueError as error:
            raise SchemaError(f"{path}: {error}") from error
        if self.digest is not None and checksums.of_rows(table) != self.digest:
            raise _damaged(path, "rows are not what was written")
        if problem := bounds.first_problem(table, path.parent.name):
            raise SchemaError(f"{path}: row {problem[0] + 1}: {problem[1]}; run it again")
        return table

    def frame(self) -> pd.DataFrame:
        """Its rows with their provenance, ORIGIN. Raises SchemaError."""
        origin = self.run.provenance
        outside = json.dumps(settings.identity(origin.settings), sort_keys=True)
        derived = {"allocation": origin.where, "environment": outside}
        known = {name: derived[name] if name in derived else getattr(origin, name) for name in ORIGIN}
        frame = self.rows().to_pandas()
        return pd.concat([frame, pd.DataFrame(known, index=frame.index)], axis="columns")  # much faster than assign


def _unreadable(path: Path, error: object) -> SchemaError:
    return SchemaError(f"{path}: cannot be read ({error}); remove it or run the experiment again")


def _damaged(path: Path, what: str) -> SchemaError:
    return SchemaError(f"{path}: is damaged, its {what}; restore it or run the experiment again")


def _open(path: Path) -> _Opened:
    """A file and its run, by its footer. Raises SchemaError, which names it."""
    _schema(path.parent.name, path)  # an unknown experiment is the first thing to say
    try:
        content = path.read_bytes()
        file = pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True)
        metadata = file.schema_arrow.metadata or {}
        origin = Provenance.model_validate_json(metadata[METADATA_KEY])
        digests = json.loads(metadata[DIGESTS_KEY]) if DIGESTS_KEY in metadata else {}
        kept, of_rows = (digests["provenance"], digests["rows"]) if digests else (None, None)
    except KeyError:
        raise SchemaError(f"{path}: has no provenance; remove it or run the experiment again") from None
    except (pa.ArrowException, OSError, ValueError, TypeError, ValidationError) as error:
        raise _unreadable(path, error) from error
    if kept is not None and checksums.of_bytes(metadata[METADATA_KEY]) != kept:
        raise _damaged(path, "provenance is not what was written")
    listed = checksums.manifest(path.parents[1]).get(f"{path.parent.name}/{path.name}")
    if kept is None and listed not in (None, checksums.of_bytes(content)):
        raise _damaged(path, f"SHA-256 is not the one in {checksums.MANIFEST} (after a new run: make manifest)")
    if not file.schema_arrow.equals(_schema(path.parent.name, path, origin.schema_version)):
        raise SchemaError(f"{path}: columns or types break the schema of '{path.parent.name}'; run it again")
    if (origin.experiment, origin.run_id) != (path.parent.name, path.stem):
        raise SchemaError(f"{path}: its provenance names another run, {origin.experiment}/{origin.run_id}")
    if not file.metadata.num_rows:
        raise SchemaError(f"{path}: has no rows")
    return _Opened(Run(path, origin, file.metadata.num_rows), file, of_rows)


def origins(experiment: str = "*", results: Path = RESULTS) -> list[Provenance]:
    """The provenance of an experiment's runs, or of all, from the files' footers alone; files that can't be read are
    left out."""
    found = []
    for path in files(results, experiment):
        with contextlib.suppress(KeyError, pa.ArrowException, OSError, UnicodeDecodeError, ValidationError):
            found.append(Provenance.model_validate_json((pq.read_schema(path).metadata or {})[METADATA_KEY]))
    return found


def run(path: Path) -> Run:
    """The stored run of one file, by its footer. Raises SchemaError on a bad one, or none."""
    return _open(path).run


def finished(path: Path, config: Mapping[str, Any]) -> bool:
    """Whether a file holds the run with this very configuration, made by the sources as they are now.

    The file's name holds the rest: settings of the host, and for timed runs the allocation.
    """
    try:
        stored = run(path)
    except SchemaError:  # none, or one to be replaced
        return False
    return stored.provenance.config == json.loads(json.dumps(config)) and not stored.provenance.stale()


def runs(results: Path = RESULTS) -> list[Run]:
    """All stored runs, by their files' footers, ordered by experiment and run id. Raises SchemaError on a bad one."""
    return [run(path) for path in files(results)]


def read(experiment: str, results: Path = RESULTS, version: int | None = None) -> pd.DataFrame:
    """The runs of an experiment whose rows have a version (default: the newest), as one frame.

    Adds to the schema's columns each row's provenance (ORIGIN). Without results the frame is empty but has all columns.
    Raises SchemaError on a bad file.
    """
    wanted = _schema(experiment, results / experiment, version)
    return _joined(wanted, tuple((path, _written(path)) for path in files(results, experiment))).copy()


@functools.lru_cache(maxsize=32)
def _joined(wanted: pa.Schema, stored: tuple[tuple[Path, tuple[int, int]], ...]) -> pd.DataFrame:
    """The rows of the files that have a schema; joined once as long as the files stay as they are."""
    found = [_read_once(path, written) for path, written in stored]
    frames = [frame for _, schema, frame in found if schema.equals(wanted)]
    if frames:
        return pd.concat(frames, ignore_index=True)
    return wanted.empty_table().to_pandas().reindex(columns=[*wanted.names, *ORIGIN])


def read_run(path: Path) -> tuple[Run, pd.DataFrame]:
    """One stored run and its rows, as `read` gives them. Raises SchemaError."""
    found, _, frame = _read_once(path, _written(path))
    return found, frame.copy()


def _written(path: Path) -> tuple[int, int]:
    """What changes with a file: what was read of it holds as long as this stays."""
    status = path.stat()
    return status.st_mtime_ns, status.st_size


@functools.cache
def _read_once(path: Path, written: tuple[int, int]) -> tuple[Run, pa.Schema, pd.DataFrame]:
    """A file's run, schema, and rows with their provenance."""
    opened = _open(path)
    return opened.run, opened.file.schema_arrow, opened.frame()
