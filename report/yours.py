"""The reader's own results beside the committed ones: folders that DLPERF_RESULTS names, joined by `:`.

Nothing is pooled. A chapter loads both with `both`; `show.result` calls its function for each of the reader's folders
first, then for the committed runs, and says whose they are.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import altair as alt
import pandas as pd

from experiments.cli import UsageError
from experiments.machine.device_names import short_name
from experiments.store import parquet
from experiments.store.files import ROOT
from report.answers import Missing
from report.comparisons import Incomparable
from report.used import Watch

FOLDERS = "DLPERF_RESULTS"
COMMITTED = "committed machines"
MEASURE = "python experiments/measure.py"


class Own(NamedTuple):
    """One of the reader's folders, and what its runs are called."""

    name: str  # yours: 2 × RTX 4090
    folder: Path


@dataclass(frozen=True)
class Both:
    """What a loader made of the committed results and of the reader's, the latter by name."""

    committed: Any
    own: dict[str, Any]


class Made(NamedTuple):
    """What a function made: of whose results (empty: of all that there are), and from which runs."""

    whose: str
    what: Any
    runs: list[str]


def folders(root: Path = ROOT) -> list[Path]:
    """The reader's folders, none by default. Raises UsageError for one that isn't there or has no results."""
    found = []
    for text in filter(None, os.environ.get(FOLDERS, "").split(os.pathsep)):
        folder = root / text
        if not folder.is_dir():
            raise UsageError(f"{FOLDERS}: {folder} is no folder; make results with: {MEASURE}")
        if not parquet.files(folder):
            raise UsageError(f"{FOLDERS}: {folder} has no results; make some with: {MEASURE}")
        found.append(folder)
    return found


def own() -> list[Own]:
    """The reader's folders with their names; two of the same devices are told apart by their folders."""
    found = [Own(f"yours: {_devices(folder)}", folder) for folder in folders()]
    names = [one.name for one in found]
    return [
        one if names.count(one.name) == 1 else one._replace(name=f"{one.name} ({one.folder.name})") for one in found
    ]


def _devices(folder: Path) -> str:
    """2 × RTX 4090, or 2 × Intel Xeon core: the device of most learners, GPUs before cores."""
    runs = parquet.origins(results=folder)
    gpus = [run for run in runs if run.device != run.host_cpu and run.device != "cpu"]
    largest = max(gpus or runs, key=lambda run: run.device_count)
    name = short_name(largest.device).removeprefix("NVIDIA ").removeprefix("GeForce ")
    return f"{largest.device_count} × {name}{'' if gpus else ' core'}"


def both(load: Callable[..., Any], **options: Any) -> Any:
    """What `load` makes of the committed results; with folders of the reader's, `Both`. Options are for the latter."""
    mine = own()
    return Both(load(), {one.name: load(one.folder, **options) for one in mine}) if mine else load()


def runs() -> list[parquet.Run]:
    """All stored runs, the reader's first. Raises SchemaError on a bad file."""
    return [*(run for folder in folders() for run in parquet.runs(folder)), *parquet.runs()]


def made(function: Callable[..., Any], arguments: tuple[Any, ...]) -> list[Made]:
    """What a chapter's function makes of its arguments; of `Both`, of each of the reader's results and the committed
    ones. Answers stay apart, charts and tables stand above each other in one."""
    given = [argument for argument in arguments if isinstance(argument, Both)]
    committed = tuple(a.committed if isinstance(a, Both) else a for a in arguments)
    if not given or function.__name__.startswith("text_"):  # prose around the committed figures
        return [_make("", function, committed)]
    found = []
    for name in given[0].own:
        part = tuple(a.own[name] if isinstance(a, Both) else a for a in arguments)
        name = f"{name}, synthetic images" if _synthetic(part) else name
        found.append(_make(name, tried(function), part))
    found.append(_make(COMMITTED, function, committed))
    if function.__name__.startswith("answer_"):
        return found
    whole = [one for one in found if not isinstance(one.what, Missing)]
    if len(whole) < 2 or not all(isinstance(one.what, str | alt.TopLevelMixin) for one in whole):
        return [(whole or found)[-1]._replace(whose="")]
    return [Made("", _joined(whole), sorted({run for one in whole for run in one.runs}))]


def tried(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function for a reader's runs, which are seldom a whole series at first: what it can't compare is missing."""

    def found(*arguments: Any) -> Any:
        try:
            return function(*arguments)
        except Incomparable as error:
            return Missing(str(error), error.command or MEASURE)

    return found


def _synthetic(arguments: tuple[Any, ...]) -> bool:
    """Whether runs on made-up images stand in for those on a data set."""
    frames = [a for a in arguments if isinstance(a, pd.DataFrame) and "dataset" in a]
    return any((frame.dataset == "synthetic").any() for frame in frames)


def _make(whose: str, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Made:
    with Watch(arguments) as watch:
        what = function(*arguments)
    return Made(whose, what, watch.runs)


def _joined(parts: list[Made]) -> Any:
    """Charts above each other, each with its own colours; tables and texts one after the other."""
    if all(isinstance(one.what, str) for one in parts):
        return "\n\n".join(f"*{one.whose[0].upper()}{one.whose[1:]}*\n\n{one.what}" for one in parts if one.what)
    charts = [one.what.properties(title=one.whose) for one in parts]
    return alt.vconcat(*charts).resolve_scale(color="independent", shape="independent", x="independent")


def other_version(folder: Path) -> str | None:
    """One line about runs that other sources made than the project's now; None without any."""
    found = parquet.origins(results=folder)
    stale = [run for run in found if run.stale()]
    if not stale:
        return None
    commits = ", ".join(sorted({f"`{run.git_commit[:7]}`" for run in stale}))
    return f"{len(stale)} of {len(found)} runs were made by another version of the project ({commits})."
