"""What a machine can check of the stored runs: that files, rows, logs and provenance are of one piece.

`make verify` (tools/verify_results.py) prints it and the report's last chapter shows it, with what no check can know.
"""

from __future__ import annotations

import functools
import hashlib
import json
import subprocess
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from experiments.store import checksums, logs, parquet, plausible, suspicious
from experiments.store.files import RESULTS, ROOT
from experiments.store.ledger import NO_NUMBERS
from experiments.store.provenance import Provenance, changes, run_id

CHECKS = {
    "schema": "columns, types, bounds and keys of the rows; the digests within newer files",
    "hashes": "every file is in the manifest with its SHA-256, and every listed file is there",
    "provenance": "the name follows from configuration and settings; sources, versions and times fit each other; an "
    "allocation has one processor and one model of GPU",
    "ledger": "the sources of a run are those of its commit",
    "plausibility": "rates are images over seconds, time lines overlap nowhere and end together, sums are sums",
    "log": "what the scripts printed while they ran is what the rows say, to the last digit printed",
}
# What no check here can know.
UNKNOWABLE = (
    "whether a run took place at all: rows, log, provenance and manifest that were all made up alike pass",
    "numbers that no log has, such as a single step's time or what a second learner took",
    "the device of a run that is alone in its allocation and whose log doesn't name it",
    "whether the host did other work meanwhile, or its clock was wrong by a constant factor",
    "changes of a library without a change of its version",
)


