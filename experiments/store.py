"""The results store: one tidy parquet file per run, the one schema module that writer and reader share.

`results/<experiment>/<run-id>.parquet` holds the measurement rows; the file's metadata holds the run's
`Provenance`; `<run-id>.log` beside it holds the raw log. Files are written whole or not at all.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from glob import escape
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from experiments import allocation, ledger, schemas, settings, usage
from experiments.ledger import file_hash
from experiments.usage import UsageError

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "results"
METADATA_KEY = b"dlperf"
GPU_LIBRARY = re.compile(r"lib(cublas|cudart|cudnn|nccl)\.so\.")
# The project's modules that every script loads and that no number depends on.
NO_NUMBERS = {
    Path(str(m.__file__)).resolve() for m in (sys.modules[__name__], allocation, ledger, schemas, settings, usage)
}


class SchemaError(UsageError):
    """A results file is corrupt or breaks its schema; the message names the file."""


class CommitError(UsageError, RuntimeError):
    """The code's commit can't be told; a RuntimeError as well, which is what earlier scripts expect."""


class Provenance(BaseModel):
    """Where a run's numbers come from. Times are UTC, ISO 8601."""

    model_config = ConfigDict(extra="forbid")

    experiment: str
    run_id: str
    kind: Literal["measured", "projected"]
    config: dict[str, Any]
    seed: int | None
    git_commit: str = Field(pattern=r"^[0-9a-f]{40}$")
    git_dirty: bool
    sources: dict[str, str]  # path from the project root -> SHA-256 of its text
    source_hash: str
    command: str
    started: datetime
    ended: datetime
    host_kind: str
    host_cpu: str
    host_cores: int = Field(ge=1)
    device: str
    device_count: int = Field(ge=1)
    versions: dict[str, str]
    schema_version: int = Field(1, ge=1)  # of the rows; files that don't say have the first
    allocation: str = ""  # one host, one boot, one go; earlier runs don't know theirs (`where`)
    settings: dict[str, str] = {}  # of the environment and of configuration files that libraries read

    @property
    def where(self) -> str:
        """The run's allocation: its own, or what the table of earlier ones says; empty where neither knows."""
        return self.allocation or allocation.of_earlier(self.host_cpu, self.host_cores, self.started)

    def changes(self, root: Path = ROOT) -> dict[str, list[str]]:
        """The sources that have changed, moved, or are gone since the run; with each why the run's numbers stay as they
        are, the reasons of all changes on the way to what the source is now, or none where that isn't known."""
        # Early runs list sources that no number depends on.
        numbers = {path: digest for path, digest in sorted(self.sources.items()) if ROOT / path not in NO_NUMBERS}
        changed = {path: digest for path, digest in numbers.items() if file_hash(root / path) != digest}
        return {path: ledger.reasons(path, digest, root) for path, digest in changed.items()}

    def stale(self, root: Path = ROOT) -> list[str]:
        """The sources that have changed since the run so that its numbers might be others."""
        return [path for path, reasons in self.changes(root).items() if not reasons]


@dataclass(frozen=True)
class Run:
    """One stored run: its file, provenance and number of rows."""

    path: Path
    provenance: Provenance
    rows: int


def loaded_sources() -> dict[str, str]:
    """Hashes of the project's own sources that this process runs: what could have changed the numbers.

    Those are its loaded modules and any file that a module names as its SOURCE, such as kernels in another language.
    """
    named = [getattr(m, name, None) for m in list(sys.modules.values()) for name in ("__file__", "SOURCE")]
    files = {Path(f).resolve() for f in named if isinstance(f, str | Path)} - NO_NUMBERS
    own = [f for f in files if f.is_relative_to(ROOT) and f.name != "__init__.py"]
    kept = [f for f in own if f.relative_to(ROOT).parts[0] in {"experiments", "derivations", "benchmarks"}]
    return {f.relative_to(ROOT).as_posix(): file_hash(f) for f in sorted(kept)}


