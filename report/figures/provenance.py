"""Where the runs come from: a summary by allocation, and every run with its host, versions, sources and command."""

from __future__ import annotations

import html
import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from datetime import datetime

import pandas as pd

from experiments.machine.device_names import short_name
from experiments.store import evidence, suspicious
from experiments.store.parquet import Run
from experiments.store.provenance import Provenance
from report import literal, show, surroundings
from report.known_runs import STATES, Known


def counted(number: int, noun: str) -> str:
    """A number with its noun, in the plural where needed."""
    return f"{show.count(number)} {noun}" + "s" * (number != 1)


def text_provenance_summary(runs: list[Known]) -> str:
    """How many runs there are, of how many the sources changed, and how many had uncommitted changes."""
    states = Counter(one.status for one in runs)
    dirty = sum(one.run.provenance.git_dirty for one in runs)
    return (
        f"{show.count(len(runs))} runs are stored; the sources of {show.count(len(runs) - states['current'])} of them "
        f"have changed since, for {show.count(states['stale'])} in ways that could change numbers; {show.count(dirty)} "
        "were made in a working tree with changes that were not committed."
    )


def tbl_provenance(runs: list[Known]) -> str:
    """A row for each allocation and experiment: the devices, how many runs, their sources, and the day."""
    groups: dict[tuple[str, str], list[Known]] = defaultdict(list)
    first: dict[str, datetime] = {}
    for one in sorted(runs, key=lambda one: (one.run.provenance.started, one.run.provenance.run_id)):
        allocation = one.run.provenance.where or "unknown"
        first.setdefault(allocation, one.run.provenance.started)
        groups[allocation, one.run.provenance.experiment].append(one)
    groups = dict(sorted(groups.items(), key=lambda item: (first[item[0][0]], item[0])))
    rows = []
    for (allocation, experiment), members in groups.items():
        o = members[0].run.provenance
        states = Counter(one.status for one in members)
        found = ", ".join(f"{states[state]} {state}" for state in STATES if states[state])
        rows.append((allocation, experiment, _devices(members), len(members), found, f"{o.started:%d %b}"))
    headers = ["Allocation", "Experiment", "Devices", "Runs", "Sources", "Day"]
    return show.table_text(show.once(rows), headers, "lllrll")


def tbl_provenance_checks(found: evidence.Verdict) -> str:
    """Each check of the stored runs: of how many it could say something, and how many failed."""
    failed = {check: {run for run, of, _ in found.problems if of == check} for check in evidence.CHECKS}
    rows = [(check, what, found.checked[check], len(failed[check])) for check, what in evidence.CHECKS.items()]
    return show.table_text(rows, ["Check", "What must hold", "Runs", "Failed"], "llrr")


def text_provenance_checks(found: evidence.Verdict) -> str:
    """What failed, and what no check can know."""
    wrong = [f"- {literal.code(run)}, {check}: {literal.text(what)}" for run, check, what in found.problems]
    failures = f"{counted(len(wrong), 'problem')}:\n\n" + "\n".join(wrong) if wrong else "No run fails."
    return f"{failures}\n\nWhat no check here can know:\n\n" + "\n".join(f"- {what}" for what in evidence.UNKNOWABLE)


def text_provenance_suspicious(found: evidence.Verdict) -> str:
    """The suspicious runs, why they are, and what explains them."""
    named = [(literal.code(f"{of}/{flag.run}"), suspicious.told(flag)) for of, flag in found.suspicious]
    lines = [f"- {run}: {literal.text(why)}" for run, why in named]
    return "\n".join(lines) or "No run is suspicious."


def _devices(members: Iterable[Known]) -> str:
    most: dict[str, int] = {}
    for one in members:
        name = short_name(one.run.provenance.device).removeprefix("NVIDIA ")
        most[name] = max(most.get(name, 0), one.run.provenance.device_count)
    return ", ".join(f"{count} × {name}" for name, count in sorted(most.items()))