@dataclass
class Verdict:
    """What was found: problems by run (or file) and check, of how many runs each check could say something, and which
    runs are suspicious, by experiment."""

    runs: int = 0
    problems: list[tuple[str, str, str]] = field(default_factory=list)  # run, check, what
    checked: Counter[str] = field(default_factory=Counter)
    suspicious: list[tuple[str, suspicious.Flag]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def note(self, run: str, check: str, problems: Iterator[str] | list[str]) -> None:
        """The check was made for a run, with these problems."""
        self.checked[check] += 1
        self.problems += [(run, check, what) for what in problems]


def verify(results: Path = RESULTS, *, root: Path = ROOT) -> Verdict:
    """Check all stored runs."""
    verdict, known = Verdict(), list[tuple[Provenance, pd.DataFrame]]()
    listed, files = checksums.manifest(results), checksums.list_files(results)
    for name in sorted(listed.keys() - files.keys()):
        verdict.problems.append((name, "hashes", "is listed in the manifest and not there"))
    for path in parquet.files(results):
        verdict.runs += 1
        name = f"{path.parent.name}/{path.stem}"
        verdict.note(name, "hashes", _hashes(path, listed, files))
        try:
            run, rows = parquet.read_run(path)
        except parquet.SchemaError as error:
            verdict.note(name, "schema", [str(error).removeprefix(f"{path}: ")])
            continue
        origin = run.provenance
        verdict.note(name, "schema", [])
        verdict.note(name, "provenance", _provenance(origin))
        verdict.note(name, "plausibility", plausible.implausible(rows, origin))
        if (at_commit := _sources_of(origin, root)) is not None:
            verdict.note(name, "ledger", at_commit)
        known.append((origin, rows))
    _allocations(verdict, [origin for origin, _ in known])
    _logs(verdict, known, results)
    unreadable = {run.partition("/")[0] for run, check, _ in verdict.problems if check == "schema"}
    for experiment in sorted({origin.experiment for origin, _ in known} - unreadable):
        verdict.suspicious += [(experiment, flag) for flag in suspicious.find(experiment, results)]
    stale = sum(not all(own.values()) for own in changes([origin for origin, _ in known], root))
    verdict.notes += [f"{stale} runs are stale: their sources have changed since, maybe with their numbers"] * bool(
        stale
    )
    return verdict


def _hashes(path: Path, listed: dict[str, str], files: dict[str, str]) -> Iterator[str]:
    for kept in (path, path.with_suffix(".log")):
        name = f"{path.parent.name}/{kept.name}"
        if name in files and name not in listed:
            yield f"{kept.name} is not in the manifest (after a new run: make manifest)"
        elif name in files and listed[name] != files[name]:
            yield f"{kept.name} is not what the manifest lists (after a new run: make manifest)"


def _provenance(origin: Provenance) -> Iterator[str]:
    if not origin.run_id.endswith(run_id("", origin.config, origin.settings)):
        yield "its name does not follow from its configuration and settings"
    if hashlib.sha256(json.dumps(origin.sources, sort_keys=True).encode()).hexdigest() != origin.source_hash:
        yield "the hash of its sources is of others"
    if not origin.started < origin.ended:
        yield f"it ends at {origin.ended}, before it starts"
    if not origin.sources or "python" not in origin.versions or not origin.command.startswith("python "):
        yield "it names no sources, no version of Python, or no command"


def _allocations(verdict: Verdict, origins: list[Provenance]) -> None:
    groups = defaultdict[str, list[Provenance]](list)
    for origin in origins:
        if origin.where:
            groups[origin.where].append(origin)
    for name, own in groups.items():
        of_gpus = [origin for origin in own if origin.device not in (origin.host_cpu, "cpu")]
        for what, found in (("host_cpu", own), ("device", of_gpus)):
            most = Counter(getattr(origin, what) for origin in found).most_common(1)
            for origin in found:
                value = getattr(origin, what)
                if value != most[0][0]:
                    problem = f"its {what} is {value}, that of the allocation's other runs ({name}) {most[0][0]}"
                    verdict.problems.append((f"{origin.experiment}/{origin.run_id}", "provenance", problem))


def _logs(verdict: Verdict, known: list[tuple[Provenance, pd.DataFrame]], results: Path) -> None:
    groups = defaultdict[tuple[str, int], list[tuple[Provenance, pd.DataFrame]]](list)
    for origin, rows in known:
        groups[origin.experiment, origin.schema_version].append((origin, rows))
    for (experiment, _), own in groups.items():
        should = logs.should_say(pd.concat([rows for _, rows in own], ignore_index=True), experiment)
        for origin, _ in own:
            path = parquet.path_of(experiment, origin.run_id, results).with_suffix(".log")
            name = f"{experiment}/{origin.run_id}"
            if path.exists() and origin.run_id in should:
                text = path.read_text(encoding="utf-8", errors="replace")
                found = logs.differences(text, should[origin.run_id], experiment)
                if found is not None:
                    verdict.note(name, "log", [*found[:3], *([f"and {len(found) - 3} more"] if found[3:] else [])])
                    verdict.note(name, "provenance", logs.foreign(text, origin.run_id, origin.device))
                    verdict.checked["provenance"] -= 1


@functools.cache
def _at_commit(commit: str, path: str, root: Path) -> str | None:
    """SHA-256 of a file as committed; empty where the commit has none, None where the commit is unknown here."""
    found = subprocess.run(["git", "cat-file", "blob", f"{commit}:{path}"], cwd=root, capture_output=True)
    if found.returncode == 0:
        return checksums.of_bytes(found.stdout)
    there = subprocess.run(["git", "cat-file", "-e", commit], cwd=root, capture_output=True)
    return "" if there.returncode == 0 else None


def _sources_of(origin: Provenance, root: Path) -> list[str] | None:
    """Sources that differ from those of the run's commit; None where that can't be looked up, or had changes."""
    if origin.git_dirty:
        return None
    try:
        numbers = {path: digest for path, digest in origin.sources.items() if path not in NO_NUMBERS}
        found = {path: _at_commit(origin.git_commit, path, root) for path in numbers}
    except OSError:  # no git
        return None
    if None in found.values():
        return None
    return [
        f"{path} is not that of its commit {origin.git_commit[:7]}" for path in found if found[path] != numbers[path]
    ]
