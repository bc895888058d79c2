"""Where the runs come from: a summary by allocation, and every run with its host, versions, sources and command."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from datetime import datetime

from experiments.machine.device_names import short_name
from experiments.store.parquet import Run
from report import show

STATES = ["current", "same numbers", "stale"]


def status(run: Run) -> str:
    """Whether the run's sources are what they were: one of STATES."""
    found = run.provenance.changes()
    return "current" if not found else "same numbers" if all(found.values()) else "stale"


def counted(number: int, noun: str) -> str:
    """A number with its noun, in the plural where needed."""
    return f"{show.count(number)} {noun}" + "s" * (number != 1)


def text_provenance_summary(runs: list[Run]) -> str:
    """How many runs there are, of how many the sources changed, and how many had uncommitted changes."""
    states = Counter(map(status, runs))
    dirty = sum(run.provenance.git_dirty for run in runs)
    return (
        f"{show.count(len(runs))} runs are stored; the sources of {show.count(len(runs) - states['current'])} of them "
        f"have changed since, of {show.count(states['stale'])} so that numbers might be others; {show.count(dirty)} "
        "were made in a working tree with changes that were not committed."
    )


def tbl_provenance(runs: list[Run]) -> str:
    """A row for each allocation and experiment: the devices, how many runs, their sources, and the day."""
    groups: dict[tuple[str, str], list[Run]] = defaultdict(list)
    first: dict[str, datetime] = {}
    for run in sorted(runs, key=lambda run: (run.provenance.started, run.provenance.run_id)):
        allocation = run.provenance.where or "unknown"
        first.setdefault(allocation, run.provenance.started)
        groups[allocation, run.provenance.experiment].append(run)
    groups = dict(sorted(groups.items(), key=lambda item: (first[item[0][0]], item[0])))
    rows = []
    for (allocation, experiment), members in groups.items():
        o = members[0].provenance
        states = Counter(map(status, members))
        found = ", ".join(f"{states[state]} {state}" for state in STATES if states[state])
        rows.append((allocation, experiment, _devices(members), len(members), found, f"{o.started:%d %b}"))
    headers = ["Allocation", "Experiment", "Devices", "Runs", "Sources", "Day"]
    return show.table_text(show.once(rows), headers, "lllrll")


def _devices(members: Iterable[Run]) -> str:
    most: dict[str, int] = {}
    for run in members:
        name = short_name(run.provenance.device).removeprefix("NVIDIA ")
        most[name] = max(most.get(name, 0), run.provenance.device_count)
    return ", ".join(f"{count} × {name}" for name, count in sorted(most.items()))


def tbl_provenance_runs(runs: list[Run]) -> str:
    """Every run, with the day (UTC) on which it began. A + marks a working tree with uncommitted changes."""
    rows = [
        (
            number,
            run.provenance.experiment,
            status(run),
            run.provenance.kind,
            "–" if run.provenance.seed is None else str(run.provenance.seed),
            f"`{run.provenance.git_commit[:7]}`" + "+" * run.provenance.git_dirty,
            f"{run.provenance.started:%d %b %Y}",
        )
        for number, run in enumerate(runs, start=1)
    ]
    return show.table_text(rows, ["No.", "Experiment", "Sources", "Kind", "Seed", "Commit", "Day"], "rlllrll")


def text_provenance_runs(runs: list[Run]) -> str:
    """Every run by its number in `tbl_provenance_runs`; those of the same machine, versions and sources together."""
    groups = defaultdict(list)
    for number, run in enumerate(runs, start=1):
        o = run.provenance
        key = (o.experiment, o.host_kind, o.host_cpu, o.host_cores, o.device, o.device_count, o.where)
        settings = tuple(o.settings.items())
        groups[*key, settings, tuple(sorted(o.versions.items())), o.source_hash].append((number, run))
    blocks = []
    for members in groups.values():
        o = members[0][1].provenance
        now = o.changes()
        noted = [f"`{path}`" + (f" ({'; '.join(reasons)})" if reasons else "") for path, reasons in now.items()]
        since = f"changed since: {', '.join(noted)}" if now else "unchanged since"
        lines = [
            f"**{o.experiment}: {counted(len(members), 'run')}**\n",
            f"- Host: {o.host_kind}, {o.host_cpu}, {counted(o.host_cores, 'core')}; allocation {o.where or 'unknown'}",
            f"- Device: {o.device_count} × {o.device}",
            f"- Versions: {', '.join(f'{name} {version}' for name, version in sorted(o.versions.items()))}",
            *([f"- Settings: {', '.join(f'`{k}={v}`' for k, v in o.settings.items())}"] if o.settings else []),
            f"- Sources: hash `{o.source_hash[:12]}`, {since}",
            "- Runs:",
            *(_line(number, run) for number, run in members),
        ]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks) or "There are no runs."


def _line(number: int, run: Run) -> str:
    o = run.provenance
    end = f"{o.ended:%H:%M}" if o.started.date() == o.ended.date() else f"{o.ended:%Y-%m-%d %H:%M}"
    when = f"{o.started:%Y-%m-%d %H:%M} – {end} UTC"
    return f"    - {number}: `{o.run_id}`, {counted(run.rows, 'row')}, {when}, by `{o.command}`"