def tbl_provenance_runs(runs: list[Known]) -> str:
    """Every run, with the day (UTC) on which it began. A + marks a working tree with uncommitted changes."""
    rows = [
        (
            number,
            o.experiment,
            one.status,
            o.kind,
            "–" if o.seed is None else str(o.seed),
            f"`{o.git_commit[:7]}`" + "+" * o.git_dirty,
            f"{o.started:%d %b %Y}",
        )
        for number, one in enumerate(runs, start=1)
        for o in [one.run.provenance]
    ]
    return show.table_text(rows, ["No.", "Experiment", "Sources", "Kind", "Seed", "Commit", "Day"], "rlllrll")


def csv(runs: list[Known]) -> str:
    """Every run in a row: `provenance.csv`, beside the page."""
    rows = []
    for one in runs:
        row = one.run.provenance.model_dump(mode="json", exclude={"config", "sources"})
        row["allocation"] = one.run.provenance.where
        row |= {"state": one.status, "changed": list(one.changes), "rows": one.run.rows}
        rows.append({name: json.dumps(v) if isinstance(v, dict | list) else v for name, v in row.items()})
    return literal.csv(pd.DataFrame(rows))


def text_provenance_runs(runs: list[Known]) -> str:
    """Every run by its number in `tbl_provenance_runs`; those of the same machine, versions and sources together."""
    groups = defaultdict(list)
    for number, one in enumerate(runs, start=1):
        o = one.run.provenance
        key = (o.experiment, o.host_kind, o.host_cpu, _cores(o), o.device, o.device_count, o.where)
        settings = tuple(o.settings.items())
        groups[*key, settings, tuple(sorted(o.versions.items())), o.source_hash].append((number, one))
    blocks = "\n".join(_together(members) for members in groups.values())
    return show.raw("html", blocks) if blocks else "There are no runs."


def _together(members: list[tuple[int, Known]]) -> str:
    """Runs of one host, versions and sources as HTML: only pages list them, and Markdown of so many takes long."""
    o, now = members[0][1].run.provenance, members[0][1].changes
    noted = [_code(path) + (f" ({_text('; '.join(reasons))})" if reasons else "") for path, reasons in now.items()]
    since = f"changed since: {', '.join(noted)}" if now else "unchanged since"
    versions = ", ".join(f"{name} {version}" for name, version in sorted(o.versions.items()))
    lines = [
        f"Host: {_text(f'{o.host_kind}, {o.host_cpu}')}, {_cores(o)}; allocation {_text(o.where or 'unknown')}",
        f"Device: {o.device_count} × {_text(o.device)}",
        f"Versions: {_text(versions)}",
        *([f"Settings: {', '.join(_code(f'{k}={v}') for k, v in o.settings.items())}"] * bool(o.settings)),
        f"Sources: hash {_code(o.source_hash[:12])}, {since}",
        f"Runs:\n<ul>\n{_items(_line(number, one.run) for number, one in members)}\n</ul>",
    ]
    head = f"{o.experiment}: {counted(len(members), 'run')}"
    return f"<p><strong>{head}</strong></p>\n<ul>\n{_items(lines)}\n</ul>"


def _items(lines: Iterable[str]) -> str:
    return "\n".join(f"<li>{line}</li>" for line in lines)


def _text(value: str) -> str:
    return html.escape(literal.one_line(value))


def _code(value: str) -> str:
    return f"<code>{_text(value)}</code>"


def text_provenance_rendering() -> str:
    """What rendered this very document."""
    return f"This document was rendered by {surroundings.versions()}."


def _cores(o: Provenance) -> str:
    """A host's cores; where control groups granted less, how many cores' time, and how often a run had to wait."""
    if o.cpu_quota is None:
        return counted(o.host_cores, "core")
    waited = counted(o.throttled_periods or 0, "period")
    return f"{counted(o.host_cores, 'core')} with a quota of {o.cpu_quota:g} (used up in {waited})"


def _line(number: int, run: Run) -> str:
    o = run.provenance
    end = f"{o.ended:%H:%M}" if o.started.date() == o.ended.date() else f"{o.ended:%Y-%m-%d %H:%M}"
    when = f"{o.started:%Y-%m-%d %H:%M} – {end} UTC"
    what = f"{_code(o.run_id)}, {counted(run.rows, 'row')}, {when}, by {_code(o.command)}"
    return f'<span id="run-{html.escape(o.run_id)}"></span>{number}: {what}'