def git_state() -> tuple[str, bool]:
    """Commit and dirty flag; a copy without .git takes them from DLPERF_COMMIT=<40 hex digits>[-dirty].

    Raises CommitError when they can't be told, so ask before a long run. Results are left out of the dirty flag, as
    writing one run must not mark the next one dirty.
    """
    given = os.environ.get("DLPERF_COMMIT")
    if given:
        if not re.fullmatch(r"[0-9a-f]{40}(-dirty)?", given):
            raise CommitError(f"DLPERF_COMMIT must be a commit of 40 hex digits, then maybe -dirty, not {given!r}")
        return given.removesuffix("-dirty"), given.endswith("-dirty")

    def git(*args: str) -> str:
        return subprocess.run(["git", *args], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--", ".", ":!results"))
    except (OSError, subprocess.CalledProcessError) as error:
        raise CommitError(
            "cannot tell the git commit: run inside a git checkout, or set DLPERF_COMMIT=<commit>[-dirty]"
        ) from error


@dataclass(frozen=True)
class Code:
    """The code that a run's numbers come from; taken at the run's start, as files may be edited while it runs."""

    commit: str
    dirty: bool
    sources: dict[str, str]  # path from the project root -> SHA-256 of its text

    @classmethod
    def now(cls) -> Code:
        """The code as it is; import what the run needs before. Raises CommitError as `git_state` does."""
        return cls(*git_state(), loaded_sources())


def cpu_name() -> str:
    """The processor's name as the system gives it."""
    info = Path("/proc/cpuinfo")
    names = [line for line in info.read_text().splitlines() if line.startswith("model name")] if info.exists() else []
    return names[0].split(":", 1)[1].strip() if names else platform.processor() or platform.machine()


def short_name(device: str) -> str:
    """A device's name for a table: `Intel(R) Xeon(R) Processor` is an Intel Xeon."""
    return device.replace("(R)", "").removesuffix(" Processor").removesuffix(" 80GB HBM3")


def library_versions(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Versions of Python, and of the libraries that matter to numbers and are loaded."""
    found = {"python": platform.python_version()}
    for name in ("numpy", "torch", "triton", "tensorflow", "keras", "horovod", "fvcore"):
        if name in sys.modules:
            module = sys.modules[name]
            found[name] = str(getattr(module, "__version__", None) or importlib.metadata.version(name))
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        found["cuda"] = str(torch.version.cuda)
        found["cudnn"] = str(torch.backends.cudnn.version())
        found["nccl"] = ".".join(map(str, torch.cuda.nccl.version()))
    tensorflow = sys.modules.get("tensorflow")
    if tensorflow is not None and tensorflow.config.get_visible_devices("GPU"):
        # It may run with libraries of another CUDA than it was built for.
        found["tensorflow's cuda build"] = str(tensorflow.sysconfig.get_build_info().get("cuda_version"))
        mapped = {Path(line.split()[-1]).name for line in Path("/proc/self/maps").read_text().splitlines()}
        found |= {name.partition(".so")[0]: name for name in sorted(mapped) if GPU_LIBRARY.match(name)}
    return found | dict(extra or {})


def run_id(slug: str, config: Mapping[str, Any], given: Mapping[str, str] | None = None) -> str:
    """A readable name that depends on the configuration, so that running again replaces the file.

    Settings of the environment or of libraries' files (those now, or the ones `given`) that can change a number count
    as configuration.
    """
    others = settings.identity(settings.recorded() if given is None else given)
    digest = hashlib.sha256(json.dumps({**config, **({"settings": others} if others else {})}, sort_keys=True).encode())
    return f"{slug}-{digest.hexdigest()[:8]}"


def timed_id(slug: str, config: Mapping[str, Any]) -> str:
    """The name of a run whose times matter: as `run_id`, but runs of several allocations stand beside each other."""
    return run_id(f"{slug}-{allocation.current()}", config)


def provenance(
    experiment: str,
    run: str,
    config: dict[str, Any],
    *,
    seed: int | None,
    device: str,
    device_count: int = 1,
    started: datetime,
    code: Code | None = None,
    kind: Literal["measured", "projected"] = "measured",
    versions: Mapping[str, str] | None = None,
) -> Provenance:
    """Collect the provenance of a run that ends now, of the `code` that it started with (default: as it is now).

    Raises CommitError when the git commit can't be told.
    """
    code = code or Code.now()
    sources = loaded_sources() | code.sources  # a module that was imported later is there as it is now
    return Provenance(
        experiment=experiment,
        run_id=run,
        kind=kind,
        config=config,
        seed=seed,
        git_commit=code.commit,
        git_dirty=code.dirty,
        sources=sources,
        source_hash=hashlib.sha256(json.dumps(sources, sort_keys=True).encode()).hexdigest(),
        command=shlex.join(["python", *sys.orig_argv[1:]]),
        started=started,
        ended=datetime.now(UTC),
        host_kind=f"{platform.system()} {platform.machine()}",
        host_cpu=cpu_name(),
        host_cores=len(os.sched_getaffinity(0)),
        device=device,
        device_count=device_count,
        versions=library_versions(versions),
        schema_version=schemas.version(experiment) if experiment in schemas.SCHEMAS else 1,
        allocation=allocation.current(),
        settings=settings.recorded(),
    )


def write_atomically(path: Path, data: bytes) -> None:
    """Write the whole file or leave what was there."""
    write_together({path: data})


def write_together(files: Mapping[Path, bytes]) -> None:
    """Write whole files, all or none: temporary files, fsync, and only then renames, fsync of the folders."""
    temporary = {path: path.with_name(f".{path.name}.{os.getpid()}.tmp") for path in files}
    try:
        for path, data in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            _remove_leftovers(path)
            with temporary[path].open("wb") as f:
                f.write(data)
                f.flush()
                os.fsync(f.fileno())
        for path in files:
            temporary[path].replace(path)
    finally:
        for left in temporary.values():
            left.unlink(missing_ok=True)
    for parent in {path.parent for path in files}:
        folder = os.open(parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _remove_leftovers(path: Path) -> None:
    """Remove the temporary files of writers of this path that were killed."""
    for left in path.parent.glob(f".{escape(path.name)}.*.tmp"):
        writer = left.name.split(".")[-2]
        if writer.isdecimal() and not _alive(int(writer)):
            left.unlink(missing_ok=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # another user's
        pass
    return True


def check_writable(folder: Path) -> None:
    """Make the folder and try to write there, before long work. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as f:
        f.write(b"x")


def path_of(experiment: str, run: str, results: Path = RESULTS) -> Path:
    """Where a run is stored."""
    return results / experiment / f"{run}.parquet"


def write(frame: pd.DataFrame, origin: Provenance, *, log: str | None = None, results: Path = RESULTS) -> Path:
    """Validate a run's rows and write them with their provenance, replacing an earlier run of the same id.

    Raises SchemaError when the rows do not fit the experiment's schema.
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
    table = table.replace_schema_metadata({METADATA_KEY: origin.model_dump_json().encode()})
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer, compression="zstd")
    files = {path: buffer.getvalue().to_pybytes()}
    write_together(files if log is None else files | {path.with_suffix(".log"): log.encode()})
    return path


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


def _load(path: Path) -> tuple[pa.Table, Provenance]:
    """Read and validate one file; SchemaError names it."""
    _schema(path.parent.name, path)  # an unknown experiment is the first thing to say
    try:
        table = pq.read_table(path, partitioning=None)
        origin = Provenance.model_validate_json((table.schema.metadata or {})[METADATA_KEY])
    except KeyError:
        raise SchemaError(f"{path}: has no provenance; remove it or run the experiment again") from None
    except (pa.ArrowException, OSError, ValidationError) as error:
        raise SchemaError(f"{path}: cannot be read ({error}); remove it or run the experiment again") from error
    if not table.schema.equals(_schema(path.parent.name, path, origin.schema_version)):
        raise SchemaError(f"{path}: columns or types break the schema of '{path.parent.name}'; run it again")
    if (origin.experiment, origin.run_id) != (path.parent.name, path.stem):
        raise SchemaError(f"{path}: its provenance names another run, {origin.experiment}/{origin.run_id}")
    if not table.num_rows:
        raise SchemaError(f"{path}: has no rows")
    try:
        _check_nulls(table)
    except ValueError as error:
        raise SchemaError(f"{path}: {error}") from error
    return table, origin


def origins(experiment: str, results: Path = RESULTS) -> list[Provenance]:
    """The provenance of an experiment's runs, from the files' footers alone; files that can't be read are left out."""
    found = []
    for path in sorted((results / experiment).glob("*.parquet")):
        with contextlib.suppress(KeyError, pa.ArrowException, OSError, ValidationError):
            found.append(Provenance.model_validate_json((pq.read_schema(path).metadata or {})[METADATA_KEY]))
    return found


def run(path: Path) -> Run:
    """The stored run of one file. Raises SchemaError on a bad one, or none."""
    table, origin = _load(path)
    return Run(path, origin, table.num_rows)


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
    """All stored runs, ordered by experiment and run id. Raises SchemaError on a bad file."""
    return [run(path) for path in sorted(results.glob("*/*.parquet"))]


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
]


def read(experiment: str, results: Path = RESULTS, version: int | None = None) -> pd.DataFrame:
    """The runs of an experiment whose rows have a version (default: the newest), as one frame.

    Adds to the schema's columns each row's provenance (ORIGIN). Without results the frame is empty but has all columns.
    Raises SchemaError on a bad file.
    """
    wanted = _schema(experiment, results / experiment, version)
    frames = []
    for path in sorted((results / experiment).glob("*.parquet")):
        table, origin = _load(path)
        if table.schema.equals(wanted):
            outside = json.dumps(settings.identity(origin.settings), sort_keys=True)
            derived = {"allocation": origin.where, "environment": outside}
            known = {name: derived[name] if name in derived else getattr(origin, name) for name in ORIGIN}
            frames.append(table.to_pandas().assign(**known))
    if frames:
        return pd.concat(frames, ignore_index=True)
    return wanted.empty_table().to_pandas().reindex(columns=[*wanted.names, *ORIGIN])
