"""Damage that would read as good: digests within a run's file, and a manifest of all files in results/.

A run's file holds the digests of its provenance and of its rows. Files from before that have none: their SHA-256 is in
`results/manifest.sha256`, in the form of `sha256sum`, and reading one checks it. `make manifest` writes it.
"""

from __future__ import annotations

import functools
import hashlib
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from experiments.store.files import write_atomically

MANIFEST = "manifest.sha256"
KEPT = (".parquet", ".log")  # the files that it lists


def of_bytes(content: bytes) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(content).hexdigest()


def of_rows(table: pa.Table) -> str:
    """SHA-256 of the rows' values, column by column with name and type: the same however a file lays them out."""
    digest = hashlib.sha256()
    for name, column in zip(table.column_names, table.columns, strict=True):
        digest.update(f"{name} {column.type} {len(column)}\n".encode())
        if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
            digest.update(pc.fill_null(column, 0).to_numpy().tobytes())
            digest.update(pc.is_null(column).to_numpy().tobytes())
        else:
            values = column.to_pylist()
            plain = [value.hex() if isinstance(value, bytes) else value for value in values]
            digest.update(json.dumps(plain).encode())
    return digest.hexdigest()


def list_files(results: Path) -> dict[str, str]:
    """SHA-256 of each run's file and log, by its path from the results folder."""
    found = sorted(path for path in results.glob("*/*") if path.suffix in KEPT and not path.name.startswith("."))
    return {path.relative_to(results).as_posix(): of_bytes(path.read_bytes()) for path in found}


def write_manifest(results: Path) -> int:
    """List the files as they are now; their number."""
    listed = list_files(results)
    write_atomically(results / MANIFEST, "".join(f"{digest}  {name}\n" for name, digest in listed.items()).encode())
    return len(listed)


def manifest(results: Path) -> dict[str, str]:
    """SHA-256 of the listed files, by path from the results folder; empty without a manifest."""
    path = results / MANIFEST
    return _parsed(path, path.stat().st_mtime_ns) if path.exists() else {}


@functools.cache
def _parsed(path: Path, changed: int) -> dict[str, str]:
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
