"""Where a run's numbers come from: code, configuration, host and libraries; and whether sources have changed since."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from experiments.cli import UsageError
from experiments.machine import allocation, cpu_quota, settings
from experiments.machine.device_names import cpu_name
from experiments.store import ledger, schemas
from experiments.store.files import ROOT
from experiments.store.ledger import NO_NUMBERS, file_hash

GPU_LIBRARY = re.compile(r"lib(cublas|cudart|cudnn|nccl)\.so\.")

# What git tells its hooks, in which it would look at that repository and that index only.
OF_A_HOOK = {"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_COMMON_DIR", "GIT_NAMESPACE"}


class CommitError(UsageError, RuntimeError):
    """The code's commit can't be told; a RuntimeError as well, which is what earlier scripts expect."""


NAME = r"^[\w.+-]+$"  # of what becomes a file, a folder or an anchor


class Provenance(BaseModel):
    """Where a run's numbers come from. Times are UTC, ISO 8601."""

    model_config = ConfigDict(extra="forbid")

    experiment: str = Field(pattern=NAME)
    run_id: str = Field(pattern=NAME)
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
    allocation: str = Field(
        "", pattern=r"^[\w.-]*$"
    )  # one host, one boot, one go; earlier runs don't know theirs (`where`)
    cpu_quota: float | None = None  # cores' worth of time that control groups grant; None: all, or an earlier run
    throttled_periods: int | None = None  # in which the quota was used up, during the run; None: an earlier run
    settings: dict[str, str] = {}  # of the environment and of configuration files that libraries read

    @property
    def where(self) -> str:
        """The run's allocation: its own, or what the table of earlier ones says; empty where neither knows."""
        return self.allocation or allocation.of_earlier(self.host_cpu, self.host_cores, self.started)

    def changes(self, root: Path = ROOT) -> dict[str, list[str]]:
        """The sources that have changed, moved, or are gone since the run; with each why the run's numbers stay as they
        are, the reasons of all changes on the way to what the source is now, or none where that isn't known."""
        # Earlier runs list some that no number depends on.
        numbers = {path: digest for path, digest in sorted(self.sources.items()) if path not in NO_NUMBERS}
        changed = {path: digest for path, digest in numbers.items() if file_hash(root / path) != digest}
        return {path: ledger.reasons(path, digest, root) for path, digest in changed.items()}

    def stale(self, root: Path = ROOT) -> list[str]:
        """The sources that have changed since the run so that its numbers might be others."""
        return [path for path, reasons in self.changes(root).items() if not reasons]


def changes(origins: Iterable[Provenance], root: Path = ROOT) -> list[dict[str, list[str]]]:
    """Each run's `changes`, looked up once for all runs of the same sources."""
    known: dict[frozenset[tuple[str, str]], dict[str, list[str]]] = {}
    found = []
    for origin in origins:
        sources = frozenset(origin.sources.items())
        if sources not in known:
            known[sources] = origin.changes(root)
        found.append(known[sources])
    return found


def loaded_sources() -> dict[str, str]:
    """Hashes of the project's own sources that this process runs: what could have changed the numbers.

    Those are its loaded modules and any file that a module names as its SOURCE or among its HEADERS, such as kernels in
    another language.
    """
    modules = list(sys.modules.values())
    named = [getattr(m, name, None) for m in modules for name in ("__file__", "SOURCE")]
    named += [header for m in modules if isinstance(headers := getattr(m, "HEADERS", None), list) for header in headers]
    paths = {_recorded_path(f) for f in named if isinstance(f, str | Path)}
    return {path: file_hash(ROOT / path) for path in sorted(filter(None, paths))}


@functools.cache  # a process loads thousands of files, nearly all of them libraries'
def _recorded_path(file: str | Path) -> str | None:
    """The path from the project root of a source that a run records; None for any other file."""
    path = Path(file).resolve()
    if not path.is_relative_to(ROOT) or path.name == "__init__.py":
        return None
    own = path.relative_to(ROOT)
    recorded = own.parts[0] in {"experiments", "derivations"} and own.as_posix() not in NO_NUMBERS
    return own.as_posix() if recorded else None


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

    plain = {name: value for name, value in os.environ.items() if name not in OF_A_HOOK} | {"LC_ALL": "C"}

    def git(*args: str) -> str:
        done = subprocess.run(["git", *args], cwd=ROOT, env=plain, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    try:
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--", ".", ":!results"))
    except (OSError, subprocess.CalledProcessError) as error:
        said = error.stderr if isinstance(error, subprocess.CalledProcessError) else str(error)
        raise CommitError(
            f"unknown git commit ({_reason(said)}); correct that, or set DLPERF_COMMIT=<commit>[-dirty]"
        ) from error


def _reason(said: str) -> str:
    """Git's own reason, and the command that it recommends, on one line."""
    lines = [line.strip().removeprefix("fatal: ") for line in said.splitlines()]
    command = next((line for line in lines if line.startswith("git config --global --add safe.directory")), "")
    return ": ".join(filter(None, [next(filter(None, lines), "no reason given"), command]))


@dataclass(frozen=True)
class Code:
    """The code that a run's numbers come from; taken at the run's start, as files may be edited while it runs."""

    commit: str
    dirty: bool
    sources: dict[str, str]  # path from the project root -> SHA-256 of its text
    throttled: int = 0  # the control groups' throttled periods by then

    @classmethod
    def now(cls) -> Code:
        """The code as it is; import what the run needs before. Raises CommitError as `git_state` does."""
        return cls(*git_state(), loaded_sources(), cpu_quota.throttled())

    def and_sources(self, others: Mapping[str, str]) -> Code:
        """This code and what other processes of the job have loaded."""
        return replace(self, sources=self.sources | dict(others))


def library_versions(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Versions of Python, and of the libraries that matter to numbers and are loaded."""
    found = {"python": platform.python_version()}
    for name in ("numpy", "torch", "torchvision", "triton", "tensorflow", "keras", "horovod", "fvcore"):
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
        cpu_quota=cpu_quota.cores(),
        throttled_periods=cpu_quota.throttled() - code.throttled,
        settings=settings.recorded(),
    )
